package tokens_test

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"

	"innate/directory"
	"innate/store"
)

// What one exact credential costs does not depend on how many others there are.
func TestOfTenThousandCredentialsTheExactOneCostsAsMuchAsAlone(t *testing.T) {
	s := startStranger(t)
	compact := s.token(nil).compact(t)
	bytes := func() uint64 {
		const requests = 20
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range requests {
			if a := s.assert(s.client, compact); a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / requests
	}
	bytes() // the issuer's keys are had now
	alone := bytes()
	s.many(s.object.ID, 9000)
	s.update(func(tx store.Tx) error {
		for i := range 1000 {
			if _, _, err := directory.PutFederated(tx, directory.FederatedCredential{
				Principal: s.object.ID, Name: fmt.Sprintf("pattern%d", i), Issuer: s.url, Audience: directory.FederatedAudience,
				Matching: fmt.Sprintf("claims['sub'] matches 'repo:contoso/*:environment:prod%d'", i),
			}, noon); err != nil {
				return err
			}
		}
		return nil
	})
	if beside := bytes(); beside > alone+alone/5 {
		t.Errorf("a token takes %d bytes, and beside ten thousand other credentials %d", alone, beside)
	}
}
