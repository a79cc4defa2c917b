package tokens_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"testing"

	"innate/directory"
)

// BenchmarkIssue is a managed identity's request at the mutual endpoint without
// the network, beside the one signature that it cannot do without. Requests
// come from several goroutines, as the audit log's group commit expects.
func BenchmarkIssue(b *testing.B) {
	w := start(b)
	object := w.identity(app, false)
	cert := w.certificate(object.ID, app, machine)
	w.register(directory.Registration{IdentifierURIs: []string{"api://ec"}, SigningAlg: "ES256"})
	handler := w.tokens.MutualHandler()

	for _, c := range []struct {
		name, resource string
		key            crypto.Signer
	}{{"RS256", vault, rsaKey()}, {"ES256", "api://ec", newKey(b)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r := request(tokenPath, "grant_type=client_credentials", "client_id="+string(object.Client),
						"scope="+c.resource+"/.default", "assurance=cgroup+uid")
					r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
					rec := httptest.NewRecorder()
					if handler.ServeHTTP(rec, r); rec.Code != 200 {
						b.Fatal(rec.Body)
					}
				}
			})
		})
		b.Run(c.name+"-bare", func(b *testing.B) {
			digest := sha256.Sum256([]byte("x"))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkFederated is a token for another issuer's, of an application with
// that one credential, and with ten thousand.
func BenchmarkFederated(b *testing.B) {
	s := startStranger(b)
	compact := s.token(nil).compact(b)
	bench := func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				rec := httptest.NewRecorder()
				s.tokens.Handler().ServeHTTP(rec, request(tokenPath, assertionForm(s.client, compact)...))
				if rec.Code != 200 {
					b.Fatal(rec.Body)
				}
			}
		})
	}
	b.Run("of-1", bench)
	s.many(s.object.ID, 9999)
	b.Run("of-10000", bench)
}
