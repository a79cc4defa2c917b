package opener_test

import (
	"strings"
	"testing"

	"innate/agent/opener"
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
		err := opener.CheckRange(c.base, c.subuid)
		if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("above %d with %q: got %v, want %q in it", c.base, c.subuid, err, c.why)
		}
	}
}
