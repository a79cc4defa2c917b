package audit_test

import (
	"path/filepath"
	"testing"

	"innate/audit"
)

// BenchmarkRecord is one event on disk by many writers at once.
func BenchmarkRecord(b *testing.B) {
	l, err := audit.Open(filepath.Join(b.TempDir(), "audit.log"))
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	ev := audit.Event{
		Action: "issue-token", Allowed: true, Target: "https://vault.azure.net",
		Principal: "8a6d5c1e-0000-4000-8000-000000000001", Name: "web-1", Token: "uti", Why: "certificate",
		Hosting: "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/web-1",
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := l.Record(b.Context(), ev); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
