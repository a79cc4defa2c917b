package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// orders are what Start tells the stub.
type orders struct {
	Args   []string // empty: only see whether the rest can be done
	Dir    string
	Env    []string
	UID    *uint32 // nil: stay who we are
	Groups []uint32
	Hosts  string
	Hide   []string
	Show   []Shown
	NetNS  bool // descriptor 5 is the network namespace to enter
	Parent int  // pid of whom it must not outlive; 0: it may
}

func (o orders) mounts() bool { return o.Hosts != "" || len(o.Hide) > 0 || len(o.Show) > 0 }

// The stub's descriptors, after the three of the app.
const (
	ordersFD = 3 // orders as JSON
	reportFD = 4 // ready, then nothing or why the program did not start
	netnsFD  = 5
)

const (
	ready  = "ready\n"              // Main has its orders
	denied = "mounts are refused: " // begins the failure that ErrNoUserNamespaces explains
)

// Main is the stub: it arranges what a Spec asks for from inside the new
// process, then becomes the program. Why it cannot is told to Start; it returns
// only with an error that there is nobody to tell.
func Main() error {
	// exec keeps what the calling thread has: its namespace, its capabilities.
	runtime.LockOSThread()
	// All of them: the agent may have been started with some that are not ours.
	if err := unix.CloseRange(ordersFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("closing the agent's descriptors to the program (Linux 5.11 or later can): %w", err)
	}
	var o orders
	if err := json.NewDecoder(os.NewFile(ordersFD, "orders")).Decode(&o); err != nil {
		return fmt.Errorf("reading what to start (this command is for the agent's own use): %w", err)
	}
	report := os.NewFile(reportFD, "report")
	if _, err := report.WriteString(ready); err != nil {
		return fmt.Errorf("reporting to the agent: %w", err)
	}
	err := o.obey()
	if err == nil {
		os.Exit(0)
	}
	if _, untold := report.WriteString(err.Error()); untold != nil {
		return err
	}
	os.Exit(1)
	return nil
}

// obey does everything in an order in which each step still may; it returns
// only when there is an error, or nothing to start.
func (o orders) obey() error {
	if err := o.mount(); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s%w", denied, err)
	} else if err != nil {
		return err
	}
	if o.NetNS {
		if err := unix.Setns(netnsFD, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering its network namespace: %w", err)
		}
	}
	if err := o.drop(); err != nil {
		return err
	}
	if len(o.Args) == 0 {
		return nil
	}
	return o.exec()
}

func (o orders) mount() error {
	for _, s := range o.Show { // first: what it shows may be hidden where it is
		if err := s.show(); err != nil {
			return err
		}
	}
	if o.Hosts != "" {
		if err := unix.Mount(o.Hosts, "/etc/hosts", "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("showing %s as /etc/hosts: %w", o.Hosts, err)
		}
	}
	for _, dir := range o.Hide {
		const flags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
		err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=0555,size=4k")
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("hiding %s: %w", dir, err)
		}
	}
	return nil
}

// drop becomes the app's uid with nothing that the uid does not have by itself.
func (o orders) drop() error {
	if o.UID != nil {
		id := int(*o.UID)
		own, more := id, []int(nil)
		for i, g := range o.Groups {
			if i == 0 {
				own = int(g)
			} else {
				more = append(more, int(g))
			}
		}
		if err := errors.Join(syscall.Setgroups(more), syscall.Setgid(own), syscall.Setuid(id)); err != nil {
			return fmt.Errorf("becoming uid %d: %w", id, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbidding new privileges: %w", err)
	}
	if o.Parent == 0 {
		return nil
	}
	// After the change of uid, which would clear it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("tying its life to the agent's: %w", err)
	}
	if os.Getppid() != o.Parent {
		return errors.New("the agent ended meanwhile")
	}
	return nil
}

func (o orders) exec() error {
	if o.Dir != "" {
		if err := os.Chdir(o.Dir); err != nil {
			return fmt.Errorf("entering its working directory: %w: uid %d must be able to", err, os.Getuid())
		}
	}
	path, err := o.lookup()
	if err != nil {
		return err
	}
	// Signals that the agent was started to ignore, by nohup or as a shell's job in
	// the background, would stay so: one that is caught is as usual after exec.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT)
	err = unix.Exec(path, o.Args, o.Env)
	switch {
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("running %s: %w: uid %d must be able to execute it and to enter every folder above it", path, err, os.Getuid())
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("running %s: %w: the interpreter that its first line names, or its loader, is missing", path, err)
	}
	return fmt.Errorf("running %s: %w", path, err)
}

// lookup finds the program as a shell with Env would.
func (o orders) lookup() (string, error) {
	path := "/usr/local/bin:/usr/bin:/bin"
	for _, v := range o.Env {
		if len(v) > 5 && v[:5] == "PATH=" {
			path = v[5:]
		}
	}
	os.Setenv("PATH", path) // ours was empty; LookPath reads it
	found, err := exec.LookPath(o.Args[0])
	switch {
	case errors.Is(err, exec.ErrDot):
		return found, nil // PATH has ".", and whoever wrote it knows
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%w: uid %d must be able to execute it and to enter every folder above it", err, os.Getuid())
	case err != nil:
		return "", fmt.Errorf("%w: PATH is %s", err, path)
	}
	return found, nil
}
