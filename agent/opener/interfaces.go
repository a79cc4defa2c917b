package opener

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate/agent/caller"
)

// An Interface is a network interface of a VM (imds.Interface).
type Interface struct {
	MAC  net.HardwareAddr
	IPv4 []netip.Prefix // address and length of its subnet
	IPv6 []netip.Addr
}

// interfaces returns what reads the network interfaces of the VM; nil where
// nobody can say. Behind a device or a port of a bridge we cannot look: of a port
// it was said who is there, and an address of which no more is known is a subnet
// of its own.
func (s *spot) interfaces() func() ([]Interface, error) {
	switch {
	case s.links != nil:
		return s.links.read
	case s.Port == "":
		return nil
	}
	mac, _ := net.ParseMAC(s.MAC) // which find has checked
	said := Interface{MAC: mac}
	for _, a := range s.Addresses {
		said.IPv4 = append(said.IPv4, netip.PrefixFrom(a, a.BitLen()))
	}
	return func() ([]Interface, error) { return []Interface{said}, nil }
}

// links reads the network interfaces of one namespace, over a netlink socket
// that was made inside it. It keeps the namespace alive until it is closed.
type links struct {
	mu     sync.Mutex      // a request that outlives the service must not meet a number used again
	handle *netlink.Handle // nil when closed
}

func openLinks(ns *os.File) (*links, error) {
	l := new(links)
	if err := caller.InNamespace(ns, func() (err error) {
		l.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	}); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *links) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handle.Close()
	l.handle = nil
}

// read returns the interfaces that have a MAC address, with the addresses by
// which others can reach them, in order of index.
func (l *links) read() ([]Interface, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.handle == nil {
		return nil, net.ErrClosed
	}
	all, err := whole(l.handle.LinkList)
	if err != nil {
		return nil, err
	}
	var found []Interface
	for _, link := range all {
		if len(link.Attrs().HardwareAddr) != 6 || link.Attrs().Flags&unix.IFF_LOOPBACK != 0 {
			continue
		}
		addresses, err := whole(func() ([]netlink.Addr, error) { return l.handle.AddrList(link, netlink.FAMILY_ALL) })
		if err != nil {
			return nil, err
		}
		i := Interface{MAC: link.Attrs().HardwareAddr}
		for _, a := range addresses {
			ip, ok := netip.AddrFromSlice(a.IP)
			bits, _ := a.Mask.Size()
			switch ip = ip.Unmap(); {
			case !ok || netlink.Scope(a.Scope) != netlink.SCOPE_UNIVERSE:
			case ip.Is4():
				i.IPv4 = append(i.IPv4, netip.PrefixFrom(ip, bits))
			default:
				i.IPv6 = append(i.IPv6, ip)
			}
		}
		found = append(found, i)
	}
	return found, nil
}

// whole asks again for a list that changed while the kernel told it.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 3 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
