package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// listenerFD is the number of the listening socket in a supervised gateway.
const (
	listenerFD       = 3
	listenerVariable = "INNATE_GATEWAY_LISTENER"
)

// stuckAfter is after how much silence a gateway is killed. A log-in that hangs
// on it hangs no longer.
const stuckAfter = 4 * time.Second

// startWithin is how long it may take to begin to answer, as systemd's TimeoutStartSec:
// its token comes by way of an agent and a control plane that may just be starting too.
// Log-ins meanwhile end by libldap's own limit, which holds until StartTLS is answered.
const startWithin = 90 * time.Second

// Inherited returns the listening socket that Supervise passed on; nil when this
// process is not supervised.
func Inherited() (*net.TCPListener, error) {
	if os.Getenv(listenerVariable) != strconv.Itoa(listenerFD) {
		return nil, nil
	}
	os.Unsetenv(listenerVariable)
	f := os.NewFile(listenerFD, "listener")
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("postgres: the socket that was passed on: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.New("postgres: the socket that was passed on does not listen on TCP")
	}
	return tcp, nil
}

// Watched reports whether a service manager, or Supervise, kills this process
// when it is stuck.
func Watched() bool { return os.Getenv("NOTIFY_SOCKET") != "" && os.Getenv("WATCHDOG_USEC") != "" }

// Supervise runs the gateway in a process of its own, where no service manager
// does: it kills it when it is stuck and starts it again. It speaks the service
// manager's own protocol (sd_notify). The listening socket is ours all the time,
// so that nobody takes the port meanwhile, and log-ins wait rather than fail.
func Supervise(ctx context.Context, l *net.TCPListener, log *slog.Logger, args ...string) error {
	s := &supervisor{log: log, args: args}
	var err error
	if s.socket, err = l.File(); err != nil {
		return err
	}
	defer s.socket.Close()
	dir, err := os.MkdirTemp("", "innate-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.path = filepath.Join(dir, "notify")
	if s.notes, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"}); err != nil {
		return err
	}
	defer s.notes.Close()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		begun := time.Now()
		err := s.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case !s.ready: // it never began: what it said is why
			return err
		case time.Since(begun) > time.Minute:
			pause = firstPause
		}
		log.Error("the gateway ended; starting it again", "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

type supervisor struct {
	log    *slog.Logger
	args   []string
	socket *os.File
	path   string // of the socket below
	notes  *net.UnixConn
	ready  bool // a gateway has once begun
}

// once is one process's life.
func (s *supervisor) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", s.args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), listenerVariable+"="+strconv.Itoa(listenerFD),
		"NOTIFY_SOCKET="+s.path, "WATCHDOG_USEC="+strconv.FormatInt(stuckAfter.Microseconds(), 10))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = os.Stdout, os.Stderr, []*os.File{s.socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stuckAfter
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	alive := make(chan struct{})
	go func() { defer close(alive); s.listen(cmd.Process) }()
	err := <-ended
	s.notes.SetReadDeadline(time.Now()) // listen returns
	<-alive
	return err
}

// listen kills the process when it has said nothing for too long. It returns
// when the process has ended.
func (s *supervisor) listen(p *os.Process) {
	b := make([]byte, 4096)
	limit := startWithin
	for {
		s.notes.SetReadDeadline(time.Now().Add(limit))
		n, err := s.notes.Read(b)
		switch {
		case err == nil:
			if bytes.Contains(b[:n], []byte("READY=1")) {
				s.ready, limit = true, stuckAfter
			}
		case p.Signal(syscall.Signal(0)) != nil: // it has ended
			return
		default:
			s.log.Error("the gateway is stuck and was killed", "process", p.Pid, "silent", limit)
			p.Kill()
			return
		}
	}
}
