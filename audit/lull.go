package audit

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A lull is when whoever was ready to run has run, those too that the network
// had made ready. runtime.Gosched waits for the former alone, and so what the
// scheduler learns from the network is what this waits for: that a descriptor of
// its own, which it makes ready, is reported among the others.
type lull struct {
	event *os.File // an eventfd
	conn  syscall.RawConn
}

func newLull() (*lull, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("making an eventfd: %w", err)
	}
	event := os.NewFile(uintptr(fd), "eventfd")
	conn, err := event.SyscallConn()
	if err != nil {
		event.Close()
		return nil, err
	}
	return &lull{event, conn}, nil
}

// wait returns at the next lull, or at once when that cannot be known.
func (l *lull) wait() {
	asked := false
	count := [8]byte{0: 1, 7: 1} // not zero on a machine of either byte order, and far from the most
	l.conn.Read(func(fd uintptr) bool {
		if asked {
			unix.Read(int(fd), count[:])
			return true
		}
		asked = true
		_, err := unix.Write(int(fd), count[:])
		return err != nil
	})
}

func (l *lull) close() error { return l.event.Close() }
