package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent"
)

func TestAppsGetNoUIDThatOthersGiveAway(t *testing.T) {
	const usual = 1_900_000_000
	for _, c := range []struct {
		base   uint32
		subuid string
		why    string // "": it will do
	}{
		{usual, "", ""},
		{usual, "ann:100000:65536\n# note\nbob:165536:65536\n", ""},
		{usual, "ann:1899999999:2\n", ""}, // ends just below the first
		{usual, "ann:1899999999:3\n", "gives those from 1899999999 to 1900000001 to ann"},
		{usual, "ann:2000000000:1\n", "to ann"}, // the last
		{usual, "ann:2000000001:1\n", ""},
		{usual, "ann:x:1\nbob:1900000005:0\n:::\n", ""}, // nothing is given
		{0, "", "system's own"},
		{999, "", "system's own"},
		{61000, "", "system's own"}, // systemd's DynamicUser=
		{65534, "", "system's own"}, // (uid_t)-1 in 16 bits
		{65535, "", ""},
		{1 << 31, "", "want none above"},
	} {
		err := agent.CheckRange(c.base, c.subuid)
		if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("above %d with %q: got %v, want %q in it", c.base, c.subuid, err, c.why)
		}
	}
}

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
