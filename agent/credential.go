package agent

import (
	"context"
	"crypto/tls"
	"net/http"
	"sync"
	"time"

	"innate"
)

// A credential is the certificate that one workload has of one identity on this
// host, and the connections made under it. It is kept in memory alone.
type credential struct {
	mu        sync.Mutex // held while the certificate is fetched: who comes meanwhile waits for it
	key       *tls.Certificate
	renew     time.Time
	transport *http.Transport
	http      *http.Client
}

// credential returns the place of an order's certificate.
func (w *wallet) credential(id innate.ObjectID) *credential {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.credentials[id]
	if c == nil {
		c = new(credential)
		w.credentials[id] = c
	}
	return c
}

// client returns an HTTP client under the certificate, fetched when there is
// none or when half its life is over.
func (c *credential) client(ctx context.Context, u *upstream, o order, now time.Time) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key != nil && now.Before(c.renew) {
		return c.http, nil
	}
	key, err := u.certify(ctx, o)
	if err != nil {
		if c.key != nil && now.Before(c.key.Leaf.NotAfter) && transient(err) {
			return c.http, nil
		}
		return nil, err
	}
	c.shut()
	c.key, c.renew = key, middle(key.Leaf.NotBefore, key.Leaf.NotAfter)
	c.transport = u.transportFor(key)
	c.http = &http.Client{Transport: c.transport}
	return c.http, nil
}

// drop makes the next client fetch a certificate, unless another did so already.
func (c *credential) drop(used *http.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http == used {
		c.shut()
	}
}

// close forgets the certificate.
func (c *credential) close() {
	go func() { // whoever fetches it may hold the lock for a while
		c.mu.Lock()
		defer c.mu.Unlock()
		c.shut()
	}()
}

// shut forgets the certificate; c.mu is held.
func (c *credential) shut() {
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
	c.key, c.transport, c.http = nil, nil, nil
}

// certify asks for the certificate of an identity that a workload on this host has.
func (u *upstream) certify(ctx context.Context, o order) (*tls.Certificate, error) {
	key, csr, err := newKey()
	if err != nil {
		return nil, err
	}
	var answer struct {
		Certificate []byte `json:"certificate"`
	}
	err = u.post(ctx, "/v1/identities", map[string]any{"resource": o.workload, "identity": o.identity.Object, "csr": csr}, &answer)
	switch {
	case refusedAs(err, "NotPlacedHere"), refusedAs(err, "IdentityNotAttached"):
		return nil, innate.ErrNoIdentity // the feed will say the same in a moment
	case refusedAs(err, "IdentityDisabled"):
		return nil, &innate.Refusal{Status: http.StatusBadRequest, OAuth: "unauthorized_client", Code: 7000112, Text: "this identity is disabled", Cause: err}
	case err != nil:
		return nil, unreachable(err)
	}
	return keyPair(key, answer.Certificate)
}
