package agent_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"innate/agent/caller"
	"innate/feed/client"
)

// A tenant with rights over its network can destroy our listener: its own harm,
// and not for long (host-attestation §4.1).
func TestAListenerThatItsTenantDestroyedComesBackWithinASecond(t *testing.T) {
	ss, err := exec.LookPath("ss")
	if err != nil {
		t.Skip("needs ss, to destroy a socket")
	}
	p := newPlane(t)
	ns := attached(t, p, nil)
	p.place(client.Placement{Resource: webVM, Identities: []client.Identity{ident(1, true)}})
	eventually(t, "the VM has its identity", func() bool { _, err := askInside(t, ns); return err == nil })
	for range 3 {
		var out []byte
		if err := caller.InNamespace(ns, func() (err error) {
			out, err = exec.Command(ss, "-H", "-n", "-K", "-l", "-t", "sport = :80").CombinedOutput()
			return err
		}); err != nil || !strings.Contains(string(out), ":80") {
			t.Skipf("this kernel destroys no sockets: %v %s", err, out)
		}
		begun := time.Now()
		eventually(t, "it is served again", func() bool { _, err := askInside(t, ns); return err == nil })
		if took := time.Since(begun); took > time.Second {
			t.Errorf("it took %v", took)
		}
	}
}
