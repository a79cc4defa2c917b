package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"innate/agent/launch"
	"innate/innatetest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "load" {
		loadAsApp()
		return
	}
	if raceDetector {
		os.Setenv("GOFLAGS", strings.TrimSpace(os.Getenv("GOFLAGS")+" -race"))
	}
	innatetest.Main(m)
}

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// nobody is the ordinary user that a test run by root becomes.
const nobody = 65534

// A shell is somebody who runs the built program: a user, with a temporary
// folder of their own that is also their home.
type shell struct {
	t   *testing.T
	tmp string   // short, since unix sockets live in it; others may pass through it
	uid int      // -1: whoever runs the test
	env []string // NAME=VALUE, the later ones win
}

func newShell(t *testing.T) *shell {
	t.Helper()
	tmp, err := os.MkdirTemp("", "innate-cmd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	if err := os.Chmod(tmp, 0o711); err != nil {
		t.Fatal(err)
	}
	return &shell{t: t, tmp: tmp, uid: -1, env: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + tmp, "TMPDIR=" + tmp,
		"GORACE=atexit_sleep_ms=0", // commands are many and short
	}}
}

// become makes the shell another user's.
func (s *shell) become(uid int) {
	s.t.Helper()
	if err := os.Chown(s.tmp, uid, uid); err != nil {
		s.t.Fatal(err)
	}
	s.uid = uid
}

// as is the same shell, folder and environment, for another user.
func (s *shell) as(uid int) *shell {
	other := *s
	other.uid = uid
	return &other
}

// read adds what an env file of 'innate dev' says to the environment.
func (s *shell) read(file string) {
	s.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	s.env = append(s.env, strings.Split(strings.TrimSpace(string(b)), "\n")...)
}

// get is a variable of the environment.
func (s *shell) get(name string) (value string) {
	for _, v := range s.env {
		if is, ok := strings.CutPrefix(v, name+"="); ok {
			value = is
		}
	}
	return value
}

// write writes a file into the folder and returns its path.
func (s *shell) write(name, text string) string {
	s.t.Helper()
	path := filepath.Join(s.tmp, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// A process is the program, started.
type process struct {
	t           *testing.T
	cmd         *exec.Cmd
	out, errout transcript
	ended       chan struct{}
	err         error // of Wait; read after ended
}

// start starts the program.
func (s *shell) start(args ...string) *process {
	s.t.Helper()
	return s.startWith(exec.Command(innatetest.Program(s.t), args...))
}

// startWith starts cmd as this shell's user, in its folder and environment.
func (s *shell) startWith(cmd *exec.Cmd) *process {
	s.t.Helper()
	p := &process{t: s.t, cmd: cmd, ended: make(chan struct{})}
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.tmp, s.env, &p.out, &p.errout
	cmd.WaitDelay = time.Second // a process left behind holds its output open
	if s.uid >= 0 {
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.uid)}
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	s.t.Cleanup(func() {
		if cmd.Process.Signal(syscall.SIGTERM) == nil { // it cleans up after itself, if it can
			p.wait()
		}
	})
	return p
}

// run runs the program to its end.
func (s *shell) run(args ...string) *process {
	s.t.Helper()
	return s.runWith("", args...)
}

// runWith is run with text on standard input.
func (s *shell) runWith(in string, args ...string) *process {
	s.t.Helper()
	cmd := exec.Command(innatetest.Program(s.t), args...)
	cmd.Stdin = strings.NewReader(in)
	p := s.startWith(cmd)
	p.wait()
	return p
}

// must runs the program, which is to succeed, and returns what it printed.
func (s *shell) must(args ...string) string {
	s.t.Helper()
	p := s.run(args...)
	if p.code() != 0 {
		s.t.Fatalf("innate %s: exit code %d\n%s", strings.Join(args, " "), p.code(), p.errout.String())
	}
	return p.out.String()
}

// refused runs the program, which is to fail and to say each of these things.
func (s *shell) refused(want []string, args ...string) {
	s.t.Helper()
	p := s.run(args...)
	if p.code() == 0 {
		s.t.Errorf("innate %s: succeeded, want a refusal\n%s", strings.Join(args, " "), p.out.String())
	}
	for _, w := range want {
		if !strings.Contains(p.errout.String(), w) {
			s.t.Errorf("innate %s: the refusal does not say %q:\n%s", strings.Join(args, " "), w, p.errout.String())
		}
	}
}

// waitFor returns when the process has printed text, on either output.
func (p *process) waitFor(text string) {
	p.t.Helper()
	late := time.After(patience)
	for {
		out, moreOut := p.out.look()
		errout, moreErr := p.errout.look()
		if strings.Contains(out, text) || strings.Contains(errout, text) {
			return
		}
		select {
		case <-moreOut:
		case <-moreErr:
		case <-p.ended:
			if strings.Contains(p.all(), text) {
				return
			}
			p.t.Fatalf("it ended (%v) before it said %q:\n%s", p.err, text, p.all())
		case <-late:
			p.t.Fatalf("it did not say %q within %s:\n%s", text, patience, p.all())
		}
	}
}

// wait returns when the process has ended.
func (p *process) wait() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.cmd.Process.Kill()
		p.t.Fatalf("it did not end within %s:\n%s", patience, p.all())
	}
	if errors.Is(p.err, exec.ErrWaitDelay) {
		p.t.Errorf("it ended, but something that it started goes on and holds its output open")
	}
}

// signal sends sig and waits for the end.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
}

// kill ends the process as a power cut would. What it left is swept when the test ends.
func (p *process) kill() {
	p.t.Helper()
	p.t.Cleanup(func() {
		if err := launch.Sweep("innate-"); err != nil {
			p.t.Logf("another agent may be sweeping: %v", err)
		}
	})
	p.signal(syscall.SIGKILL)
}

func (p *process) pid() int    { return p.cmd.Process.Pid }
func (p *process) code() int   { return p.cmd.ProcessState.ExitCode() }
func (p *process) all() string { return p.out.String() + p.errout.String() }

// A transcript is what a process has printed so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed at the next write; made when somebody waits
}

func (o *transcript) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
	return o.text.Write(b)
}

func (o *transcript) String() string {
	text, _ := o.look()
	return text
}

// look is the text so far, and a channel that is closed when there is more.
func (o *transcript) look() (string, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.more == nil {
		o.more = make(chan struct{})
	}
	return o.text.String(), o.more
}

// eventually asks until it is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// leftBehind lists what a run of the program did not take away: files in the
// folder, processes of a program in it, and the cgroups of that pid.
func (s *shell) leftBehind(pid int) (left []string) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.tmp, "innate-*"))
	if err != nil {
		s.t.Fatal(err)
	}
	left = append(left, files...)
	left = append(left, cgroupsOf(pid)...)
	exes, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, exe := range exes {
		if program, err := os.Readlink(exe); err == nil && strings.HasPrefix(program, s.tmp) {
			left = append(left, exe+" -> "+program)
		}
	}
	return left
}

// cgroupsOf lists the cgroup directories of an agent, wherever cgroup2 is mounted.
func cgroupsOf(pid int) (dirs []string) {
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		found, _ := filepath.Glob(fmt.Sprintf("%s/innate-%d-*", top, pid)) // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	return dirs
}
