package appservice

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"innate/agent/caller"
)

// Connections at a time: of the app itself, and of everybody else on the host,
// who get no further than their refusal and cannot take the app's places.
const (
	ownConnections     = 64
	strangeConnections = 16
)

// A door attests whoever connects, once, before the first byte is read.
type door struct {
	*net.TCPListener
	of      *Endpoint
	own     atomic.Int32
	strange atomic.Int32
}

// A peer is an accepted connection and what the kernel says of its other end.
type peer struct {
	*net.TCPConn
	facts    caller.Facts
	stranger error  // why it is not the app; nil when it is
	search   bool   // its cgroup is still to be found, by proved
	who      string // for telling decisions apart
	leave    func() // gives its place back
}

type peerKey struct{}

// peerOf is what the door made of a connection that may have TLS around it.
func peerOf(c net.Conn) *peer {
	if t, encrypted := c.(*tls.Conn); encrypted {
		c = t.NetConn()
	}
	return c.(*peer)
}

// Accept returns the next connection for which there is a place.
func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.AcceptTCP()
		if err != nil {
			return nil, err
		}
		p := d.of.meet(c)
		places, most := &d.own, int32(ownConnections)
		if p.stranger != nil {
			places, most = &d.strange, strangeConnections
		}
		if places.Add(1) > most {
			places.Add(-1)
			c.Close()
			d.of.log.Warn("closed a connection: its caller holds too many", "caller", p.who, "most", most)
			continue
		}
		p.leave = sync.OnceFunc(func() { places.Add(-1) })
		return p, nil
	}
}

// Close frees the connection's place, then closes it: whoever sees it closed may come again.
func (p *peer) Close() error {
	p.leave()
	return p.TCPConn.Close()
}

// meet asks the kernel who is there, and decides whether that is the app.
func (e *Endpoint) meet(c *net.TCPConn) *peer {
	p := &peer{TCPConn: c, who: "unknown"}
	if e.attestor == nil {
		return p
	}
	facts, err := e.attestor.Attest(c)
	if err != nil {
		p.stranger = err
		return p
	}
	p.facts = facts
	p.who = fmt.Sprintf("uid %d, cgroup %d", facts.UID, facts.Cgroup)
	switch g := e.generation; {
	case facts.UID != g.UID:
		p.stranger = fmt.Errorf("%w: uid %d, the app is uid %d", caller.ErrUID, facts.UID, g.UID)
	case g.Held != nil && facts.Cgroup == 0:
		p.search = true
	case g.Cgroup != 0 && facts.Cgroup != g.Cgroup && (g.Below == nil || !g.Below(facts.Cgroup)):
		p.stranger = fmt.Errorf("%w: cgroup %d, the app is in cgroup %d", caller.ErrUnknownCgroup, facts.Cgroup, g.Cgroup)
	}
	return p
}

// proved reports whether a peer is the app. What takes too long for the accept
// loop is done by the first call; requests of one connection come one after the
// other.
func (p *peer) proved(g Generation) bool {
	if p.search {
		p.search = false
		if p.stranger = g.Held(p.facts); p.stranger == nil {
			p.facts.Cgroup = g.Cgroup // for the record
		}
	}
	return p.stranger == nil
}

// detail is what the audit record says of the caller.
func (p *peer) detail(g Generation) map[string]string {
	d := map[string]string{"generation": strconv.Itoa(g.Number)}
	if p.facts.Inode != 0 {
		d["uid"] = strconv.FormatUint(uint64(p.facts.UID), 10)
		d["cgroup"] = strconv.FormatUint(p.facts.Cgroup, 10)
		d["socket"] = strconv.FormatUint(p.facts.Cookie, 10)
	}
	if p.stranger != nil {
		d["caller"] = p.stranger.Error()
	}
	return d
}
