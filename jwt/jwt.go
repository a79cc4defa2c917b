// Package jwt is compact JWS (RFC 7515), JWK sets (RFC 7517) and a short list of
// algorithms. Keys are read and written by the JOSE library; tokens are signed
// and parsed here, by the standard library's cryptography (decision 6).
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
	"fmt"
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
