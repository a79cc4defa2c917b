// Package launch starts an app's process where it belongs: in a cgroup of its
// own, under a uid of its own, in a mount namespace where the platform's names
// resolve and its administrators' socket cannot be seen.
//
// It owns cgroup directories and the stub that arranges the rest from inside
// the new process. Which uid, which cgroup and what is in the environment is
// its caller's decision; whether the app lives long enough, too.
//
// A program that uses Start must call Main when it is started as Spec.Stub says.
package launch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoUserNamespaces means that an ordinary user asked for Hosts or Hide where
// the kernel or its configuration does not let ordinary users make mounts.
var ErrNoUserNamespaces = errors.New("an ordinary user may not make a mount namespace here")

// A Spec is what to start and where.
type Spec struct {
	Args                  []string // program and arguments; the program is looked up in Env's PATH
	Dir                   string   // empty: ours
	Env                   []string // exactly what the program sees
	Stdin, Stdout, Stderr *os.File // nil: /dev/null
	Cgroup                *Cgroup  // nil: stays in ours, and is killed when we end
	UID                   uint32   // our own uid means no change
	Groups                []uint32 // of that uid, its own first; nil means one alone, which has the uid's number
	Hosts                 string   // a file to see as /etc/hosts; empty: leave it. Bound by inode: update it in place
	Hide                  []string // directories to see empty; one that does not exist is passed over
	Show                  []Shown  // directories to see in another place
	NetNS                 *os.File // a network namespace to enter; nil: stay
	Stub                  []string // how to start this binary's Main; nil means /proc/self/exe launch
}

// A Process is what was started.
type Process struct {
	PID int

	cmd   *exec.Cmd
	ended chan struct{} // closed when it has, and:
	code  int
	err   error

	mu   sync.Mutex // orders Signal before the pid is free for others
	over bool
}

// Start starts spec and returns once the program itself runs. As an ordinary
// user Hosts, Hide and Show need user namespaces: the error is then ErrNoUserNamespaces,
// and the caller may go on without, and say so.
func Start(spec Spec) (*Process, error) {
	if len(spec.Args) == 0 {
		return nil, errors.New("nothing to start: no program was given")
	}
	self := uint32(os.Getuid())
	if spec.UID != self && self != 0 {
		return nil, fmt.Errorf("starting %q as uid %d: we are uid %d, and only root starts programs as somebody else", spec.Args[0], spec.UID, self)
	}
	if spec.NetNS != nil && self != 0 {
		return nil, fmt.Errorf("starting %q in another network namespace: only root may", spec.Args[0])
	}
	orders := orders{
		Args: spec.Args, Dir: spec.Dir, Env: spec.Env,
		Hosts: spec.Hosts, Hide: spec.Hide, Show: spec.Show, NetNS: spec.NetNS != nil,
	}
	if spec.Cgroup == nil {
		orders.Parent = os.Getpid()
	}
	if spec.UID != self {
		orders.UID, orders.Groups = &spec.UID, spec.Groups
	}
	p, err := start(spec, orders)
	if err != nil {
		return nil, fmt.Errorf("starting %q as uid %d: %w", spec.Args[0], spec.UID, err)
	}
	return p, nil
}

// UserNamespaces reports why Start with Hosts or Hide would answer
// ErrNoUserNamespaces; nil means that it would not. It starts a stub to find
// out: call it once, at start. stub is as in Spec.
func UserNamespaces(stub []string) error {
	p, err := start(Spec{UID: uint32(os.Getuid()), Stub: stub}, orders{Hide: []string{"/proc"}})
	if err != nil {
		return err
	}
	_, err = p.Wait()
	return err
}

// start runs the stub and gives it its orders.
func start(spec Spec, orders orders) (*Process, error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer specR.Close()
	defer specW.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer reportR.Close()
	defer reportW.Close()

	cmd := spec.command()
	cmd.ExtraFiles = append([]*os.File{specR, reportW}, cmd.ExtraFiles...)
	cmd.SysProcAttr.Setpgid = true
	if orders.mounts() {
		ownMounts(cmd.SysProcAttr)
	}
	if err := startIn(cmd, spec.Cgroup); err != nil {
		if orders.mounts() && os.Getuid() != 0 {
			return nil, fmt.Errorf("%w: %w", ErrNoUserNamespaces, err)
		}
		return nil, err
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, ended: make(chan struct{})}
	specR.Close() // so that a stub that is gone is an error here, not a wait
	reportW.Close()
	if err := p.become(orders, specW, reportR); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, err
	}
	go func() {
		defer close(p.ended)
		p.code, p.err = p.await()
	}()
	return p, nil
}

