package endpoint

import (
	"net"
	"sync"
	"time"
)

// Connections is how many a caller may have at a time (host-attestation §9).
const Connections = 64

// patience is how long a caller whose places are all taken waits for a
// connection that asks for nothing to say something.
const patience = time.Second

// A Listener is what a Door stands before; *net.TCPListener is one. Its
// connections are TCP's: net/http ends one of another kind without waiting for
// what the other side still sends, and a refusal is lost on the way.
type Listener interface {
	AcceptTCP() (*net.TCPConn, error)
	Addr() net.Addr
	Close() error
}

// A Door is a listener behind which there is one caller, who may have so many
// connections at a time. Nobody is turned away: who comes next waits, unseen by
// us, until there is a place. Places are made by ending connections after their
// answer, and by cutting off those that have asked for nothing for a second:
// programs of one caller that are slow do not shut out the others. One that is
// hostile makes its own caller wait, and nobody else.
//
// Serve it with Server, which says what each connection is doing.
type Door struct {
	Listener
	most int

	mu      sync.Mutex
	guests  map[*guest]bool
	crowded bool          // one is at the door, and there is no place
	moved   chan struct{} // closed when a place was left, a guest begins to wait, or the door is closed
	closed  bool
}

// NewDoor lets at most so many connections of l in at a time.
func NewDoor(l Listener, most int) *Door {
	return &Door{Listener: l, most: most, guests: map[*guest]bool{}, moved: make(chan struct{})}
}

// A guest is a connection that was let in.
type guest struct {
	*net.TCPConn
	door *Door

	// Guarded by door.mu.
	asking bool      // a whole header was read, and it is not answered yet
	since  time.Time // of waiting, when it is not asking
}

type guestKey struct{}

// Accept returns the next connection, when there is a place for it.
func (d *Door) Accept() (net.Conn, error) {
	c, err := d.AcceptTCP()
	if err != nil {
		return nil, err
	}
	g := &guest{TCPConn: c, door: d}
	for {
		moved, wait, in := d.admit(g)
		if in {
			return g, nil
		}
		if moved == nil {
			c.Close()
			return nil, net.ErrClosed
		}
		late := time.NewTimer(wait)
		select {
		case <-moved:
		case <-late.C:
		}
		late.Stop()
	}
}

// admit gives g a place, if there is one or can be made. Else it says what to
// wait for, and at most how long; nothing when the door is closed.
func (d *Door) admit(g *guest) (moved <-chan struct{}, wait time.Duration, in bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, 0, false
	}
	now := time.Now()
	if len(d.guests) >= d.most {
		silent := d.silent()
		if silent == nil {
			d.crowded = true
			return d.moved, patience, false
		}
		if left := patience - now.Sub(silent.since); left > 0 {
			d.crowded = true
			return d.moved, left, false
		}
		delete(d.guests, silent)
		silent.TCPConn.Close()
	}
	g.since = now
	d.guests[g] = true
	d.crowded = false
	return nil, 0, true
}

// silent is the guest that has asked for nothing for the longest time; d.mu is held.
func (d *Door) silent() (longest *guest) {
	for g := range d.guests {
		if !g.asking && (longest == nil || g.since.Before(longest.since)) {
			longest = g
		}
	}
	return longest
}

// stir wakes who is at the door; d.mu is held.
func (d *Door) stir() {
	if d.crowded || d.closed {
		close(d.moved)
		d.moved = make(chan struct{})
	}
}

// Close closes the listener; who is at the door is not let in any more.
func (d *Door) Close() error {
	d.mu.Lock()
	d.closed = true
	d.stir()
	d.mu.Unlock()
	return d.Listener.Close()
}

// served notes that g has asked for something, and reports whether its place is
// wanted after the answer.
func (g *guest) served() (wanted bool) {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	g.asking = true
	return g.door.crowded
}

// waits notes that g was answered.
func (g *guest) waits() {
	g.door.mu.Lock()
	defer g.door.mu.Unlock()
	g.asking, g.since = false, time.Now()
	g.door.stir()
}

// Close gives the place back.
func (g *guest) Close() error {
	g.door.mu.Lock()
	if g.door.guests[g] {
		delete(g.door.guests, g)
		g.door.stir()
	}
	g.door.mu.Unlock()
	return g.TCPConn.Close()
}
