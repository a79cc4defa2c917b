package rest

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// handshakeTimeout bounds a TLS handshake from accept to end.
const handshakeTimeout = 10 * time.Second

// Listener puts TLS on what l accepts and repairs HTTP/1.1 request lines that
// carry raw spaces (control-plane T3). Serve it with http.Server.Serve, not
// ServeTLS; Request.TLS is set and HTTP/2 works when config.NextProtos has h2.
//
// http.Server takes HTTP/2 only from a *tls.Conn and asks for the connection's
// type before the handshake has chosen the protocol. So the handshake happens
// here: connections that chose h2 are handed on as they are, which is exact
// already, and the others in a wrapper that reads HTTP/1.1 along. One whose
// handshake failed is handed on too: http.Server reports and closes it.
func Listener(l net.Listener, config *tls.Config) net.Listener {
	open, stop := context.WithCancel(context.Background())
	return &listener{Listener: l, config: config, ready: make(chan accepted), open: open, stop: stop}
}

type listener struct {
	net.Listener
	config *tls.Config
	start  sync.Once
	ready  chan accepted
	open   context.Context // ends with Close
	stop   context.CancelFunc
}

type accepted struct {
	conn net.Conn
	err  error
}

// Accept returns the next connection whose handshake has ended.
func (l *listener) Accept() (net.Conn, error) {
	l.start.Do(func() { go l.run() })
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.open.Done():
		return nil, net.ErrClosed
	}
}

// Close also ends the handshakes under way.
func (l *listener) Close() error {
	l.stop()
	return l.Listener.Close()
}

func (l *listener) run() {
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			go l.handshake(conn)
		} else if !l.deliver(accepted{err: err}) {
			return
		}
	}
}

// deliver waits for Accept to take a, and reports whether it did.
func (l *listener) deliver(a accepted) bool {
	select {
	case l.ready <- a:
		return true
	case <-l.open.Done():
		return false
	}
}

func (l *listener) handshake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.open, handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, l.config)
	err := conn.HandshakeContext(ctx)
	var a accepted
	if err != nil || conn.ConnectionState().NegotiatedProtocol == "h2" {
		a.conn = conn
	} else {
		a.conn = &repaired{Conn: conn, lines: lines{src: conn}}
	}
	if !l.deliver(a) {
		conn.Close()
	}
}

// A repaired is a connection whose request lines are repaired as they are read.
// The embedded *tls.Conn lets http.Server find the TLS state and half-close.
type repaired struct {
	*tls.Conn
	lines lines
}

func (c *repaired) Read(p []byte) (int, error) { return c.lines.Read(p) }
