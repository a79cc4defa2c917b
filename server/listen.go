package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/audit"
	"innate/bearer"
	"innate/ca"
	"innate/rest"
)

const (
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second // longer than any handler takes to answer a request with a body
	idleTimeout   = 2 * time.Minute
	grace         = 5 * time.Second // for requests in flight when the server stops
	leafLife      = 90 * 24 * time.Hour
)

// serveTLS serves the mux on the listener until ctx ends.
func (s *Server) serveTLS(ctx context.Context) error {
	srv := &http.Server{
		Handler:           s.survive(endBodies(sameName(s.mux))),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	return serve(ctx, srv, s.config.Log, func() error { return srv.Serve(rest.Listener(s.config.Listener, s.tlsConfig())) })
}

// serve runs until ctx ends and lets requests in flight finish for a moment.
func serve(ctx context.Context, srv *http.Server, log *slog.Logger, run func() error) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if srv.Shutdown(end) != nil {
			log.Warn("requests were not answered in time when the server stopped; they were cut off", "after", grace)
			srv.Close()
		}
	})
	err := run()
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// tlsConfig asks for client certificates only on the name that uses them, so
// that a browser or an SDK is never asked for one. The certificate is checked
// by whoever serves the request: an expired one may still renew itself.
func (s *Server) tlsConfig() *tls.Config {
	base := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.leaf.get(s) },
	}
	mutual := base.Clone()
	mutual.ClientAuth = tls.RequestClientCert
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if strings.EqualFold(hello.ServerName, "hosts."+s.Platform.Domain) {
			return mutual, nil
		}
		return nil, nil
	}
	return base
}

// A leaf is the server's own certificate, made when first needed and again at
// half its life.
type leaf struct {
	mu    sync.Mutex
	cert  *tls.Certificate
	renew time.Time
}

func (l *leaf) get(s *Server) (*tls.Certificate, error) {
	now := s.config.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cert != nil && now.Before(l.renew) {
		return l.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	d := s.Platform.Domain
	der, err := s.ca.Issue(ca.Servers, key.Public(), ca.Subject{
		CommonName: d,
		DNS:        []string{d, "*." + d, "*.vault." + d, "localhost"},
		IPs:        []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		Life:       leafLife,
	})
	if err != nil {
		return nil, fmt.Errorf("issuing the server's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	l.cert = &tls.Certificate{
		Certificate: [][]byte{der, s.ca.Certificate(ca.Servers).Raw}, PrivateKey: key, Leaf: cert,
	}
	l.renew = now.Add(cert.NotAfter.Sub(now) / 2)
	return l.cert, nil
}

// survive turns a panic, which is a fault of this program, into a 500 and a
// line in the log that is not lost among those about peers that hang up.
func (s *Server) survive(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == http.ErrAbortHandler { //nolint:errorlint // it is panicked with as it is
				panic(p)
			}
			if p != nil {
				s.config.Log.Error("a handler panicked", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				rest.WriteError(w, r, rest.Errorf(http.StatusInternalServerError, "InternalServerError", "this is a fault of the server; its log says more"))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// endBodies gives up on a body that does not come to its end: any stranger could
// keep a connection by one. Server.ReadTimeout would also end the feed, and what
// else is answered slowly.
func endBodies(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		next.ServeHTTP(w, r)
	})
}

// sameName refuses a request whose Host is not the name that the connection
// was made to: client certificates are asked for by name, and a connection
// made to one name must not reach another's handlers (RFC 9110 §15.5.20).
func sameName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && r.TLS.ServerName != "" && !strings.EqualFold(r.TLS.ServerName, hostname(r.Host)) {
			rest.WriteError(w, r, rest.Errorf(http.StatusMisdirectedRequest, "MisdirectedRequest",
				"this connection was made to %s and cannot serve another host", r.TLS.ServerName))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostname is a Host header without its port.
func hostname(host string) string {
	if !strings.Contains(host, ":") {
		return host
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return host
}

// peerKey is the context key for the credentials of a connection to the
// administrators' socket.
type peerKey struct{}

// serveSocket serves the mux on a unix socket, to root and the operator, as the
// local administrator. Its directory is closed to everybody else, and the
// kernel says who connected (SO_PEERCRED).
func (s *Server) serveSocket(ctx context.Context) error {
	l, err := listenSocket(s.config.Socket)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           s.survive(s.asAdministrator(s.mux)),
		ReadHeaderTimeout: headerTimeout,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peer(c))
		},
		ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	return serve(ctx, srv, s.config.Log, func() error { return srv.Serve(l) })
}

func listenSocket(path string) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.MkdirAll(dir, 0o700)); err != nil { // an agent's is beside it
		return nil, err
	}
	if err := removeDead(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeDead removes a socket that nobody listens on any more.
func removeDead(path string) error {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return fmt.Errorf("another server answers at %s", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// peer reads who connected; nil when the kernel does not say.
func peer(c net.Conn) *unix.Ucred {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, _ = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil
	}
	return cred
}

func (s *Server) asAdministrator(next http.Handler) http.Handler {
	admin := innate.Principal{Tenant: s.Platform.Tenant, Object: s.Platform.Admin, Name: adminName}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, _ := r.Context().Value(peerKey{}).(*unix.Ucred)
		if cred == nil || cred.Uid != 0 && int(cred.Uid) != s.config.Operator {
			uid := "unknown"
			if cred != nil {
				uid = fmt.Sprint(cred.Uid)
			}
			err := s.audit.Record(r.Context(), audit.Event{
				Action: "use the administrators' socket", Target: string(innate.Root),
				Why: "only root and the operator may", Detail: map[string]string{"uid": uid},
			})
			if err == nil {
				err = rest.Errorf(http.StatusForbidden, "Forbidden",
					"uid %s may not use the administrators' socket: root and the operator (--operator) may", uid)
			}
			rest.WriteError(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(bearer.With(r.Context(), admin)))
	})
}
