package postgres_test

import (
	"crypto/tls"
	"crypto/x509"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate/feed/client"
)

// certificate is the one that the gateway shows.
func (w *world) certificate() *x509.Certificate {
	w.t.Helper()
	conn := w.secure().(*tls.Conn)
	defer conn.Close()
	if err := conn.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	return conn.ConnectionState().PeerCertificates[0]
}

func TestTheGatewaysCertificateIsRenewedAtHalfItsLifeAndNoLogInNotices(t *testing.T) {
	w := newServer(t)
	const half, while = 45 * 24 * time.Hour, 10 * time.Minute
	// PostgreSQL's clock is the machine's: the gateway's begins in the past and comes to the same.
	var ahead atomic.Int64
	w.config.Now = func() time.Time { return time.Now().Add(-half - while + time.Duration(ahead.Load())) }
	w.start()
	t.Cleanup(func() { w.stop() })
	first := w.certificate()

	ahead.Store(int64(half - while))
	w.revoke(client.RevokedKey, "another") // has the gateway fetch the keys, which are old now
	w.allow(alice, "app")
	token := w.token(alice, map[string]any{"iat": w.config.Now().Unix(), "nbf": w.config.Now().Unix()})
	w.until("a log-in", func() bool { _, err := w.attempt(t.Context(), "app", token); return err == nil })
	if w.certificate().SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("it was renewed before half its life")
	}

	stop, in := make(chan struct{}), make(chan struct{}, 10000)
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := w.attempt(t.Context(), "app", token); err != nil {
					t.Errorf("a log-in: %v", err)
				}
				in <- struct{}{}
			}
		})
	}
	some := func() {
		for range 20 {
			<-in
		}
	}
	some()
	ahead.Store(int64(half + while))
	some()
	second := w.certificate()
	close(stop)
	clients.Wait()
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("it was not renewed at half its life")
	}
	if got := second.NotAfter.Sub(first.NotAfter); got < half || got > half+time.Hour {
		t.Errorf("it ends %v after the first, want about %v", got, half)
	}
}
