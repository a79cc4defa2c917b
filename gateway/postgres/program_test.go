package postgres_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"innate/agent/caller"
	"innate/gateway/postgres"
	"innate/innatetest"
)

func TestMain(m *testing.M) {
	if os.Getenv(silent) != "" {
		sayYesAndNoMore()
	}
	innatetest.Main(m)
}

// silent is the variable that makes this program a gateway that is stuck.
const silent = "INNATE_TEST_SILENT"

// sayYesAndNoMore is a supervised gateway that gets stuck where libldap has no
// limit: after it has agreed to StartTLS.
func sayYesAndNoMore() {
	l, err := postgres.Inherited()
	if err != nil {
		panic(err)
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		io.ReadFull(conn, make([]byte, len(startTLS)))
		io.WriteString(conn, "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00")
		defer conn.Close()
	}
}

// A program is the gateway as people run it: the innate binary, which without a
// service manager watches over a process of its own.
type program struct {
	*world
	cmd *exec.Cmd
}

// newProgram starts the binary beside a server.
func newProgram(t *testing.T, w *world) *program {
	t.Helper()
	return newProgramAt(t, w, w.plane)
}

// newProgramAt is the same with that as the agent's endpoint.
func newProgramAt(t *testing.T, w *world, agent http.Handler) *program {
	t.Helper()
	endpoint := httptest.NewServer(agent) // on plain HTTP
	t.Cleanup(endpoint.Close)
	roots := filepath.Join(w.config.Dir, "plane.crt")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	at := w.config.Listener.Addr().String()
	w.config.Listener.Close()
	p := &program{world: w}
	p.cmd = exec.Command(innatetest.Program(t), "gateway", "postgres", "--server", string(orders), "--management", w.URL,
		"--dir", w.config.Dir, "--listen", at, "--connection", w.config.Connection)
	p.cmd.Env = []string{"PATH=/usr/bin:/bin", "SSL_CERT_FILE=" + roots, "IDENTITY_ENDPOINT=" + endpoint.URL + "/msi/token", "IDENTITY_HEADER=x"}
	p.cmd.Stdout, p.cmd.Stderr = w.log, w.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("the gateway ended with: %v", err)
		}
	})
	p.until("the gateway's word that it is ready", func() bool { return strings.Contains(w.log.String(), "ready") })
	return p
}

// child is the process that serves: the supervisor's.
func (p *program) child() int {
	p.t.Helper()
	var pid int
	p.until("the process that serves", func() bool {
		children, err := caller.Children(p.cmd.Process.Pid)
		if err == nil && len(children) == 1 {
			pid = children[0]
		}
		return pid != 0
	})
	return pid
}

// mostMemory is the most that a process has had resident, in bytes.
func mostMemory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// attempt logs in and says how long the answer took.
func (w *world) attempt(ctx context.Context, role, token string) (time.Duration, error) {
	begun := time.Now()
	conn, err := w.logIn(role, token)
	if err == nil {
		conn.Close(ctx)
	}
	return time.Since(begun), err
}

// authenticating counts the server's processes that have not come past their log-in.
func (w *world) authenticating() (n int) {
	w.t.Helper()
	children, err := caller.Children(w.pg.PID())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, pid := range children {
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(title, []byte("authentication")) {
			n++
		}
	}
	return n
}

func TestALogInEndsWhateverHappensToTheGateway(t *testing.T) {
	w := newServer(t)
	p := newProgram(t, w)
	w.mapped(alice, "app")
	token := w.token(alice, nil)
	good := func(t *testing.T) {
		t.Helper()
		w.until("a good log-in afterwards", func() bool { _, err := w.attempt(t.Context(), "app", token); return err == nil })
		w.until("that no log-in is left hanging", func() bool { return w.authenticating() == 0 })
	}
	// many log in at once, so that some are met at every step, and must all have
	// their answer in time.
	many := func(t *testing.T, limit time.Duration, strike func()) {
		t.Helper()
		type outcome struct {
			took time.Duration
			err  error
		}
		all := make(chan outcome, 10000)
		ctx, stop := context.WithCancel(t.Context())
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for ctx.Err() == nil {
					took, err := w.attempt(context.Background(), "app", token)
					all <- outcome{took, err}
				}
			})
		}
		for range 16 {
			<-all
		}
		strike()
		time.AfterFunc(6*time.Second, stop)
		clients.Wait()
		close(all)
		var longest time.Duration
		failed, n := 0, 0
		for o := range all {
			longest = max(longest, o.took)
			if n++; o.err != nil {
				failed++
			}
		}
		t.Logf("of %d log-ins %d failed, and the longest took %v", n, failed, longest)
		if longest > limit {
			t.Errorf("a log-in took %v, want at most %v", longest, limit)
		}
	}
	t.Run("killed", func(t *testing.T) {
		many(t, 4*time.Second, func() { syscall.Kill(p.child(), syscall.SIGKILL) })
		good(t)
	})
	t.Run("stopped", func(t *testing.T) {
		stopped := p.child()
		many(t, 10*time.Second, func() { syscall.Kill(stopped, syscall.SIGSTOP) })
		good(t)
		if now := p.child(); now == stopped {
			t.Error("the stopped process was not killed")
		}
	})
}

