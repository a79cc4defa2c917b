package caller

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds one question; the kernel answers in microseconds.
const patience = time.Second

// A socket is one netlink conversation with sock_diag, a question at a time.
type socket struct {
	mu     sync.Mutex // guards all below
	fd     int        // -1 once closed
	seq    uint32
	buffer [8192]byte
}

func openSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1, err
	}
	timeout := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), // pid 0: only the kernel may answer
	)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// ask returns what the kernel says of the client's socket of t.
func (s *socket) ask(t tuple) (reply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return reply{}, fmt.Errorf("asking the kernel: %w", net.ErrClosed)
	}
	s.seq++
	var request [requestSize]byte
	putRequest(request[:], s.seq, t)
	if _, err := retry(func() (int, error) { return unix.Write(s.fd, request[:]) }); err != nil {
		return reply{}, fmt.Errorf("asking the kernel about %v: %w", t, err)
	}
	for deadline := time.Now().Add(patience); ; {
		n, err := retry(func() (int, error) { return unix.Read(s.fd, s.buffer[:]) })
		if err != nil {
			return reply{}, fmt.Errorf("reading the kernel's answer about %v: %w", t, err)
		}
		r, err := parseReply(s.buffer[:n])
		switch {
		case err != nil:
			return reply{}, fmt.Errorf("reading the kernel's answer about %v: %w", t, err)
		case r.seq == s.seq && r.errno == unix.ENOENT:
			return reply{}, ErrPeerGone
		case r.seq == s.seq && r.errno != 0:
			return reply{}, fmt.Errorf("asking the kernel about %v: %w", t, r.errno)
		case r.seq == s.seq:
			return r, nil
		case time.Now().After(deadline):
			return reply{}, fmt.Errorf("asking the kernel about %v: only answers to earlier questions came", t)
		}
		// The answer to a question that timed out; ours comes after it.
	}
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
