package caller_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent/caller"
	"innate/agent/launch"
)

// An old kernel's.
func blindDiag(t testing.TB) *caller.Diag {
	d := newDiag(t)
	d.IgnoreCgroups = true
	return d
}

// pids are the processes of a cgroup.
func pids(t *testing.T, g *launch.Cgroup) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(g.Path(), "cgroup.procs"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// move puts a process into another cgroup, as root may.
func move(t *testing.T, pid string, to *launch.Cgroup) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(to.Path(), "cgroup.procs"), []byte(pid), 0); err != nil {
		t.Fatal(err)
	}
}

// attested connects a new peer and returns it with what an old kernel says of its socket.
func attested(t testing.TB, group *launch.Cgroup, uid uint32) (*peer, caller.Facts) {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	p := newPeer(t, group, uid)
	p.do("connect from 0 to %d", port(l))
	f, err := blindDiag(t).Attest(accept(t, l))
	if err != nil || f.UID != uid || f.Cgroup != 0 {
		t.Fatalf("an old kernel says %+v, %v; want uid %d and no cgroup", f, err, uid)
	}
	return p, f
}

func TestWhereTheKernelNamesNoCgroupTheHolderOfTheSocketDecides(t *testing.T) {
	g := groups(t, "own", "other")
	own, other := g[0], g[1]

	_, f := attested(t, own, 60001)
	if err := caller.HeldIn(own.Path(), f); err != nil {
		t.Errorf("a process of the cgroup: %v", err)
	}
	if err := caller.HeldIn(other.Path(), f); !errors.Is(err, caller.ErrUnknownCgroup) {
		t.Errorf("a process of another cgroup, same uid: %v, want %v", err, caller.ErrUnknownCgroup)
	}
	move(t, pids(t, own)[0], other)
	if err := caller.HeldIn(own.Path(), f); !errors.Is(err, caller.ErrUnknownCgroup) {
		t.Errorf("a process that has left the cgroup: %v, want %v", err, caller.ErrUnknownCgroup)
	}
}

func TestASocketThatIsAlsoHeldOutsideIsRefused(t *testing.T) {
	g := groups(t, "own", "other")
	own, other := g[0], g[1]
	p, f := attested(t, own, 60001)
	p.do("share")
	if err := caller.HeldIn(own.Path(), f); err != nil {
		t.Errorf("held twice inside: %v", err)
	}
	for _, pid := range pids(t, own) {
		if exe, _ := os.ReadFile("/proc/" + pid + "/comm"); strings.TrimSpace(string(exe)) == "sleep" {
			move(t, pid, other)
		}
	}
	if err := caller.HeldIn(own.Path(), f); !errors.Is(err, caller.ErrUnknownCgroup) || !strings.Contains(err.Error(), "outside") {
		t.Errorf("held inside and outside: %v, want %v that says so", err, caller.ErrUnknownCgroup)
	}
}

func TestASocketThatNobodyHoldsIsRefused(t *testing.T) {
	g := groups(t, "own")
	p, f := attested(t, g[0], 60001)
	p.do("close")
	if err := caller.HeldIn(g[0].Path(), f); !errors.Is(err, caller.ErrUnknownCgroup) {
		t.Errorf("closed: %v, want %v", err, caller.ErrUnknownCgroup)
	}
	if err := caller.HeldIn(g[0].Path(), caller.Facts{}); !errors.Is(err, caller.ErrPeerGone) {
		t.Errorf("inode 0, which a vanished socket has: %v, want %v", err, caller.ErrPeerGone)
	}
	if err := caller.HeldIn(g[0].Path()+"-removed", f); !errors.Is(err, caller.ErrUnknownCgroup) {
		t.Errorf("no such cgroup: %v, want %v", err, caller.ErrUnknownCgroup)
	}
}

func TestAConnectionWithoutAMarkIsNobodys(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c := accept(t, l)
	if mark, err := caller.Mark(c); !errors.Is(err, caller.ErrMark0) {
		t.Errorf("got %d, %v; want %v", mark, err, caller.ErrMark0)
	}
	c.Close()
	if mark, err := caller.Mark(c); !errors.Is(err, caller.ErrOwnEnd) {
		t.Errorf("closed: got %d, %v; want %v", mark, err, caller.ErrOwnEnd)
	}
}

func TestWhatThisProcessCanProveIsFoundByTrying(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("root can all of it; what others can is up to the machine")
	}
	dir, err := launch.OwnDirectory()
	if err != nil {
		t.Skip(err)
	}
	for what, err := range map[string]error{
		"namespaces": caller.ProbeNamespaces(), "devices": caller.ProbeDevices(), "holders": newDiag(t).ProbeHolders(dir),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	elsewhere := groups(t, "elsewhere")[0]
	if err := newDiag(t).ProbeHolders(elsewhere.Path()); err == nil {
		t.Error("our own socket was found in a cgroup where we are not")
	}
	own, err := launch.OwnCgroup()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blindDiag(t).Probe(own); !errors.Is(err, caller.ErrNoCgroup) {
		t.Errorf("an old kernel: %v, want %v", err, caller.ErrNoCgroup)
	}
}

// The cost goes with the processes of the machine, and the descriptors of the app's.
func BenchmarkHeldIn(b *testing.B) {
	own := groups(b, "own")[0]
	_, f := attested(b, own, 60001)
	for b.Loop() {
		if err := caller.HeldIn(own.Path(), f); err != nil {
			b.Fatal(err)
		}
	}
}
