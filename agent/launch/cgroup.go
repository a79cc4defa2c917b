package launch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCgroups means that this process may not make cgroups; the proof of who
// is calling is then the uid's alone, or none.
var ErrNoCgroups = errors.New("this process may not make cgroups")

// Cgroups is a subtree of the cgroup2 hierarchy that is ours. No controllers
// are enabled in it: for identity an empty tree is enough. Its directories are
// root's, so that no app can move itself into another's.
type Cgroups struct{ path string }

// OpenCgroups makes (or adopts) the directory name at the top of the cgroup2 mount found in
// /proc/self/mountinfo. The error is ErrNoCgroups, wrapped with the reason, where we may not.
func OpenCgroups(name string) (*Cgroups, error) {
	if !filepath.IsLocal(name) || name == "." {
		return nil, fmt.Errorf("cgroup name %q: want a relative path", name)
	}
	top, err := Hierarchy()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroups, err)
	}
	c := &Cgroups{path: filepath.Join(top, name)}
	if err := os.MkdirAll(c.path, 0o755); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroups, err)
	}
	if err := unix.Access(filepath.Join(c.path, "cgroup.procs"), unix.W_OK); err != nil {
		return nil, fmt.Errorf("%w: writing to %s: %w", ErrNoCgroups, c.path, err)
	}
	return c, nil
}

// OpenLasting is OpenCgroups for a subtree that outlives this process: below our
// own cgroup where a service manager says that this is ours (Delegate= of
// systemd.resource-control(5)), else at the top of the mount.
func OpenLasting(name string) (*Cgroups, error) {
	own, err := OwnDirectory()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroups, err)
	}
	for _, attr := range []string{"trusted.delegate", "user.delegate"} {
		b := make([]byte, 8)
		if n, err := unix.Getxattr(own, attr, b); err != nil || string(b[:n]) != "1" {
			continue
		}
		top, err := Hierarchy()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCgroups, err)
		}
		below, err := filepath.Rel(top, own)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCgroups, err)
		}
		return OpenCgroups(filepath.Join(below, name))
	}
	return OpenCgroups(name)
}

// Path is the subtree's directory.
func (c *Cgroups) Path() string { return c.path }

// Find finds a cgroup that an earlier process made, if it is still that one and
// somebody is in it.
func (c *Cgroups) Find(path string, id uint64) (*Cgroup, error) {
	g := &Cgroup{path: filepath.Join(c.path, path)}
	var err error
	if g.ID, err = inode(g.path); err != nil {
		return nil, err
	}
	if g.ID != id {
		return nil, fmt.Errorf("cgroup %s is another by now", g.path)
	}
	f, err := os.Open(filepath.Join(g.path, "cgroup.events"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !populated(f) {
		return nil, fmt.Errorf("nobody is in cgroup %s any more", g.path)
	}
	return g, nil
}

// Prune kills and removes the cgroups that Make made under two names, such as
// "api/g1", and that are not to be kept.
func (c *Cgroups) Prune(keep func(path string) bool) error {
	all, err := filepath.Glob(filepath.Join(c.path, "*", "*", "cgroup.procs"))
	for _, procs := range all {
		dir := filepath.Dir(procs)
		path, relErr := filepath.Rel(c.path, dir)
		if relErr == nil && keep(path) {
			continue
		}
		g := Cgroup{path: dir}
		err = errors.Join(err, relErr, g.Kill(), g.Remove())
	}
	return err
}

// OwnCgroup is the id of the cgroup that this process is in; see caller.Diag.Probe.
func OwnCgroup() (uint64, error) {
	dir, err := OwnDirectory()
	if err != nil {
		return 0, err
	}
	return inode(dir)
}

// OwnDirectory is the directory of the cgroup that this process is in.
func OwnDirectory() (string, error) {
	top, err := Hierarchy()
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, v2 := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); v2 {
			return filepath.Join(top, path), nil
		}
	}
	return "", errors.New("/proc/self/cgroup has no line of the cgroup2 hierarchy")
}

// Hierarchy is where cgroup2 is mounted: /sys/fs/cgroup, or .../unified on
// hybrid hosts (proc_pid_mountinfo(5): field 5 is the mount point, the file
// system's type comes after the separator).
func Hierarchy() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		mount, system, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(mount); strings.HasPrefix(system, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("reading /proc/self/mountinfo: %w", err)
	}
	return "", errors.New("no cgroup2 file system is mounted")
}

func inode(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Ino, nil
}

