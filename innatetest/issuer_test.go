package innatetest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"innate/innatetest"
)

// An outsideIssuer is somebody else's OpenID issuer, as a CI system runs one.
type outsideIssuer struct {
	url   string
	roots *x509.CertPool
	key   *ecdsa.PrivateKey
}

const outsideKey = "outside-1"

func newOutsideIssuer(t *testing.T) *outsideIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := &outsideIssuer{key: key, roots: x509.NewCertPool()}
	mux := http.NewServeMux()
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(v) }
	}
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	o.url = s.URL
	o.roots.AddCert(s.Certificate())
	mux.HandleFunc("GET /.well-known/openid-configuration", answer(map[string]any{"issuer": o.url, "jwks_uri": o.url + "/keys"}))
	mux.HandleFunc("GET /keys", answer(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: key.Public(), KeyID: outsideKey, Algorithm: "ES256", Use: "sig"},
	}}))
	return o
}

// allowed lets a platform fetch the issuer's keys, though it is on loopback.
func (o *outsideIssuer) allowed() innatetest.Option {
	return innatetest.WithIssuer(strings.TrimPrefix(o.url, "https://"), o.roots)
}

func (o *outsideIssuer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: o.key, KeyID: outsideKey}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}
