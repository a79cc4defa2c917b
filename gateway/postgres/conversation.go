package postgres

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"innate/agent/caller"
	"innate/gateway/postgres/ldap"
)

const (
	mostConnections = 256             // at a time
	mostOfOthers    = 64              // of them, for users other than the one that PostgreSQL runs as
	mostMessages    = 8               // on one connection
	messageTime     = 5 * time.Second // to read one and write its answer
	handshakeTime   = 5 * time.Second
)

// doors counts the connections that are open.
type doors struct {
	mu          sync.Mutex
	all, others int
	left        time.Time // when one was last closed
}

// enter counts a connection of another user than PostgreSQL's or, when other is
// false, any; it reports whether there is room.
func (d *doors) enter(other bool) (leave func(), ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all >= mostConnections || other && d.others >= mostOfOthers {
		return nil, false
	}
	d.all++
	if other {
		d.others++
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.all, d.left = d.all-1, time.Now()
		if other {
			d.others--
		}
	}, true
}

// busy reports whether there is no room, and connections come and go.
func (d *doors) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return (d.all >= mostConnections || d.others >= mostOfOthers) && time.Since(d.left) < 2*messageTime
}

// serve accepts until ctx ends. A connection for which there is no room is
// closed at once: PostgreSQL then refuses that log-in and holds no slot for it.
func (g *Gateway) serve(ctx context.Context) error {
	context.AfterFunc(ctx, func() { g.config.Listener.Close() })
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := g.config.Listener.AcceptTCP()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// Out of descriptors, or the like: those that are open end by themselves in a moment.
			g.config.Log.Error("accepting a connection", "err", err)
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
				return nil
			}
		}
		facts, err := g.diag.Attest(conn)
		other := err != nil || !g.manager.isServer(facts.UID)
		leave, ok := g.doors.enter(other)
		if !ok {
			g.config.Log.Warn("too many connections at a time; one was closed", "peer", conn.RemoteAddr())
			conn.Close()
			continue
		}
		all.Go(func() {
			defer leave()
			c := &conversation{g: g, conn: conn, tcp: conn, facts: facts}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			c.run(ctx)
		})
	}
}

// A conversation is one connection.
type conversation struct {
	g     *Gateway
	tcp   *net.TCPConn
	facts caller.Facts // of the peer's socket; empty when the kernel said nothing
	conn  net.Conn     // tcp, or TLS over it
	r     *bufio.Reader
	tls   bool
}

func (c *conversation) run(ctx context.Context) {
	defer c.tcp.Close() // without TLS's good-bye, which could wait
	c.r = bufio.NewReader(c.conn)
	for range mostMessages {
		c.tcp.SetDeadline(time.Now().Add(messageTime))
		q, err := ldap.Read(c.r)
		if errors.Is(err, ldap.ErrMalformed) {
			c.g.config.Log.Info("closing a connection", "peer", c.tcp.RemoteAddr(), "why", err)
		}
		if err != nil || !c.answer(ctx, q) {
			return
		}
	}
}

// answer answers one request, and reports whether another may come.
func (c *conversation) answer(ctx context.Context, q ldap.Request) bool {
	switch {
	case q.Op == ldap.Unbind:
		return false
	case q.Critical:
		return c.write(q.Answer(ldap.UnavailableCritical, "no control is known here"))
	case q.Op == ldap.Extended && q.OID == ldap.StartTLS && !c.tls:
		return c.startTLS(q)
	case q.Op == ldap.Bind:
		result, diagnostic := c.bind(ctx, q)
		return c.write(q.Answer(result, diagnostic))
	}
	return c.write(q.Answer(ldap.UnwillingToPerform, "this is no directory: it answers BIND, StartTLS and UNBIND"))
}

// write reports whether all was written.
func (c *conversation) write(b []byte) bool {
	_, err := c.conn.Write(b)
	return err == nil
}

// startTLS answers, and shakes hands at once: libldap has no timeout for a
// handshake, and until ours has ended the log-in hangs (postgres.md §3.3).
func (c *conversation) startTLS(q ldap.Request) bool {
	if c.r.Buffered() > 0 {
		return false // what came in clear would be taken for what came under TLS
	}
	if !c.write(q.Answer(ldap.Success, "")) {
		return false
	}
	c.tcp.SetDeadline(time.Now().Add(handshakeTime))
	conn := tls.Server(c.tcp, c.g.authority.tls())
	if err := conn.Handshake(); err != nil {
		c.g.config.Log.Info("TLS was not agreed on: is LDAPTLS_CACERT in the server's environment the gateway's?", "peer", c.tcp.RemoteAddr(), "ca", c.g.CA(), "err", err)
		return false
	}
	c.conn, c.r, c.tls = conn, bufio.NewReader(conn), true
	return true
}

// bind answers a BIND: what is wrong with its form here, the rest by deciding.
// The order matters: without TLS nothing of it is looked at.
func (c *conversation) bind(ctx context.Context, q ldap.Request) (ldap.Result, string) {
	switch {
	case q.Version != 3:
		return ldap.ProtocolError, "only LDAP version 3 is spoken here"
	case !c.tls:
		return ldap.ConfidentialityRequired, "StartTLS comes before the bind: set ldaptls=1 in pg_hba.conf"
	case !q.Simple:
		return ldap.AuthMethodNotSupported, "only a bind by password is taken, and the password is an access token"
	case len(q.Name) == 0:
		return ldap.InvalidCredentials, "an anonymous bind is nobody's"
	case len(q.Password) == 0:
		return ldap.UnwillingToPerform, "a bind without a password proves nothing"
	}
	ctx, cancel := context.WithTimeout(ctx, decideWithin)
	defer cancel()
	if why := c.g.decide(ctx, c, string(q.Name), string(q.Password)); why != "" {
		return ldap.InvalidCredentials, why
	}
	return ldap.Success, ""
}
