package agent

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

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

// waiting is how many accepted connections of one port wait at its door; further
// ones are closed, so that no VM holds up its neighbours.
const waiting = 64

// bridges are the bridges at which VMs are met.
type bridges struct {
	mu  sync.Mutex
	all map[bridgeKey]*bridge
}

// A bridgeKey is a network namespace, by its inode, and the index of a bridge in it.
type bridgeKey struct {
	namespace uint64
	index     int
}

// A bridge is one listener for the VMs at its ports.
type bridge struct {
	key   bridgeKey
	of    *bridges
	agent *Agent

	// Guarded by of.mu.
	ports    map[uint32]*port // by mark
	listener *net.TCPListener
}

// A port is the listener of one VM: it accepts what came in by the VM's port.
type port struct {
	*spot
	mark   uint32
	bridge *bridge
	conns  chan *net.TCPConn
	closed chan struct{}
	close  func()
}

// listen opens the listener of a VM at a port of a bridge: it writes the rules
// anew, and opens the bridge's own listener if there is none.
func (b *bridges) listen(a *Agent, s *spot) (*port, error) {
	if s.device > mostIndex {
		return nil, fmt.Errorf("the index of %s is %d, and there is room for marks up to %d", s.Port, s.device, mostIndex)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(s.ns.Fd()), &st); err != nil {
		return nil, err
	}
	key := bridgeKey{st.Ino, s.bridge}
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.all[key]
	if at == nil {
		at = &bridge{key: key, of: b, agent: a, ports: map[uint32]*port{}}
	}
	p := &port{spot: s, mark: marks | uint32(s.device), bridge: at, conns: make(chan *net.TCPConn, waiting), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	if err := at.collides(p); err != nil {
		return nil, err
	}
	at.ports[p.mark] = p
	if err := at.open(s.ns); err != nil {
		at.leave(p) // what it could say, err says
		return nil, err
	}
	b.all[key] = at
	return p, nil
}

// collides refuses a port that says to be a neighbour; of.mu is held.
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

// open writes the rules, and listens if nobody does; of.mu is held.
func (b *bridge) open(ns *os.File) error {
	return caller.InNamespace(ns, func() (err error) {
		if err := os.WriteFile(acceptMarks, []byte("1"), 0); err != nil {
			return fmt.Errorf("having accepted connections take over marks: %w", err)
		}
		if err := applyRules(b.rules()); err != nil {
			return err
		}
		// The first answer of TCP is the listener's and lives as long as any VM
		// wants; what has a token in it lives as long as its VM wants, see whose.
		hops := 1
		for _, p := range b.ports {
			hops = max(hops, p.Hops)
		}
		if b.listener != nil {
			return liveFor(b.listener, hops)
		}
		if err := takeAddress(); err != nil {
			return err
		}
		if b.listener, err = listenOn(b.key.index, hops); err != nil {
			return err
		}
		l := b.listener
		b.agent.metadata.running.Go(func() { b.accept(l) })
		return nil
	})
}

// accept hands each connection to the VM whose port it came in by, until the
// listener ends; then every VM's listener has ended too, and is opened again by
// whoever serves there.
func (b *bridge) accept(l *net.TCPListener) {
	log := b.agent.config.Log
	var refused sync.Once
	for {
		c, err := l.AcceptTCP()
		switch {
		case err == nil:
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			time.Sleep(10 * time.Millisecond)
			continue
		default:
			l.Close()
			b.of.mu.Lock()
			defer b.of.mu.Unlock()
			if b.listener == l {
				b.listener = nil
				for _, p := range b.ports {
					p.close()
				}
			}
			return
		}
		p, err := b.whose(c)
		if err != nil {
			c.Close()
			refused.Do(func() {
				log.Warn("a connection to the metadata address came in by a port of a bridge that is no VM's; further ones are not told", "err", err)
			})
			continue
		}
		select {
		case p.conns <- c:
			select {
			case <-p.closed: // and nobody looks any more
				p.drain()
			default:
			}
		default:
			c.Close()
			log.Debug("closed a connection: its VM has too many waiting", "port", p.Port)
		}
	}
}

// whose returns the port that a connection came in by.
func (b *bridge) whose(c *net.TCPConn) (*port, error) {
	mark, err := caller.Mark(c)
	if err != nil {
		return nil, err
	}
	b.of.mu.Lock()
	p := b.ports[mark]
	b.of.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("mark %#x is no VM's", mark)
	}
	return p, liveFor(c, p.Hops)
}

// leave takes a port off the bridge, and with the last one the rules and the listener; of.mu is held.
func (b *bridge) leave(p *port) error {
	p.close()
	if b.ports[p.mark] != p {
		return nil
	}
	delete(b.ports, p.mark)
	if len(b.ports) == 0 {
		delete(b.of.all, b.key)
		if b.listener != nil {
			b.listener.Close()
			b.listener = nil
		}
	}
	return caller.InNamespace(p.ns, func() error { return applyRules(b.rules()) })
}

// AcceptTCP returns the next connection of the VM.
func (p *port) AcceptTCP() (*net.TCPConn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Addr is the metadata address.
func (p *port) Addr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(address), Port: 80} }

// Close ends the VM's listener. It may be called again.
func (p *port) Close() error {
	b := p.bridge.of
	b.mu.Lock()
	defer b.mu.Unlock()
	err := p.bridge.leave(p)
	p.drain()
	return err
}

// drain closes the connections that wait.
func (p *port) drain() {
	for {
		select {
		case c := <-p.conns:
			c.Close()
		default:
			return
		}
	}
}

// sorted returns the ports in order of their marks.
func (b *bridge) sorted() (all []*port) {
	for _, mark := range slices.Sorted(maps.Keys(b.ports)) {
		all = append(all, b.ports[mark])
	}
	return all
}
