package agent_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"innate/agent"
	"innate/feed/client"
)

// namespace makes a network namespace.
func namespace(t *testing.T) *os.File {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	type made struct {
		ns  *os.File
		err error
	}
	done := make(chan made)
	go func() {
		// The thread is not given back: it ends with the goroutine.
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- made{nil, err}
			return
		}
		ns, err := os.Open("/proc/thread-self/ns/net")
		done <- made{ns, err}
	}()
	m := <-done
	if m.err != nil {
		t.Skipf("this machine allows no network namespace: %v", m.err)
	}
	t.Cleanup(func() { m.ns.Close() })
	return m.ns
}

func TestAVMIsServedInsideItsOwnNamespace(t *testing.T) {
	ns := namespace(t)
	p := newPlane(t)
	p.place(client.Placement{Resource: webVM, Identities: []client.Identity{ident(1, true)}})
	a := p.start(func(c *agent.Config) { c.Dev = false })
	for range 2 { // the second replaces the first
		if err := agent.Attach(a.socket(), "web-1", agent.Place{NetNS: path(ns)}); err != nil {
			t.Fatal(err)
		}
	}
	want := string(ident(1, true).Client) + "|" + vault + "|netns|1"
	if got, err := askInside(t, ns); got != want {
		t.Errorf("inside: got %q %v, want %q", got, err, want)
	}
	if st, err := agent.ReadStatus(a.socket()); err != nil || len(st.Attached) != 1 {
		t.Errorf("status: %+v %v, want one VM attached", st, err)
	}
	p.tell(row(webVM), nil)
	eventually(t, "the service ends with the VM", func() bool { _, err := askInside(t, ns); return errors.Is(err, unix.ECONNREFUSED) })
}

func askInside(t *testing.T, ns *os.File) (token string, err error) {
	t.Helper()
	return asksFrom(t, ns, "", patient)
}

// getInside asks the metadata service as a process in ns would.
func getInside(t *testing.T, ns *os.File, target string) (status int, body []byte, err error) {
	t.Helper()
	return getFrom(t, ns, "", patient, target)
}

func TestTheHostsOwnNamespaceIsNoVMs(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(client.Placement{Resource: webVM})
	a := p.start(nil)
	if err := agent.Attach(a.socket(), "web-1", agent.Place{Host: true}); err == nil || !strings.Contains(err.Error(), "namespace of the host itself") {
		t.Errorf("the host's own: got %v", err)
	}
	if err := agent.Attach(a.socket(), "web-1", agent.Place{NetNS: "/dev/null"}); err == nil || !strings.Contains(err.Error(), "no network namespace") {
		t.Errorf("something else: got %v", err)
	}
	if err := agent.Attach(a.socket(), "web-2", agent.Place{Host: true}); err == nil || !strings.Contains(err.Error(), "is placed on this host") {
		t.Errorf("an unknown VM: got %v", err)
	}
}
