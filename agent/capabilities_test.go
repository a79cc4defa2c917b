package agent_test

import (
	"os"
	"strings"
	"testing"

	"innate"
	"innate/agent"
	"innate/agent/caller"
	"innate/agent/launch"
)

// oldKernel makes an agent ask as kernels before 5.8 answer.
func oldKernel(c *agent.Config) {
	c.NewDiag = func() (*caller.Diag, error) {
		d, err := caller.NewDiag()
		if err == nil {
			d.IgnoreCgroups = true
		}
		return d, err
	}
}

// capability is what the agent says of one way to prove callers.
func (r running) capability(t *testing.T, a innate.Assurance) agent.Capability {
	t.Helper()
	st, err := agent.ReadStatus(r.socket())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range st.Proofs {
		if c.Assurance == a {
			return c
		}
	}
	t.Fatalf("the status says nothing of %s: %+v", a, st.Proofs)
	return agent.Capability{}
}

func TestTheStatusTellsEveryProofAndWhyNot(t *testing.T) {
	t.Parallel()
	a := newPlane(t).start(func(c *agent.Config) {
		c.NewDiag = func() (*caller.Diag, error) { return nil, os.ErrPermission } // a filter of system calls, for instance
	})
	if a.Assurance() != innate.SecretOnly {
		t.Errorf("proved by %s though the kernel cannot be asked", a.Assurance())
	}
	if c := a.capability(t, innate.SecretOnly); !c.Available || c.Note != "" {
		t.Errorf("secret-only takes nothing: got %+v", c)
	}
	if c := a.capability(t, innate.UID); c.Available || !strings.Contains(c.Note, os.ErrPermission.Error()) {
		t.Errorf("uid: got %+v, want why not", c)
	}
	if c := a.capability(t, innate.CgroupUID); c.Available || c.Note == "" {
		t.Errorf("cgroup+uid: got %+v, want why not", c)
	}
}

func TestOnAnOldKernelAppsAreProvedBySearchingForTheirSockets(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, for cgroups and uids of its own")
	}
	if _, err := launch.OwnDirectory(); err != nil {
		t.Skip(err)
	}
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(oldKernel)
	c := a.capability(t, innate.CgroupUID)
	if !c.Available || !strings.Contains(c.Note, "/proc") {
		t.Fatalf("cgroup+uid: got %+v, want it available by a detour", c)
	}
	want := string(ident(1, true).Client) + "|" + vault + "|cgroup+uid|1"
	if got := a.askAs(t, apiApp); got != want {
		t.Errorf("the app got %q, want %q", got, want)
	}
}
