package agent_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"innate"
	"innate/agent"
	"innate/agent/caller"
	"innate/feed/client"
)

const worldVariable = "INNATE_TEST_WORLD"

// inAWorldOfItsOwn runs the test that calls it in a process of its own whose
// network is a new namespace: for what an agent does to its host's network, and
// since no test may touch 169.254.169.254 in the machine's. It reports whether
// this is that process.
func inAWorldOfItsOwn(t *testing.T) bool {
	t.Helper()
	if os.Getenv(worldVariable) != "" {
		run(t, nil, "ip", "link", "set", "lo", "up")
		return true
	}
	if os.Getuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	cmd := exec.Command("/proc/self/exe", "-test.v", "-test.timeout=1m", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), worldVariable+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM):
		t.Skipf("this machine allows no network namespace: %v", err)
	case err != nil:
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	case bytes.Contains(out, []byte("--- SKIP")):
		t.Skipf("in a network namespace:\n%s", out)
	case !bytes.Contains(out, []byte("--- PASS")):
		t.Fatalf("in a network namespace no test ran:\n%s", out)
	}
	return false
}

// run runs a program inside a namespace; nil means the test's own.
func run(t *testing.T, ns *os.File, args ...string) string {
	t.Helper()
	out, err := try(ns, args...)
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func try(ns *os.File, args ...string) (string, error) {
	var out []byte
	do := func() (err error) {
		out, err = exec.Command(args[0], args[1:]...).CombinedOutput()
		return err
	}
	if ns == nil {
		err := do()
		return string(out), err
	}
	err := caller.InNamespace(ns, do)
	return string(out), err
}

// set writes a sysctl inside a namespace; nil means the test's own.
func set(t *testing.T, ns *os.File, name, value string) {
	t.Helper()
	run(t, ns, "sh", "-c", "echo "+value+" > /proc/sys/net/"+name)
}

// A guest is a VM: a network namespace with a cable to the host. It routes the
// metadata address to the cable, as VMs do.
type guest struct {
	ns      *os.File
	device  string // the host's end of the cable
	ip, mac string
}

// newGuest is the n-th VM.
func newGuest(t *testing.T, n int) guest {
	t.Helper()
	g := guest{
		ns: namespace(t), device: fmt.Sprintf("tap%d", n),
		ip: fmt.Sprintf("10.9.0.%d", n), mac: fmt.Sprintf("02:00:00:00:00:%02x", n),
	}
	g.plug(t)
	return g
}

// plug connects a guest to the host.
func (g guest) plug(t *testing.T) {
	t.Helper()
	run(t, nil, "ip", "link", "add", g.device, "type", "veth", "peer", "name", "eth0", "address", g.mac, "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), g.ns.Fd()))
	run(t, nil, "ip", "link", "set", g.device, "up")
	run(t, g.ns, "ip", "link", "set", "eth0", "up")
	run(t, g.ns, "ip", "address", "add", g.ip+"/24", "dev", "eth0")
	run(t, g.ns, "ip", "route", "add", "169.254.169.254", "dev", "eth0")
	run(t, g.ns, "ip", "link", "set", "lo", "up")
	for _, conf := range []string{"all", g.device} {
		set(t, nil, "ipv4/conf/"+conf+"/rp_filter", "0") // nothing but ours tells a spoofed address
	}
}

// How long to wait: for no answer, and for one, on a busy machine too.
const (
	quick   = 400 * time.Millisecond
	patient = 5 * time.Second
)

// asks asks for a token inside a namespace, and does not wait long.
func asks(t *testing.T, ns *os.File) (token string, err error) { return asksFrom(t, ns, "", quick) }

// asksFrom asks from a source address; empty: whatever the namespace has.
func asksFrom(t *testing.T, ns *os.File, source string, within time.Duration) (token string, err error) {
	t.Helper()
	status, b, err := getFrom(t, ns, source, within, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource="+vault)
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

// getFrom asks the metadata service for anything.
func getFrom(t *testing.T, ns *os.File, source string, within time.Duration, target string) (status int, body []byte, err error) {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	tr.Dial = func(network, addr string) (c net.Conn, err error) {
		d := net.Dialer{Timeout: within}
		if source != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		}
		inside := func() (err error) {
			c, err = d.Dial("tcp4", addr)
			return err
		}
		if ns == nil {
			err = inside()
		} else {
			err = caller.InNamespace(ns, inside)
		}
		return c, err
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://169.254.169.254"+target, nil)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Metadata", "true")
	resp, err := (&http.Client{Transport: tr, Timeout: 2 * within}).Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// vm is the id of the n-th VM, whose identity is the n-th.
func vm(n int) innate.ResourceID {
	return innate.ResourceID(fmt.Sprintf("%sMicrosoft.Compute/virtualMachines/vm-%d", prefix, n))
}

// withVMs starts an agent on whose host n VMs are placed. It may take the address over.
func withVMs(t *testing.T, n int) running {
	t.Helper()
	p := newPlane(t)
	for i := range n {
		p.place(client.Placement{Resource: vm(i + 1), Identities: []client.Identity{ident(i+1, true)}})
	}
	return p.start(func(c *agent.Config) { c.Dev, c.TakeOver = false, true })
}

// attach attaches the n-th VM.
func (r running) attach(t *testing.T, n int, at agent.Place) {
	t.Helper()
	if err := agent.Attach(r.socket(), string(vm(n)), at); err != nil {
		t.Fatal(err)
	}
}

// isToken reports whether a token is the n-th VM's, proved so surely.
func isToken(token string, n int, proof innate.Assurance) bool {
	return strings.HasPrefix(token, string(ident(n, true).Client)+"|"+vault+"|"+proof.String()+"|")
}

// wants asks inside a namespace and wants the n-th VM's token.
func wants(t *testing.T, what string, ns *os.File, n int, proof innate.Assurance) {
	t.Helper()
	if got, err := asksFrom(t, ns, "", patient); err != nil || !isToken(got, n, proof) {
		t.Errorf("%s: got %q %v, want VM %d's token by %s", what, got, err, n, proof)
	}
}
