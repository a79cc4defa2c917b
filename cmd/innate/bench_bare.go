package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"time"
)

// A bare is the least that could give an answer: a handler of net/http that
// writes the same bytes, on loopback.
type bare struct {
	address string
	server  http.Server
}

// startBare serves a's header and body, over TLS when config is not nil, after
// doing work when that is not nil.
func startBare(a loadReport, config *tls.Config, work func(*http.Request) error, log *slog.Logger) (*bare, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &bare{address: l.Addr().String()}
	header := a.Header.Clone()
	header.Del("Date") // net/http writes it
	b.server = http.Server{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if work != nil {
				if err := work(r); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
			for name, values := range header {
				w.Header()[name] = values
			}
			w.Write(a.Body)
		}),
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	go b.server.Serve(l)
	return b, nil
}

func (b *bare) close() error { return b.server.Close() }

// dialTLS connects to address and completes the handshake.
func dialTLS(address string, config *tls.Config) dialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	}
}

// bareName is the name in a bare server's certificate.
const bareName = "bare.test"

// bareTLS makes the configuration of a bare server and of its client, with the
// kind of keys that the platform's have. client is nil where none is asked for.
func bareTLS(client *tls.Certificate) (server, dialer *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{bareName}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	server = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}},
	}
	dialer = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: bareName}
	if client != nil {
		server.ClientAuth = tls.RequireAnyClientCert
		dialer.Certificates = []tls.Certificate{*client}
	}
	return server, dialer, nil
}

// beside is a contest of a load between a server of ours, which dial reaches,
// and a bare one, which needs work for each answer.
func (b *bench) beside(ctx context.Context, l load, dial dialFunc, client *tls.Certificate, work func(*http.Request) error) (contest, error) {
	first, err := l.once(ctx, dial)
	if err != nil {
		return contest{}, err
	}
	server, dialer, err := bareTLS(client)
	if err != nil {
		return contest{}, err
	}
	plain, err := startBare(first, server, work, b.session.log())
	if err != nil {
		return contest{}, err
	}
	c := contest{end: plain.close, cost: new(cost), limitCost: new(cost)}
	against := func(dial dialFunc, spent *cost) func(context.Context, time.Duration) (float64, error) {
		return func(ctx context.Context, d time.Duration) (float64, error) {
			l.Seconds = d.Seconds()
			before := spentNow()
			r, err := l.run(ctx, dial)
			if err != nil {
				return 0, err
			}
			spent.add(before, r.Requests)
			return r.rate(), nil
		}
	}
	c.ours, c.limit = against(dial, c.cost), against(dialTLS(plain.address, dialer), c.limitCost)
	return c, nil
}
