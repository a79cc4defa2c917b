package opener

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"innate/agent/caller"
)

// On a shared bridge every port looks the same to TCP, and what a frame says of
// its sender proves nothing (host-attestation §4.3). Rules at the ports' ingress
// stamp packets for the metadata address with a mark of the port's; the accepted
// connection takes the mark over and so says by which port it came in.

// marks are 0x49000000 and the index of the port's device, which the kernel does
// not give out again. Nobody else may use that range.
const (
	marks     = 0x49 << 24
	mostIndex = 1<<24 - 1
)

// acceptMarks, written inside a namespace, is about that namespace.
const acceptMarks = "/proc/sys/net/ipv4/tcp_fwmark_accept"

// bridges are the bridges at which VMs are met; guarded by Local.taking.
type bridges struct {
	all map[bridgeKey]*bridge
}

// A bridgeKey is a network namespace, by its inode, and the index of a bridge in it.
type bridgeKey struct {
	namespace uint64
	index     int
}

func (k bridgeKey) String() string { return fmt.Sprintf("%d/%d", k.namespace, k.index) }

// A bridge is one listener for the VMs at its ports.
type bridge struct {
	key      bridgeKey
	ports    map[uint32]*port // by mark
	listener *os.File
}

// A port is where one VM comes in.
type port struct {
	*spot
	mark   uint32
	bridge *bridge
}

// add makes a spot a port of its bridge: it writes the rules anew, and opens the
// bridge's listener if there is none. One that was held over a restart it takes over.
func (b *bridges) add(s *spot, held *os.File) (*port, error) {
	if s.device > mostIndex {
		return nil, fmt.Errorf("the index of %s is %d, and there is room for marks up to %d", s.Port, s.device, mostIndex)
	}
	ns, err := inodeOf(s.ns)
	if err != nil {
		return nil, err
	}
	key := bridgeKey{ns, s.bridge}
	at := b.all[key]
	if at == nil {
		at = &bridge{key: key, ports: map[uint32]*port{}}
	}
	p := &port{spot: s, mark: marks | uint32(s.device), bridge: at}
	if err := at.collides(p); err != nil {
		return nil, err
	}
	if at.listener == nil {
		at.listener = held
	} else if held != nil {
		held.Close()
	}
	at.ports[p.mark] = p
	b.all[key] = at
	if err := at.reopen(s); err != nil {
		b.remove(p) // what it could say, err says
		return nil, err
	}
	return p, nil
}

// remove takes a port off its bridge, and with the last one the rules and the listener.
func (b *bridges) remove(p *port) error {
	at := p.bridge
	delete(at.ports, p.mark)
	if len(at.ports) == 0 {
		delete(b.all, at.key)
		if at.listener != nil {
			at.listener.Close()
			at.listener = nil
		}
	}
	return caller.InNamespace(p.ns, func() error { return applyRules(at.rules()) })
}

// collides refuses a port that says to be a neighbour.
func (b *bridge) collides(p *port) error {
	for _, other := range b.ports {
		switch {
		case other.mark == p.mark:
			return fmt.Errorf("%s is another VM's already: detach that first", p.Port)
		case other.MAC == p.MAC:
			return fmt.Errorf("MAC %s is the VM's at %s", p.MAC, other.Port)
		}
		for _, a := range p.Addresses {
			if slices.Contains(other.Addresses, a) {
				return fmt.Errorf("address %s is the VM's at %s", a, other.Port)
			}
		}
	}
	return nil
}

// reopen writes the rules, and listens if nobody does, in the namespace of one of its ports.
func (b *bridge) reopen(s *spot) error {
	return caller.InNamespace(s.ns, func() (err error) {
		if err := os.WriteFile(acceptMarks, []byte("1"), 0); err != nil {
			return fmt.Errorf("having accepted connections take over marks: %w", err)
		}
		if err := applyRules(b.rules()); err != nil {
			return err
		}
		// The first answer of TCP is the listener's and lives as long as any VM
		// wants; what has a token in it lives as long as its VM wants: that is set
		// by who accepts it.
		hops := 1
		for _, p := range b.ports {
			hops = max(hops, p.Hops)
		}
		if b.listener != nil && listens(b.listener) {
			return LiveFor(b.listener, hops)
		}
		if b.listener != nil {
			b.listener.Close()
			b.listener = nil
		}
		if err := takeAddress(); err != nil {
			return err
		}
		l, err := listenOn(b.key.index, hops)
		if err != nil {
			return err
		}
		defer l.Close()
		b.listener, err = duplicate(l, "bridge "+b.key.String())
		return err
	})
}

// sorted returns the ports in order of their marks.
func (b *bridge) sorted() (all []*port) {
	for _, mark := range slices.Sorted(maps.Keys(b.ports)) {
		all = append(all, b.ports[mark])
	}
	return all
}

func inodeOf(f *os.File) (uint64, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	ctl := raw.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) })
	return st.Ino, errors.Join(ctl, err)
}
