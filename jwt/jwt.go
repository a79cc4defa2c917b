// Package jwt is our thin face over the JOSE library: compact JWS (RFC 7515),
// JWK sets (RFC 7517) and a short list of algorithms.
//
// It owns what is strict about them. Which key to believe, and what the claims
// mean, is its callers' business: a header's jwk, jku, x5u and x5c are never
// used, here or by way of this package.
//
// Nothing that Parse returns is proved before Verify has returned it.
package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// An Alg is a signature algorithm (RFC 7518 §3.1).
type Alg string

// The algorithms we know. There is no "none" and no HMAC.
const (
	RS256 Alg = "RS256"
	PS256 Alg = "PS256"
	ES256 Alg = "ES256"
)

// minRSA is the size in bits of the smallest RSA key we sign or verify with (RFC 7518 §3.3).
const minRSA = 2048

// fits checks that pub is a key for alg: a signature is never checked with the
// key of another algorithm.
func (alg Alg) fits(pub crypto.PublicKey) error {
	switch alg {
	case RS256, PS256:
		key, ok := pub.(*rsa.PublicKey)
		if !ok {
			return fmt.Errorf("%s needs an RSA key", alg)
		}
		if bits := key.N.BitLen(); bits < minRSA {
			return fmt.Errorf("%s needs an RSA key of at least %d bits: this one has %d", alg, minRSA, bits)
		}
	case ES256:
		if key, ok := pub.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
			return fmt.Errorf("%s needs an ECDSA key on P-256", alg)
		}
	default:
		return fmt.Errorf("the algorithm %q is not one of %s, %s, %s", alg, RS256, PS256, ES256)
	}
	return nil
}

// A Signer signs with one key, under one header. Make it once per key: it may
// be used from many goroutines.
type Signer struct{ jose jose.Signer }

// NewSigner returns a Signer whose tokens have header beside alg and typ: kid, x5t.
func NewSigner(key crypto.Signer, alg Alg, header map[string]any) (*Signer, error) {
	if err := alg.fits(key.Public()); err != nil {
		return nil, err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	for name, value := range header {
		options.WithHeader(jose.HeaderKey(name), value)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: key}, options)
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return &Signer{s}, nil
}

// Sign returns claims (marshalled as JSON) as a compact JWS.
func (s *Signer) Sign(claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	jws, err := s.jose.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing: %w", err)
	}
	return jws.CompactSerialize()
}