// The agent, too, may just be starting.
func TestAGatewayThatWaitsForItsTokenIsNotStuck(t *testing.T) {
	w := newServer(t)
	asked := make(chan struct{}, 100)
	newProgramAt(t, w, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-time.After(6 * time.Second): // longer than a gateway that answers may be silent
		case <-r.Context().Done():
			return
		}
		w.plane.ServeHTTP(rw, r)
	}))
	w.mapped(alice, "app")
	if n := len(asked); n != 1 {
		t.Errorf("a token was asked for %d times, want once: by a gateway that was not killed meanwhile", n)
	}
}

func TestALogInEndsWhenTheGatewayIsNotOne(t *testing.T) {
	w := newServer(t)
	w.config.Listener.Close()
	token := w.token(alice, nil)
	at := w.config.Listener.Addr().(*net.TCPAddr)
	server := w.pg.PID()
	// good sees the gateway come back, at a server that was not touched.
	good := func(t *testing.T) {
		t.Helper()
		l, err := caller.Listen(at.String())
		if err != nil {
			t.Fatal(err)
		}
		w.config.Listener = l
		w.start()
		defer w.stop()
		w.mapped(alice, "app")
		if w.pg.PID() != server {
			t.Error("the server was started again")
		}
	}
	tries := func(t *testing.T, limit time.Duration) {
		t.Helper()
		took, err := w.attempt(t.Context(), "app", token)
		t.Logf("after %v: %v", took, err)
		if sqlState(err) != "28000" || took > limit {
			t.Errorf("after %v: %v; want 28000 within %v", took, err, limit)
		}
		w.until("that no log-in is left hanging", func() bool { return w.authenticating() == 0 })
	}
	good(t) // it makes what the server is to believe
	t.Run("nobody listens", func(t *testing.T) {
		tries(t, time.Second)
		good(t)
	})
	t.Run("it takes the connection and says nothing", func(t *testing.T) {
		l := mute(t, at)
		defer l.Close()
		tries(t, 4*time.Second)
		// Twice as many as the server has places.
		errs := make(chan error)
		for range 120 {
			go func() {
				_, err := w.attempt(context.Background(), "app", token)
				errs <- err
			}()
		}
		states := map[string]int{}
		for range 120 {
			states[sqlState(<-errs)]++
		}
		t.Logf("120 at once: %v", states)
		w.until("that no log-in is left hanging", func() bool { return w.authenticating() == 0 })
		l.Close()
		good(t)
	})
	t.Run("its packets are dropped", func(t *testing.T) {
		l := full(t, at)
		defer l.Close()
		tries(t, 4*time.Second)
		l.Close()
		good(t)
	})
	t.Run("it says yes to StartTLS and then nothing", func(t *testing.T) {
		l, err := net.ListenTCP("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		t.Setenv(silent, "yes")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- postgres.Supervise(ctx, l, w.config.Log) }()
		tries(t, 10*time.Second)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if !strings.Contains(w.log.String(), "stuck and was killed") {
			t.Error("it was not killed")
		}
		l.Close()
		good(t)
	})
}

// mute takes connections and says nothing.
func mute(t *testing.T, at *net.TCPAddr) net.Listener {
	t.Helper()
	l, err := net.ListenTCP("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	return l
}

// full is a listener whose queue is full: the kernel drops who comes.
func full(t *testing.T, at *net.TCPAddr) *os.File {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: at.Port, Addr: [4]byte(at.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Timeout: 200 * time.Millisecond}
	for {
		conn, err := d.Dial("tcp", at.String())
		if err != nil {
			return os.NewFile(uintptr(fd), "full")
		}
		t.Cleanup(func() { conn.Close() })
	}
}
