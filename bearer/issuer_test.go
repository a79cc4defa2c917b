package bearer_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/bearer"
	"innate/jwt"
)

const (
	tenant   = "11111111-2222-4333-8444-555555555555"
	object   = "aaaaaaaa-0000-4000-8000-000000000001"
	app      = "bbbbbbbb-0000-4000-8000-000000000001"
	audience = "https://Vault.example.org"
	vm       = "/subscriptions/cccccccc-0000-4000-8000-000000000001/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/web-1"
	machine  = "/subscriptions/cccccccc-0000-4000-8000-000000000001/resourceGroups/RG/providers/Microsoft.HybridCompute/machines/m1"
)

// rsaKey is made once: it takes longer than all the tests.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// An issuer is a token service that signs whatever it is told to.
type issuer struct {
	srv *httptest.Server
	t   testing.TB

	mu      sync.Mutex
	now     time.Time
	keys    map[string]crypto.Signer
	broken  bool              // answers 500
	replace map[string]string // bodies of documents, by path, instead of the right ones
	fetches map[string]int    // by path
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{
		t: t, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC),
		keys:    map[string]crypto.Signer{"rsa-1": rsaKey(), "ec-1": ecKey(t)},
		replace: map[string]string{}, fetches: map[string]int{},
	}
	i.srv = httptest.NewTLSServer(i)
	t.Cleanup(i.srv.Close)
	return i
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fetches[r.URL.Path]++
	if i.broken {
		http.Error(w, "out of order", http.StatusInternalServerError)
		return
	}
	if body, ok := i.replace[r.URL.Path]; ok {
		w.Write([]byte(body))
		return
	}
	origin := "https://" + r.Host
	switch r.URL.Path {
	case "/" + tenant + "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": origin + "/" + tenant + "/", "jwks_uri": origin + "/common/discovery/keys"})
	case "/" + tenant + "/v2.0/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]any{"issuer": origin + "/" + tenant + "/v2.0", "jwks_uri": origin + "/" + tenant + "/discovery/v2.0/keys"})
	case "/common/discovery/keys", "/" + tenant + "/discovery/v2.0/keys":
		var set jwt.Set
		for id, key := range i.keys {
			k := jwt.Key{ID: id, Alg: jwt.ES256, Public: key.Public()}
			if _, ok := key.(*rsa.PrivateKey); ok {
				k.Alg = jwt.RS256
			}
			set.Keys = append(set.Keys, k)
		}
		json.NewEncoder(w).Encode(set)
	default:
		http.NotFound(w, r)
	}
}

// documents counts the key sets that were fetched.
func (i *issuer) documents() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches["/common/discovery/keys"]
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

// verifier believes the issuer; change, if not nil, has the last word.
func (i *issuer) verifier(change func(*bearer.Config)) *bearer.Verifier {
	i.t.Helper()
	c := bearer.Config{
		Authority: i.srv.URL, Tenant: tenant, Audiences: []string{audience, "https://vault.azure.net"},
		HTTP: i.srv.Client(), Now: i.clock, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	v, err := bearer.New(c)
	if err != nil {
		i.t.Fatal(err)
	}
	return v
}

type claims map[string]any

// claims are those of a good v1 token, then what change says; nil removes.
func (i *issuer) claims(change claims) claims {
	now := i.clock().Unix()
	c := claims{
		"aud": audience, "iss": i.srv.URL + "/" + tenant + "/", "ver": "1.0",
		"iat": now, "nbf": now - 300, "exp": now + 3600,
		"tid": tenant, "idtyp": "app", "oid": object, "sub": object, "appid": app, "uti": "uti-1",
		"xms_mirid": vm, "xms_az_rid": vm, "innate_host": machine, "innate_assurance": "cgroup+uid",
	}
	maps.Copy(c, change)
	for name, value := range change {
		if value == nil {
			delete(c, name)
		}
	}
	return c
}

// v2 turns claims into those of a v2 token.
func (i *issuer) v2(change claims) claims {
	c := claims{"iss": i.srv.URL + "/" + tenant + "/v2.0", "ver": "2.0", "appid": nil, "azp": app}
	maps.Copy(c, change)
	return i.claims(c)
}

// sign signs with the key of that id.
func (i *issuer) sign(id string, c claims) string {
	i.t.Helper()
	key := i.keys[id]
	alg := jwt.ES256
	if _, ok := key.(*rsa.PrivateKey); ok {
		alg = jwt.RS256
	}
	return i.signWith(key, alg, id, c)
}

func (i *issuer) signWith(key crypto.Signer, alg jwt.Alg, kid string, c claims) string {
	i.t.Helper()
	s, err := jwt.NewSigner(key, alg, map[string]any{"kid": kid})
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := s.Sign(c)
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}

// raw makes a token of its parts, unsigned or wrongly signed.
func raw(header, payload string, signature []byte) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(header)) + "." + enc([]byte(payload)) + "." + enc(signature)
}

var wantPrincipal = innate.Principal{
	Tenant: tenant, Object: object, Client: app, Name: "web-1",
	Hosting: vm, Host: machine, Assurance: innate.CgroupUID, Token: "uti-1",
}
