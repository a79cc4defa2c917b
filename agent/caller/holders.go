package caller

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HeldIn is the proof by cgroup where the kernel names none of a socket (before
// Linux 5.8, host-attestation §2): nil means that a process of the cgroup
// directory dir holds the socket that f is about, and that no process outside
// holds it which is in f.UID's hands. It searches /proc, a few microseconds for
// each descriptor of such processes: never in an accept loop, and not before
// f.UID was compared. It needs CAP_SYS_PTRACE for other users' processes.
//
// It speaks of whoever holds the socket now, where Attest speaks of who made it.
func HeldIn(dir string, f Facts) error {
	if f.Inode == 0 {
		return fmt.Errorf("%w: nobody holds it any more", ErrPeerGone)
	}
	inside, err := members(dir)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownCgroup, err)
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnknownCgroup, err)
	}
	holder := false
	for _, entry := range all {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue // no process
		}
		held, err := holds(pid, f, inside[pid], dir)
		if err != nil {
			return fmt.Errorf("%w: process %d: %w", ErrUnknownCgroup, pid, err)
		}
		holder = holder || held
	}
	if !holder {
		return fmt.Errorf("%w: no process of it holds the socket", ErrUnknownCgroup)
	}
	return nil
}

// holds reports whether a process, which must be inside dir then, holds the
// socket. Everything is read by way of one open directory, which never becomes
// another process's; the start time is read again at the end all the same,
// since it also tells that the process still is.
func holds(pid int, f Facts, inside bool, dir string) (bool, error) {
	proc, err := os.OpenRoot("/proc/" + strconv.Itoa(pid))
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer proc.Close()
	if !inside {
		under, err := runsUnder(proc, f.UID)
		if gone(err) || err == nil && !under {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	born, err := startTime(proc)
	if gone(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	has, err := hasOpen(proc, "socket:["+strconv.FormatUint(uint64(f.Inode), 10)+"]")
	if gone(err) || err == nil && !has {
		return false, nil
	}
	if inside && errors.Is(err, fs.ErrPermission) {
		return false, nil // it proves nothing, and does no harm
	}
	if err != nil {
		return false, err
	}
	if inside { // and still is: it may have left, or have been another one, when dir was read
		now, err := members(dir)
		if err != nil {
			return false, err
		}
		inside = now[pid]
	}
	if !inside {
		return false, errors.New("it holds the socket and is outside of the cgroup")
	}
	if still, err := startTime(proc); err != nil || still != born {
		return false, errors.New("it ended, or its pid passed to another, while we looked")
	}
	return true, nil
}

// gone reports whether a process has ended, or a descriptor was closed, since it was listed.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// members reads the processes of a cgroup directory.
func members(dir string) (map[int]bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	pids := map[int]bool{}
	for _, line := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			return nil, fmt.Errorf("reading %s/cgroup.procs: %w", dir, err)
		}
		pids[pid] = true
	}
	return pids, nil
}

// runsUnder reports whether a process has uid as its real, effective, saved or
// file system's uid: then it is in that user's hands. The owner of its directory
// would not do: it is root's as soon as the process says that it is not dumpable.
func runsUnder(proc *os.Root, uid uint32) (bool, error) {
	b, err := proc.ReadFile("status")
	if err != nil {
		return false, err
	}
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(string(b)) {
		if uids, ok := strings.CutPrefix(line, "Uid:"); ok {
			for _, has := range strings.Fields(uids) {
				if has == want {
					return true, nil
				}
			}
			return false, nil
		}
	}
	return false, errors.New("its status names no uid")
}

// hasOpen reports whether a process has a descriptor of what the kernel calls name.
func hasOpen(proc *os.Root, name string) (bool, error) {
	fds, err := proc.Open("fd")
	if err != nil {
		return false, err
	}
	defer fds.Close()
	names, err := fds.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	link := make([]byte, len(name)+1) // one more than can match
	for _, fd := range names {
		n, err := unix.Readlinkat(int(fds.Fd()), fd, link)
		switch {
		case errors.Is(err, unix.ENOENT): // closed since
		case err != nil:
			return false, fmt.Errorf("reading descriptor %s: %w", fd, err)
		case string(link[:n]) == name:
			return true, nil
		}
	}
	return false, nil
}

// startTime is field 22 of /proc/PID/stat, in clock ticks since boot. The second
// field may hold anything: count after the last parenthesis.
func startTime(proc *os.Root) (string, error) {
	b, err := proc.ReadFile("stat")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("its stat has %d fields after the name", len(fields))
	}
	return fields[19], nil
}
