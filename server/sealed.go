package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"innate/rest"
	"innate/seal"
)

// askKeeper is how often the keeper of a sealed master key is asked for it.
const askKeeper = time.Second

// AwaitKey returns when the master key opens: at once, or as soon as its keeper
// gives it out. Until then every request on the listener and the socket is
// answered 503. The authority's key is sealed too, so the certificate is one
// that proves nothing: a client that checks it learns only that it cannot be
// served. Any other fault of the master key is New's to tell. The error is ctx's
// when that ended first.
func AwaitKey(ctx context.Context, c Config) error {
	sealed := func() error {
		if _, err := seal.OpenMaster(filepath.Join(c.Dir, masterFile), c.Keepers...); errors.Is(err, seal.ErrSealed) {
			return err
		}
		return nil
	}
	reason := sealed()
	if reason == nil {
		return nil
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Log.Error("this server is sealed: it answers 503 until the keeper of its master key gives that out", "err", reason)
	certificate, err := unproved()
	if err != nil {
		return err
	}
	waiting, opened := context.WithCancel(ctx)
	defer opened()
	g, waiting := errgroup.WithContext(waiting)
	g.Go(func() error {
		l := borrowed{c.Listener}
		defer l.giveBack()
		return serveSealed(waiting, c, tls.NewListener(l, &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{certificate},
		}), "its master key is with a keeper that does not give it out; the operator finds the reason in the server's log")
	})
	if c.Socket != "" {
		l, err := listenSocket(c.Socket)
		if err != nil {
			return err
		}
		g.Go(func() error { return serveSealed(waiting, c, l, reason.Error()) })
	}
	g.Go(func() error {
		defer opened()
		tick := time.NewTicker(askKeeper)
		defer tick.Stop()
		for {
			select {
			case <-waiting.Done():
				return nil
			case <-tick.C:
				if sealed() == nil {
					return nil
				}
			}
		}
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// serveSealed says why nothing is served, to whoever asks.
func serveSealed(ctx context.Context, c Config, l net.Listener, reason string) error {
	srv := &http.Server{
		Handler: rest.Tidy(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close") // the next one may be served
			rest.WriteError(w, r, &rest.Error{
				Status: http.StatusServiceUnavailable, Code: "Sealed", RetryAfter: 2 * askKeeper,
				Message: "this server is sealed and serves nothing: " + reason,
			})
		})),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	return serve(ctx, srv, c.Log, func() error { return srv.Serve(l) })
}

// unproved makes a certificate that nobody has a reason to believe.
func unproved() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(leafLife)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// A borrowed listener is not closed by who serves on it, but stops accepting.
type borrowed struct{ net.Listener }

func (b borrowed) Close() error { return b.deadline(time.Unix(1, 0)) }

// giveBack makes it accept again.
func (b borrowed) giveBack() { b.deadline(time.Time{}) }

func (b borrowed) deadline(at time.Time) error {
	l, ok := b.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return errors.New("this listener cannot be borrowed")
	}
	return l.SetDeadline(at)
}
