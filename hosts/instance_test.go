package hosts_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAHostIsToldWhatInstanceMetadataShowsOfAVM(t *testing.T) {
	w := newWorld(t)
	w.put(string(web), map[string]any{
		"zones": []string{"2"},
		"plan":  map[string]any{"name": "p", "product": []string{"not a word"}},
		"properties": map[string]any{
			"host":            map[string]any{"id": node1},
			"hardwareProfile": map[string]any{"vmSize": "Standard_B1s"},
			"osProfile": map[string]any{
				"computerName": "front", "adminPassword": "hunter2", "customData": "aHVudGVyMg==",
				"linuxConfiguration": map[string]any{"disablePasswordAuthentication": true},
			},
			"storageProfile": map[string]any{"osDisk": map[string]any{"diskSizeGB": 30}, "imageReference": nil},
			"priority":       map[string]any{"not": "a word"},
			"userData":       "aHVudGVyMg==", // kept nowhere: every process in the VM could read it
		},
	})
	r, _ := w.joined(node1).feed()
	want := map[string]string{
		"compute.host.id":                string(node1),
		"compute.vmSize":                 "Standard_B1s",
		"compute.zone":                   "2",
		"compute.plan.name":              "p",
		"compute.osProfile.computerName": "front",
		"compute.osProfile.disablePasswordAuthentication": "true",
		"compute.storageProfile.osDisk.diskSizeGB":        "30",
	}
	if d := cmp.Diff(want, r.placement(web).Instance); d != "" {
		t.Error(d)
	}
}
