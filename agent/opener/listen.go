package opener

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate/agent/caller"
)

// listen opens the metadata address for callers who come in by the spot's own
// device: the loopback of a namespace, so that a container routed through it is
// none of them, or the VM's.
func (s *spot) listen() (l *net.TCPListener, err error) {
	err = caller.InNamespace(s.ns, func() (err error) {
		if err = takeAddress(); err == nil {
			l, err = listenOn(s.device, s.Hops)
		}
		return err
	})
	return l, err
}

// takeAddress gives the thread's namespace the metadata address, and has its loopback up.
func takeAddress() error {
	return withLoopback(func(h *netlink.Handle, lo netlink.Link, addr *netlink.Addr) error {
		return errors.Join(h.AddrReplace(lo, addr), h.LinkSetUp(lo))
	})
}

// giveBack takes the address off our own namespace, where it may be a
// cloud's. Another's namespace keeps it: there, what nobody answers is refused
// at once, and never leaves for whoever owns the address outside.
func giveBack() error {
	return withLoopback(func(h *netlink.Handle, lo netlink.Link, addr *netlink.Addr) error { return h.AddrDel(lo, addr) })
}

// withLoopback calls fn with the loopback device of the thread's namespace.
func withLoopback(fn func(*netlink.Handle, netlink.Link, *netlink.Addr) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return fn(h, lo, &netlink.Addr{
		IPNet: &net.IPNet{IP: net.ParseIP(Metadata).To4(), Mask: net.CIDRMask(32, 32)},
		Scope: int(netlink.SCOPE_HOST),
	})
}

// listenOn listens in the thread's namespace for what comes in by one device, by
// its index; 0 is the loopback.
func listenOn(device, hops int) (*net.TCPListener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as caller.Listen
	lc.Control = func(_, _ string, c syscall.RawConn) error {
		var err error
		ctl := c.Control(func(fd uintptr) {
			if device == 0 {
				err = unix.BindToDevice(int(fd), "lo")
			} else {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, device)
			}
		})
		return errors.Join(ctl, err)
	}
	l, err := lc.Listen(context.Background(), "tcp4", Metadata+":80")
	if err != nil {
		return nil, err
	}
	if device != 0 {
		if err := LiveFor(l.(*net.TCPListener), hops); err != nil {
			l.Close()
			return nil, err
		}
	}
	return l.(*net.TCPListener), nil
}

// LiveFor sets how many hops what a socket sends lives, 0 means 1; accepted
// sockets take it over from their listener.
func LiveFor(c syscall.Conn, hops int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	ctl := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TTL, max(hops, 1)) })
	return errors.Join(ctl, err)
}
