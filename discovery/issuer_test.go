package discovery_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"innate/discovery"
	"innate/jwt"
)

const name = "https://issuer.example.com/cluster-1"

var rsaPublic = sync.OnceValue(func() *rsa.PublicKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return &key.PublicKey
})

func ec(id string) jwt.Key {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return jwt.Key{ID: id, Alg: jwt.ES256, Public: key.Public()}
}

// An issuer publishes keys, by way of a handler or as a transport without a wire.
type issuer struct {
	name string

	mu      sync.Mutex
	now     time.Time
	keys    []jwt.Key
	broken  bool              // answers 500
	replace map[string]string // bodies by path, instead of the right ones
	fetches map[string]int    // by path
}

func newIssuer(keys ...jwt.Key) *issuer {
	return &issuer{
		name: name, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), keys: keys,
		replace: map[string]string{}, fetches: map[string]int{},
	}
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches[r.URL.Path]++
	body, replaced := i.replace[r.URL.Path]
	switch {
	case i.broken:
		http.Error(w, "out of order", http.StatusInternalServerError)
	case replaced:
		w.Write([]byte(body))
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.name, "jwks_uri": "https://" + r.Host + "/keys"})
	case r.URL.Path == "/keys":
		json.NewEncoder(w).Encode(jwt.Set{Keys: i.keys})
	default:
		http.NotFound(w, r)
	}
}

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context())
	in.Host = r.URL.Host
	w := httptest.NewRecorder()
	i.ServeHTTP(w, in)
	return w.Result(), nil
}

// documents counts the key sets that were fetched.
func (i *issuer) documents() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches["/keys"]
}

func (i *issuer) set(change func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change()
}

func (i *issuer) clock() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

func (i *issuer) pass(d time.Duration) { i.set(func() { i.now = i.now.Add(d) }) }

// believe returns the keys of the issuer; change, if not nil, has the last word.
func (i *issuer) believe(t testing.TB, change func(*discovery.Config)) *discovery.Keys {
	t.Helper()
	c := discovery.Config{
		Issuer: i.name, HTTP: &http.Client{Transport: i}, Now: i.clock, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	keys, err := discovery.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// get asks for a key and returns how it went: "" for had, "temporary", or
// "final", and why.
func get(t testing.TB, ctx context.Context, keys *discovery.Keys, kid string, alg jwt.Alg) (how, why string) {
	t.Helper()
	key, err := keys.Get(ctx, kid, alg)
	if err == nil {
		if kid != "" && key.ID != kid || !key.Fits(alg) {
			t.Errorf("asked for %q for %s, got %+v", kid, alg, key)
		}
		return "", ""
	}
	return kind(t, err)
}

func kind(t testing.TB, err error) (how, why string) {
	t.Helper()
	var e *discovery.Error
	switch {
	case !errors.As(err, &e):
		t.Fatalf("not a discovery.Error: %v", err)
	case strings.ContainsFunc(e.Text, func(c rune) bool { return c < ' ' }) || len(e.Text) > 2000:
		t.Errorf("the text is not one line: %q", e.Text)
	case e.Temporary:
		return "temporary", e.Text
	}
	return "final", e.Text
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
