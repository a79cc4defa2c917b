package tokens_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/directory"
	"innate/jwt"
	"innate/store"
)

// BenchmarkIssueByAssertion is an app registration's request, beside the one
// verification and the one signature that it cannot do without. It comes from
// many addresses, since one client at one address may not come so often.
func BenchmarkIssueByAssertion(b *testing.B) {
	w := start(b)
	w.register(directory.Registration{IdentifierURIs: []string{"api://ec"}, SigningAlg: "ES256"})
	handler := w.tokens.Handler()

	for _, c := range []struct {
		alg      jwt.Alg
		resource string
		key      crypto.Signer
	}{{jwt.RS256, vault, rsaKey()}, {jwt.ES256, "api://ec", newKey(b)}} {
		r, _ := w.register(directory.Registration{})
		der := w.certify(r.Client, c.key, w.now.Add(-time.Hour), w.now.Add(time.Hour))
		sum := sha256.Sum256(der)
		compact := assertion{c.key, c.alg, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, w.valid(r.Client)}.compact(b)
		var asked atomic.Uint32 // in all runs: what one address may ask for is limited
		b.Run(string(c.alg), func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					in := byAssertion(r.Client, compact, c.resource)
					n := asked.Add(1) / 500
					in.RemoteAddr = fmt.Sprintf("10.%d.%d.%d:1", byte(n>>16), byte(n>>8), byte(n))
					rec := httptest.NewRecorder()
					if handler.ServeHTTP(rec, in); rec.Code != 200 {
						b.Fatal(rec.Body)
					}
				}
			})
		})
		b.Run(string(c.alg)+"-bare", func(b *testing.B) {
			digest := sha256.Sum256([]byte("x"))
			signature, err := c.key.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !verifies(c.key.Public(), digest[:], signature) {
						b.Fatal("the signature does not verify")
					}
					if _, err := c.key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func verifies(pub crypto.PublicKey, digest, signature []byte) bool {
	if key, ok := pub.(*ecdsa.PublicKey); ok {
		return ecdsa.VerifyASN1(key, digest, signature)
	}
	return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, digest, signature) == nil
}

// byAssertion is a token request of a client that has signed an assertion.
func byAssertion(client innate.ClientID, compact, resource string) *http.Request {
	return request(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "scope="+resource+"/.default",
		"client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "client_assertion="+compact)
}

func TestIssuingATokenWritesNothingToTheStore(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	key := newKey(t)
	sum := sha256.Sum256(w.certify(client, key, w.now.Add(-time.Hour), w.now.Add(time.Hour)))
	compact := assertion{key, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, w.valid(client)}.compact(t)
	object := w.identity(app, false)
	cert := w.certificate(object.ID, app, machine)

	revision := func() (rev store.Revision) {
		t.Helper()
		if err := w.db.View(t.Context(), func(r store.Reader) error { rev = r.Revision(); return nil }); err != nil {
			t.Fatal(err)
		}
		return rev
	}
	const grant = "grant_type=client_credentials"
	for proof, ask := range map[string]func() answer{
		"a secret": func() answer {
			return w.post(tokenPath, grant, "client_id="+string(client), "client_secret="+secret, "scope="+vault+"/.default")
		},
		"an assertion": func() answer { return w.send(w.tokens.Handler(), byAssertion(client, compact, vault)) },
		"a certificate": func() answer {
			return w.present(cert, grant, "client_id="+string(object.Client), "scope="+vault+"/.default")
		},
	} {
		before, events := revision(), len(w.events())
		const times = 5
		for range times {
			w.claims(ask())
		}
		if after := revision(); after != before {
			t.Errorf("by %s: the store went from revision %d to %d", proof, before, after)
		}
		if recorded := len(w.events()) - events; recorded != times {
			t.Errorf("by %s: %d tokens and %d records", proof, times, recorded)
		}
	}
}
