package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent"
)

func TestAMapByWhichTwoAppsAreOneIsRefused(t *testing.T) {
	for text, why := range map[string]string{
		`{"/a":1900000001,"/b":1900000001}`: "both have uid 1900000001",
		`{"/a":0}`:                          "which is the system's",
		`{"/a":`:                            "unexpected end",
		`[]`:                                "cannot unmarshal",
	} {
		p := newPlane(t)
		dir := folder(t)
		c := agent.Config{State: filepath.Join(dir, "state"), Runtime: filepath.Join(dir, "run")}
		if err := agent.Join(t.Context(), c.State, p.joinString(p.pin())); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.State, "uids.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.New(c); err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "uids.json") {
			t.Errorf("%s: got %v, want %q in it", text, err, why)
		}
	}
}
