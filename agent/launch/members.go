package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Members lists the processes in the cgroup; of one that is gone, none.
func (g *Cgroup) Members() ([]int, error) {
	b, err := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	if vanished(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the processes of a cgroup: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(b)) {
		pid, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("listing the processes of a cgroup: %w", err)
		}
		if pid > 0 { // 0: of a pid namespace that we cannot see into
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Signal sends sig to each process in the cgroup. One that is just being born may be missed.
func (g *Cgroup) Signal(sig syscall.Signal) error {
	pids, err := g.Members()
	for _, pid := range pids {
		err = errors.Join(err, g.signalMember(pid, sig))
	}
	return err
}

// signalMember holds the process, then looks whether it is still a member: a
// pid that has passed to a stranger meanwhile is not one.
func (g *Cgroup) signalMember(pid int, sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("signalling process %d of a cgroup: %w", pid, err)
	}
	defer unix.Close(fd)
	members, err := g.Members()
	if err != nil || !slices.Contains(members, pid) {
		return err
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signalling process %d of a cgroup: %w", pid, err)
	}
	return nil
}

// becoming is how often the environment of a process that seems to have none is
// looked at again, a millisecond apart: an exec takes less.
const becoming = 20

// Environ is the environment that the process was started with, as far as it
// has left it alone. The error is os.ErrProcessDone when it has ended.
func (p *Process) Environ() ([]string, error) {
	p.mu.Lock() // until then the pid is its own
	defer p.mu.Unlock()
	if p.over {
		return nil, os.ErrProcessDone
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
	for range becoming { // nothing is there in the moment in which it becomes another program, too
		if err != nil || len(b) > 0 {
			break
		}
		time.Sleep(time.Millisecond)
		b, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 { // it has ended, and nobody has waited for it yet
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("reading the environment of process %d: %w", p.PID, err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}
