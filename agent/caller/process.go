package caller

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// A Process is one process for as long as it lives: its pid alone may pass to another.
type Process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // field 22 of its stat: clock ticks since boot
}

// ProcessOf says which process has a pid now.
func ProcessOf(pid int) (Process, error) {
	proc, err := os.OpenRoot("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return Process{}, err
	}
	defer proc.Close()
	started, err := startTime(proc)
	return Process{pid, started}, err
}

// Lives reports whether p still is.
func (p Process) Lives() bool {
	now, err := ProcessOf(p.PID)
	return err == nil && now == p
}

// Holder finds, among the processes of pids and in that order, the one that
// holds the socket that f is about. Several may: it is the first. It needs the
// same user as theirs, or CAP_SYS_PTRACE. The error is ErrPeerGone when none does.
func Holder(f Facts, pids []int) (Process, error) {
	if f.Inode == 0 {
		return Process{}, fmt.Errorf("%w: nobody holds it any more", ErrPeerGone)
	}
	socket := "socket:[" + strconv.FormatUint(uint64(f.Inode), 10) + "]"
	var refused error
	for _, pid := range pids {
		proc, err := os.OpenRoot("/proc/" + strconv.Itoa(pid))
		if err != nil {
			continue // it has ended
		}
		started := ""
		has, err := hasOpen(proc, socket)
		if has { // and still is: what is open never becomes another process's
			started, err = startTime(proc)
		}
		proc.Close()
		switch {
		case err == nil && has:
			return Process{pid, started}, nil
		case err != nil && !gone(err):
			refused = err
		}
	}
	if refused != nil {
		return Process{}, fmt.Errorf("looking for the holder of a socket: %w", refused)
	}
	return Process{}, fmt.Errorf("%w: none of the processes holds it", ErrPeerGone)
}

// Children are the processes that pid has started and that are; those of one
// thread newest first.
func Children(pid int) ([]int, error) {
	tasks := fmt.Sprintf("/proc/%d/task/", pid)
	threads, err := os.ReadDir(tasks)
	if err != nil {
		return nil, err
	}
	var children []int
	for _, thread := range threads {
		b, err := os.ReadFile(tasks + thread.Name() + "/children")
		if gone(err) {
			continue // a thread that has ended
		}
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				return nil, fmt.Errorf("reading the children of process %d: %w", pid, err)
			}
			children = append(children, child)
		}
	}
	slices.Reverse(children) // the kernel appends
	return children, nil
}
