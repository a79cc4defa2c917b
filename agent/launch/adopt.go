package launch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrUnknownStatus means that a process ended while nobody was there to hear how.
var ErrUnknownStatus = errors.New("how it ended is not known: nobody was there")

// Born is the start time of the process, by which Adopt knows it again.
func (p *Process) Born() (string, error) {
	p.mu.Lock() // until then the pid is its own
	defer p.mu.Unlock()
	if p.over {
		return "", os.ErrProcessDone
	}
	return startTime(p.PID)
}

// Adopt takes up a process that an earlier run of this program started. When the
// pid is another's by now, it has ended. How it ends is known when this process
// is its parent still: the earlier run has become this one by exec.
func Adopt(pid int, born string) *Process {
	p := &Process{PID: pid, ended: make(chan struct{})}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		var now string
		if now, err = startTime(pid); err == nil && now != born {
			err = fmt.Errorf("process %d is another", pid)
		}
		if err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		p.over, p.err = true, ErrUnknownStatus
		close(p.ended)
		return p
	}
	go func() {
		defer close(p.ended)
		defer unix.Close(fd)
		p.code, p.err = p.outlive(fd)
	}()
	return p
}

// outlive waits for the end of an adopted process.
func (p *Process) outlive(fd int) (int, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		if n > 0 {
			break
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("waiting for process %d: %w", p.PID, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	var status unix.WaitStatus
	for {
		switch _, err := unix.Wait4(p.PID, &status, 0, nil); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, ErrUnknownStatus
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		default:
			return status.ExitStatus(), nil
		}
	}
}
