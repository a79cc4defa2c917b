package caller_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"innate/agent/launch"
)

// A peer is another process: this test binary again, in a cgroup and under a
// uid of the test's choice, doing with one socket what it is told.
type peer struct {
	t     testing.TB
	stdin io.Writer
	lines *bufio.Scanner
}

const peerVariable = "INNATE_TEST_PEER"

func TestMain(m *testing.M) {
	if os.Getenv(peerVariable) != "" {
		obey()
		return
	}
	os.Exit(m.Run())
}

func newPeer(t testing.TB, group *launch.Cgroup, uid uint32) *peer {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{peerVariable + "=1", "GORACE=atexit_sleep_ms=0"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	dir, err := os.Open(group.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting a peer as uid %d: %v", uid, err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	return &peer{t, stdin, bufio.NewScanner(stdout)}
}

// do tells the peer what to do and waits until it has.
func (p *peer) do(format string, args ...any) {
	p.t.Helper()
	order := fmt.Sprintf(format, args...)
	fmt.Fprintln(p.stdin, order)
	if !p.lines.Scan() || p.lines.Text() != "done" {
		p.t.Fatalf("peer, %s: %s", order, p.lines.Text())
	}
}

// obey is the peer's side.
func obey() {
	fd := -1
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var err error
		var from, to int
		switch order := in.Text(); {
		case strings.HasPrefix(order, "connect"):
			fmt.Sscanf(order, "connect from %d to %d", &from, &to)
			if fd, err = bound(from); err == nil {
				err = unix.Connect(fd, loopback(to))
			}
		case strings.HasPrefix(order, "listen"):
			fmt.Sscanf(order, "listen on %d", &from)
			if fd, err = bound(from); err == nil {
				err = unix.Listen(fd, 1)
			}
		case order == "share": // with another process, of the same cgroup and uid
			cmd := exec.Command("/bin/sleep", "60")
			cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "socket")}
			err = cmd.Start()
		case order == "close":
			err = unix.Close(fd)
		case order == "reset": // a close that says RST
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			err = unix.Close(fd)
		}
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("done")
	}
}

func bound(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, loopback(port))
}

func loopback(port int) unix.Sockaddr {
	return &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
}
