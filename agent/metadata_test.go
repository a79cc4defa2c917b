package agent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate/agent"
	"innate/agent/caller"
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
	path := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd())
	for range 2 { // the second replaces the first
		if err := agent.Attach(a.socket(), "web-1", path); err != nil {
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
	status, b, err := getInside(t, ns, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault)
	if err != nil {
		return "", err
	}
	var v struct {
		Token string `json:"access_token"`
	}
	if json.Unmarshal(b, &v) != nil || v.Token == "" {
		return "", fmt.Errorf("%d: %s", status, b)
	}
	return v.Token, nil
}

// getInside asks the metadata service as a process in ns would.
func getInside(t *testing.T, ns *os.File, target string) (status int, body []byte, err error) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	tr.Dial = func(network, addr string) (c net.Conn, err error) {
		err = caller.InNamespace(ns, func() error {
			c, err = net.DialTimeout("tcp4", addr, time.Second)
			return err
		})
		return c, err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://169.254.169.254"+target, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Metadata", "true")
	resp, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func TestTheHostsOwnNamespaceIsNoVMs(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(client.Placement{Resource: webVM})
	a := p.start(nil)
	if err := agent.Attach(a.socket(), "web-1", "/proc/thread-self/ns/net"); err == nil || !strings.Contains(err.Error(), "namespace of the host itself") {
		t.Errorf("the host's own: got %v", err)
	}
	if err := agent.Attach(a.socket(), "web-1", "/dev/null"); err == nil || !strings.Contains(err.Error(), "no network namespace") {
		t.Errorf("something else: got %v", err)
	}
	if err := agent.Attach(a.socket(), "web-2", "/proc/thread-self/ns/net"); err == nil || !strings.Contains(err.Error(), "is placed on this host") {
		t.Errorf("an unknown VM: got %v", err)
	}
}
