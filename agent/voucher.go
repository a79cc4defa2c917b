package agent

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"innate"
)

const (
	voucherBits = 2048 // RSA: what verifiers of attested documents are used to
	// voucherLeft is what must be left of a certificate that documents are signed
	// under: as long as a document is good.
	voucherLeft = time.Hour
)

// A voucher is what the attested documents of one VM are signed with on this
// host. The key is made when a document is first asked for, and kept in memory alone.
type voucher struct {
	agent *Agent
	vm    innate.ResourceID

	mu    sync.Mutex // held while the certificate is fetched: who comes meanwhile waits for it
	key   *tls.Certificate
	renew time.Time
}

// certificate returns the key and its certificate, fetched when there is none
// or when half its life is over.
func (v *voucher) certificate(ctx context.Context) (*tls.Certificate, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.agent.config.Now()
	if v.key != nil && now.Before(v.renew) {
		return v.key, nil
	}
	key, err := v.fetch(ctx)
	if err != nil {
		if v.key != nil && v.key.Leaf.NotAfter.Sub(now) > voucherLeft && transient(err) {
			return v.key, nil
		}
		return nil, err
	}
	v.key, v.renew = key, middle(key.Leaf.NotBefore, key.Leaf.NotAfter)
	return key, nil
}

// fetch makes a key and asks for its certificate.
func (v *voucher) fetch(ctx context.Context) (*tls.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, voucherBits)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Certificate []byte `json:"certificate"`
	}
	err = v.agent.upstream.post(ctx, "/v1/documents", map[string]any{"resource": v.vm, "csr": csr}, &answer)
	if refusedAs(err, "NotPlacedHere") { // the feed will say the same in a moment
		return nil, &innate.Refusal{Status: http.StatusGone, Text: "this VM was just taken off this host", Cause: err}
	}
	if err != nil {
		return nil, &innate.Refusal{
			Status: http.StatusServiceUnavailable, RetryAfter: upstreamPause,
			Text: "the control plane does not answer, and without it this host may not speak for the VM any longer", Cause: err,
		}
	}
	cert, err := x509.ParseCertificate(answer.Certificate)
	if err != nil {
		return nil, fmt.Errorf("the certificate that came back: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate that came back is for another key")
	}
	return &tls.Certificate{Certificate: [][]byte{answer.Certificate}, PrivateKey: key, Leaf: cert}, nil
}