// Make makes an empty cgroup below, path such as "api/g1". It must not exist yet.
func (c *Cgroups) Make(path string) (*Cgroup, error) {
	if !filepath.IsLocal(path) || path == "." {
		return nil, fmt.Errorf("cgroup path %q: want a relative path", path)
	}
	g := &Cgroup{path: filepath.Join(c.path, path)}
	if err := os.MkdirAll(filepath.Dir(g.path), 0o755); err != nil {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	if err := os.Mkdir(g.path, 0o755); err != nil {
		return nil, fmt.Errorf("making a cgroup: %w", err)
	}
	var err error
	g.ID, err = inode(g.path)
	return g, err
}

// Close kills everything in the subtree and removes it.
func (c *Cgroups) Close() error {
	g := Cgroup{path: c.path}
	if err := g.Kill(); err != nil {
		return err
	}
	return g.Remove()
}

// A Cgroup is one directory. A directory made again under the same name has another ID.
type Cgroup struct {
	ID uint64 // inode number of the directory: what the kernel says of sockets made in it

	path string
}

// Path is the directory.
func (g *Cgroup) Path() string { return g.path }

// Kill ends every process in it and below. They are gone when Empty says so.
func (g *Cgroup) Kill() error {
	if _, err := os.Stat(g.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := write(filepath.Join(g.path, "cgroup.kill"), "1"); err != nil && !vanished(err) {
		return fmt.Errorf("killing what is in a cgroup (Linux 5.14 or later can): %w", err)
	}
	return nil
}

// vanished reports whether a directory went while we were at it: two that sweep
// at once meet.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV)
}

// write gives the kernel a value; it never makes the file.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// Empty is closed when the last process has left it and what is below. Ask
// after Start: a cgroup that nobody has entered yet is empty. Waiting takes a
// thread, no processor.
func (g *Cgroup) Empty() (<-chan struct{}, error) {
	f, err := os.Open(filepath.Join(g.path, "cgroup.events"))
	if err != nil {
		return nil, fmt.Errorf("watching a cgroup: %w", err)
	}
	empty := make(chan struct{})
	go func() {
		defer close(empty)
		defer f.Close()
		for populated(f) {
			// The kernel raises POLLPRI at each change since the last read.
			fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
			unix.Poll(fds, -1) // an error or a signal: look again
		}
	}()
	return empty, nil
}

// populated reads cgroup.events; a removed cgroup's cannot be read.
func populated(f *os.File) bool {
	var b [256]byte
	n, _ := f.ReadAt(b[:], 0)
	return bytes.Contains(b[:n], []byte("populated 1\n"))
}

// removeWithin bounds the wait for killed processes to be gone: one in an
// uninterruptible system call may take its time.
const removeWithin = 5 * time.Second

// Remove removes the directory and those below, once they are empty.
func (g *Cgroup) Remove() error {
	empty, err := g.Empty()
	if vanished(err) {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-empty:
	case <-time.After(removeWithin):
		return fmt.Errorf("removing cgroup %s: processes are still in it", g.path)
	}
	var dirs []string
	err = filepath.WalkDir(g.path, func(path string, d fs.DirEntry, err error) error {
		if vanished(err) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for _, dir := range slices.Backward(dirs) { // children before parents
		if rmErr := unix.Rmdir(dir); rmErr != nil && !errors.Is(rmErr, unix.ENOENT) {
			err = errors.Join(err, &fs.PathError{Op: "rmdir", Path: dir, Err: rmErr})
		}
	}
	if err != nil {
		return fmt.Errorf("removing a cgroup: %w", err)
	}
	return nil
}

// OwnName is prefix with this process's pid and start time: a name for
// OpenCgroups under which Sweep knows whether its owner is still alive.
func OwnName(prefix string) (string, error) {
	pid := os.Getpid()
	start, err := startTime(pid)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s%d-%s", prefix, pid, start), nil
}

// Sweep kills and removes what an earlier process of ours, now dead, left under
// names that OwnName made with that prefix. It leaves all other names alone.
func Sweep(prefix string) error {
	top, err := Hierarchy()
	if err != nil {
		return nil // then nothing was left either
	}
	entries, err := os.ReadDir(top)
	if err != nil {
		return fmt.Errorf("looking for what earlier runs left: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if name, ours := strings.CutPrefix(e.Name(), prefix); ours && e.IsDir() && ownerDead(name) {
			errs = append(errs, (&Cgroups{path: filepath.Join(top, e.Name())}).Close())
		}
	}
	return errors.Join(errs...)
}

// ownerDead reads "<pid>-<start time>"; anything else is not a name of ours.
func ownerDead(owner string) bool {
	number, started, ok := strings.Cut(owner, "-")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil || pid <= 0 {
		return false
	}
	if _, err := strconv.ParseUint(started, 10, 64); err != nil {
		return false
	}
	now, err := startTime(pid)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	return now != started // the pid has passed to another process
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot. The
// second field may hold anything: count after the last parenthesis.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(fields))
	}
	return fields[19], nil
}