// command is the stub's command: nothing of the app's is in it yet.
func (s Spec) command() *exec.Cmd {
	stub := s.Stub
	if stub == nil {
		stub = []string{"/proc/self/exe", "launch"}
	}
	cmd := exec.Command(stub[0], stub[1:]...)
	cmd.Env = []string{} // the app's comes with the orders: the loader must not read it while we are root
	cmd.SysProcAttr = new(syscall.SysProcAttr)
	// Nil files must stay nil interfaces for exec to open /dev/null.
	if s.Stdin != nil {
		cmd.Stdin = s.Stdin
	}
	if s.Stdout != nil {
		cmd.Stdout = s.Stdout
	}
	if s.Stderr != nil {
		cmd.Stderr = s.Stderr
	}
	if s.NetNS != nil {
		cmd.ExtraFiles = []*os.File{s.NetNS}
	}
	return cmd
}

// ownMounts asks for a private mount namespace; an ordinary user gets it inside
// a user namespace in which it is nobody but itself.
func ownMounts(attr *syscall.SysProcAttr) {
	attr.Unshareflags = unix.CLONE_NEWNS // Go makes every mount in it private
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		attr.Cloneflags = unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		attr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN} // survives the exec of the stub, which drops it
	}
}

// startIn starts cmd inside g, so that it is never anywhere else.
func startIn(cmd *exec.Cmd, g *Cgroup) error {
	if g == nil {
		return cmd.Start()
	}
	dir, err := os.OpenFile(g.path, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("opening the app's cgroup: %w", err)
	}
	defer dir.Close()
	cmd.SysProcAttr.UseCgroupFD = true
	cmd.SysProcAttr.CgroupFD = int(dir.Fd())
	err = cmd.Start()
	if !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// clone3 is missing or hidden by a seccomp filter. The stub waits for its
	// orders, so the app's own code still never runs outside.
	again := exec.Command(cmd.Path, cmd.Args[1:]...)
	again.Env, again.ExtraFiles = cmd.Env, cmd.ExtraFiles
	again.Stdin, again.Stdout, again.Stderr = cmd.Stdin, cmd.Stdout, cmd.Stderr
	again.SysProcAttr = cmd.SysProcAttr
	again.SysProcAttr.UseCgroupFD = false
	if err := again.Start(); err != nil {
		return err
	}
	*cmd = *again
	return write(filepath.Join(g.path, "cgroup.procs"), strconv.Itoa(cmd.Process.Pid))
}

// become hands the stub its orders and waits until it has become the program.
func (p *Process) become(o orders, specW io.WriteCloser, reportR io.Reader) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, writeErr := specW.Write(b)
	specW.Close()
	report, err := io.ReadAll(io.LimitReader(reportR, 64<<10)) // ends when exec closes the stub's end
	if err != nil {
		return fmt.Errorf("waiting for the new process: %w", err)
	}
	switch failure, started := bytes.CutPrefix(report, []byte(ready)); {
	case !started && len(report) == 0:
		return errors.Join(errors.New("the stub ended before it had its orders: does this program call launch.Main when it is started with Spec.Stub?"), writeErr)
	case len(failure) > 0 && os.Getuid() != 0 && bytes.HasPrefix(failure, []byte(denied)):
		return fmt.Errorf("%w: %s", ErrNoUserNamespaces, failure)
	case len(failure) > 0:
		return errors.New(string(failure))
	}
	return nil
}

// Signal sends sig to the process and what it started in its process group.
func (p *Process) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v is not one of this system", sig)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return os.ErrProcessDone
	}
	return unix.Kill(-p.PID, s)
}

// SignalFirst sends sig to the process alone: what it started may not expect it.
func (p *Process) SignalFirst(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return os.ErrProcessDone
	}
	return unix.Kill(p.PID, sig)
}

// Ended is closed when it has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Wait waits for the end and returns the exit code as a shell counts it (128+signal).
func (p *Process) Wait() (int, error) {
	<-p.ended
	return p.code, p.err
}

// await is Wait, once.
func (p *Process) await() (int, error) {
	// Without reaping, so that the pid is still the process's own while Signal may use it.
	for {
		err := unix.Waitid(unix.P_PID, p.PID, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("waiting for process %d: %w", p.PID, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("waiting for process %d: %w", p.PID, err)
	}
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return p.cmd.ProcessState.ExitCode(), nil
}
