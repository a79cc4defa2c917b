package tokens_test

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/directory"
	"innate/discovery"
	"innate/jwt"
	"innate/store"
	"innate/tokens"
)

// An issuer is a stranger's: over TLS, with a discovery document and keys.
type issuer struct {
	t   testing.TB
	url string

	mu       sync.Mutex
	keys     jwt.Set
	down     bool
	requests int
}

// newIssuer starts an issuer until the test ends. Its URL has path.
func newIssuer(t testing.TB, path string, keys ...jwt.Key) *issuer {
	t.Helper()
	is := &issuer{t: t, keys: jwt.Set{Keys: keys}}
	srv := httptest.NewTLSServer(is)
	t.Cleanup(srv.Close)
	is.url = srv.URL + path
	return is
}

func (is *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.requests++
	switch {
	case is.down:
		w.WriteHeader(http.StatusBadGateway)
	case r.URL.Path == "/keys":
		json.NewEncoder(w).Encode(is.keys)
	default:
		json.NewEncoder(w).Encode(map[string]string{"issuer": is.url, "jwks_uri": "https://" + r.Host + "/keys"})
	}
}

func (is *issuer) set(down bool) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.down = down
}

// asked is how many requests have reached it.
func (is *issuer) asked() int {
	is.mu.Lock()
	defer is.mu.Unlock()
	return is.requests
}

// A clock may be moved while others look at it.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

// reach restarts the token service so that it may fetch keys from issuers on
// loopback, and returns its clock.
func (w *world) reach(allow ...string) *clock {
	w.t.Helper()
	any := httptest.NewTLSServer(http.NotFoundHandler()) // all of them show one certificate
	defer any.Close()
	roots := x509.NewCertPool()
	roots.AddCert(any.Certificate())
	c := &clock{now: w.now}
	w.config.Outside = discovery.Outside{Allow: allow, Roots: roots}
	w.config.Now = c.read
	var err error
	if w.tokens, err = tokens.New(w.t.Context(), w.config); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// federate gives a principal a federated credential.
func (w *world) federate(principal innate.ObjectID, c directory.FederatedCredential) {
	w.t.Helper()
	c.Principal = principal
	if c.Name == "" {
		c.Name = "main"
	}
	if c.Audience == "" {
		c.Audience = directory.FederatedAudience
	}
	w.update(func(tx store.Tx) error {
		_, _, err := directory.PutFederated(tx, c, w.now)
		return err
	})
}

// A stranger is an issuer with one key, and a client that trusts it.
type stranger struct {
	*world
	*issuer
	clock  *clock
	key    crypto.Signer
	client innate.ClientID
	object directory.Object
}

const subject = "repo:contoso/orders:ref:refs/heads/main"

// startStranger has an application that trusts subject at the issuer.
func startStranger(t testing.TB) *stranger {
	t.Helper()
	w, key := start(t), newKey(t)
	is := newIssuer(t, "/oidc", jwt.Key{ID: "k1", Alg: jwt.ES256, Public: key.Public()})
	s := &stranger{world: w, issuer: is, clock: w.reach("127.0.0.1"), key: key}
	r, object := w.register(directory.Registration{})
	s.client, s.object = r.Client, object
	w.federate(object.ID, directory.FederatedCredential{Issuer: is.url, Subject: subject})
	return s
}

// token is one of the stranger's for subject, with what claims change in it.
func (s *stranger) token(claims map[string]any) assertion {
	now := s.clock.read()
	return assertion{s.key, jwt.ES256, map[string]any{"kid": "k1"}, changed(map[string]any{
		"iss": s.url, "sub": subject, "aud": directory.FederatedAudience,
		"iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}, claims)}
}

// present asks for a token with one of the stranger's.
func (s *stranger) present(a assertion) answer {
	s.world.t.Helper()
	return s.assert(s.client, a.compact(s.world.t))
}
