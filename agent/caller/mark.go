package caller

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Mark is the mark that a connection took over from the packet that opened it,
// where net.ipv4.tcp_fwmark_accept is 1: which port of a bridge it came in by, if
// rules at the ports' ingress say so (host-attestation §4.3). 0 is what arrives
// when there are no rules, and is refused.
func Mark(c *net.TCPConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrOwnEnd, err)
	}
	var mark int
	var failed error
	if err := raw.Control(func(fd uintptr) { mark, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) }); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrOwnEnd, err)
	}
	if failed != nil {
		return 0, fmt.Errorf("%w: reading SO_MARK: %w", ErrOwnEnd, failed)
	}
	if mark == 0 {
		return 0, ErrMark0
	}
	return uint32(mark), nil
}
