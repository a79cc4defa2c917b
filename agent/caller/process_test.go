package caller_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"

	"innate/agent/caller"
)

func TestTheProcessThatHoldsAConnectionIsFound(t *testing.T) {
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	facts, err := newDiag(t).Attest(server)
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("cat") // holds no socket, and waits for us
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	children, err := caller.Children(os.Getpid())
	if err != nil || !slices.Contains(children, other.Process.Pid) {
		t.Errorf("children %v, %v; want %d among them", children, err, other.Process.Pid)
	}
	p, err := caller.Holder(facts, []int{1 << 30, other.Process.Pid, os.Getpid()})
	if err != nil || p.PID != os.Getpid() || !p.Lives() {
		t.Errorf("holder %+v, %v; want us, %d", p, err, os.Getpid())
	}
	if p, err := caller.Holder(facts, []int{other.Process.Pid}); !errors.Is(err, caller.ErrPeerGone) {
		t.Errorf("among others the holder is %+v, %v; want none", p, err)
	}
	ended, err := caller.ProcessOf(other.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := other.Wait(); err != nil {
		t.Fatal(err)
	}
	if ended.Lives() {
		t.Error("a process that has ended lives")
	}
}
