// Package caller says which workload is on the other end of a local connection,
// from kernel facts alone; nothing the peer sends is believed.
//
// It owns the question to the kernel (an exact inet_diag query) and the checks
// without which the answer could be about somebody else (host-attestation §1).
// What the facts mean, and who may have a token, is its callers' business.
//
// The facts are about whoever made the socket, at the time of socket(2). Attest
// at accept, before the first byte is read, and treat every error as a refusal:
// uid 0 is also what a vanished socket would report.
package caller

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Facts are what the kernel says of the socket at the other end (host-attestation §1).
type Facts struct {
	UID    uint32 // fsuid of whoever made the socket, when it did, as this user namespace sees it
	Cgroup uint64 // id of its cgroup then: the inode number of the cgroup's directory; 0 where the kernel names none
	Inode  uint32
	Cookie uint64 // for the audit record only
}

// Why a caller could not be attested.
var (
	ErrPeerGone       = errors.New("the peer's socket is gone")
	ErrNotEstablished = errors.New("the peer's socket is not established")
	ErrTuple          = errors.New("the kernel answered for another connection")
	ErrNoCgroup       = errors.New("the kernel named no cgroup") // from Probe; Attest states Cgroup 0
	ErrOwnEnd         = errors.New("our own end of the connection is no longer established")
	ErrUID            = errors.New("the caller runs under another uid")       // our callers', who know the right one
	ErrUnknownCgroup  = errors.New("the caller is of another cgroup")         // theirs too, and from HeldIn
	ErrMark0          = errors.New("the connection came in by no known port") // from Mark
)

// A Diag asks the kernel about sockets of the network namespace that it was
// made in, for ever. It is safe for concurrent use.
type Diag struct {
	// IgnoreCgroups makes Attest state Cgroup 0, as kernels before 5.8 do: to see what is done there.
	IgnoreCgroups bool

	sockets []*socket
	next    atomic.Uint32
}

// maxSockets is where more netlink sockets stop helping (host-attestation §1, Cost).
const maxSockets = 4

// NewDiag opens netlink sockets in the calling thread's network namespace.
func NewDiag() (*Diag, error) {
	d := new(Diag)
	for range min(maxSockets, runtime.GOMAXPROCS(0)) {
		fd, err := openSocket()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("opening a sock_diag socket: %w", err), d.Close())
		}
		d.sockets = append(d.sockets, &socket{fd: fd})
	}
	return d, nil
}

// DiagFiles opens what NewDiag does, for another process, which has DiagOf.
func DiagFiles() ([]*os.File, error) {
	var files []*os.File
	for range min(maxSockets, runtime.GOMAXPROCS(0)) {
		fd, err := openSocket()
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("opening a sock_diag socket: %w", err)
		}
		files = append(files, os.NewFile(uintptr(fd), "sock_diag"))
	}
	return files, nil
}

// DiagOf asks by netlink sockets that DiagFiles opened, and takes them over.
func DiagOf(files []*os.File) (*Diag, error) {
	d := new(Diag)
	for _, f := range files {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0) // they block, all the same
		f.Close()
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.sockets = append(d.sockets, &socket{fd: fd})
	}
	if len(d.sockets) == 0 {
		return nil, errors.New("no sock_diag socket came")
	}
	return d, nil
}

// Close closes the netlink sockets; Attest then refuses.
func (d *Diag) Close() error {
	var errs []error
	for _, s := range d.sockets {
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// Attest states the facts about the peer of c, or refuses on any doubt.
func (d *Diag) Attest(c *net.TCPConn) (Facts, error) {
	asked := tuple{client: address(c.RemoteAddr()), server: address(c.LocalAddr())}
	if !asked.client.IsValid() || !asked.server.IsValid() {
		return Facts{}, fmt.Errorf("%w: the connection has no addresses", ErrPeerGone)
	}
	s := d.sockets[int(d.next.Add(1))%len(d.sockets)]
	r, err := s.ask(asked)
	if err != nil {
		return Facts{}, err
	}
	switch {
	case r.state != established: // the look-up falls back to a listener on the client's port
		return Facts{}, fmt.Errorf("%w: state %d", ErrNotEstablished, r.state)
	case r.tuple != asked:
		return Facts{}, fmt.Errorf("%w: asked for %v, told of %v", ErrTuple, asked, r.tuple)
	case r.Inode == 0:
		return Facts{}, fmt.Errorf("%w: nobody holds it any more", ErrPeerGone)
	}
	// Last, and after the answer: while our own end is established, no other
	// socket can own the client's tuple, so the answer is about this peer and
	// not about whoever bound its port after a reset.
	if err := stillEstablished(c); err != nil {
		return Facts{}, err
	}
	if d.IgnoreCgroups {
		r.Cgroup = 0
	}
	return r.Facts, nil
}

func address(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

func stillEstablished(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOwnEnd, err)
	}
	var info *unix.TCPInfo
	var infoErr error
	err = raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrOwnEnd, err)
	case infoErr != nil:
		return fmt.Errorf("%w: reading TCP_INFO: %w", ErrOwnEnd, infoErr)
	case info.State != established:
		return fmt.Errorf("%w: state %d", ErrOwnEnd, info.State)
	}
	return nil
}
