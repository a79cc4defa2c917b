package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"innate/agent/caller"
	"innate/agent/opener"
)

// waiting is how many accepted connections of one port wait at its door; further
// ones are closed, so that no VM holds up its neighbours.
const waiting = 64

// bridges are the bridges at which VMs are met.
type bridges struct {
	log     *slog.Logger
	running *sync.WaitGroup

	mu  sync.Mutex
	all map[string]*bridge // by the opener's name of their listeners
}

// A bridge is one listener for the VMs at its ports: the mark of a connection
// says by which one it came in (host-attestation §4.3).
type bridge struct {
	name     string
	of       *bridges
	listener *net.TCPListener

	ports map[uint32]*port // by mark; guarded by of.mu
}

// A port is the listener of one VM: it accepts what came in by the VM's port.
type port struct {
	opener.Place
	mark   uint32
	bridge *bridge
	conns  chan *net.TCPConn
	closed chan struct{}
	close  func()
}

// listen makes the listener of a VM at a port of a bridge. It takes l over, the
// bridge's listener, which others of its VMs may have already.
func (b *bridges) listen(l *net.TCPListener, is opener.Bridged, at opener.Place) *port {
	b.mu.Lock()
	defer b.mu.Unlock()
	br := b.all[is.Bridge]
	if br == nil {
		br = &bridge{name: is.Bridge, of: b, listener: l, ports: map[uint32]*port{}}
		b.all[is.Bridge] = br
		b.running.Go(br.accept)
	} else {
		l.Close()
	}
	p := &port{Place: at, mark: is.Mark, bridge: br, conns: make(chan *net.TCPConn, waiting), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	br.ports[p.mark] = p
	return p
}

// accept hands each connection to the VM whose port it came in by, until the
// listener ends; then every VM's listener has ended too, and is opened again by
// whoever serves there.
func (b *bridge) accept() {
	var refused sync.Once
	for {
		c, err := b.listener.AcceptTCP()
		switch {
		case err == nil:
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			time.Sleep(10 * time.Millisecond)
			continue
		default:
			b.end()
			return
		}
		p, err := b.whose(c)
		if err != nil {
			c.Close()
			refused.Do(func() {
				b.of.log.Warn("a connection to the metadata address came in by a port of a bridge that is no VM's; further ones are not told", "err", err)
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
			b.of.log.Debug("closed a connection: its VM has too many waiting", "port", p.Port)
		}
	}
}

// end closes the listener and those of all VMs.
func (b *bridge) end() {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	b.listener.Close()
	if b.of.all[b.name] == b {
		delete(b.of.all, b.name)
	}
	for _, p := range b.ports {
		p.close()
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
	return p, opener.LiveFor(c, p.Hops)
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
func (p *port) Addr() net.Addr { return p.bridge.listener.Addr() }

// Close ends the VM's listener, and the bridge's behind the last one. It may be
// called again.
func (p *port) Close() error {
	p.close()
	defer p.drain()
	b := p.bridge
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	if b.ports[p.mark] == p {
		delete(b.ports, p.mark)
	}
	if len(b.ports) > 0 || b.of.all[b.name] != b {
		return nil
	}
	delete(b.of.all, b.name)
	return b.listener.Close()
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
