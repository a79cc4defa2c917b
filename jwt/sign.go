package jwt

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// A Signer signs with one key, under one header. Make it once per key: it may
// be used from many goroutines.
type Signer struct {
	key    crypto.Signer
	alg    Alg
	header string // encoded, with the dot after it
}

// NewSigner returns a Signer whose tokens have header beside alg and typ: kid, x5t.
func NewSigner(key crypto.Signer, alg Alg, header map[string]any) (*Signer, error) {
	if err := alg.fits(key.Public()); err != nil {
		return nil, err
	}
	all := map[string]any{}
	maps.Copy(all, header)
	all["alg"], all["typ"] = alg, "JWT"
	b, err := json.Marshal(all)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return &Signer{key, alg, base64.RawURLEncoding.EncodeToString(b) + "."}, nil
}

// Sign returns claims (marshalled as JSON) as a compact JWS.
func (s *Signer) Sign(claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("claims: %w", err)
	}
	b, err := s.Append(nil, payload)
	return string(b), err
}

// Append adds to b a compact JWS of payload, claims that are JSON already.
func (s *Signer) Append(b, payload []byte) ([]byte, error) {
	b64, begin := base64.RawURLEncoding, len(b)
	b = append(b, s.header...)
	b = b64.AppendEncode(b, payload)
	signature, err := s.sign(sha256.Sum256(b[begin:]))
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	b = append(b, '.')
	return b64.AppendEncode(b, signature), nil
}

// sign makes the signature as it stands in a token (RFC 7518 §3.3 to §3.5). An
// ECDSA nonce is made of the key, the digest and fresh random bytes: it leaks
// nothing when either the randomness or the computation fails.
func (s *Signer) sign(digest [sha256.Size]byte) ([]byte, error) {
	switch s.alg {
	case PS256:
		return s.key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
	case ES256:
		der, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		return fixedSize(der)
	default:
		return s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	}
}

// p256Size is the length in bytes of each of the two numbers of an ES256 signature.
const p256Size = 32

// asASN1 is the inverse of fixedSize.
func asASN1(signature []byte) []byte {
	r, s := signature[:p256Size], signature[p256Size:]
	const header, most = 2, 2 + 1 + p256Size // bytes before the numbers; of a number
	der := append(make([]byte, 0, header+2*most), byte(asn1.SEQUENCE), 0)
	der = appendInteger(appendInteger(der, r), s)
	der[1] = byte(len(der) - header)
	return der
}

// appendInteger adds a big-endian number that is not negative as its DER: without
// zeros in front, but for one where it would look negative.
func appendInteger(der, n []byte) []byte {
	n = bytes.TrimLeft(n, "\x00")
	if len(n) == 0 || n[0] >= 0x80 {
		der = append(der, byte(asn1.INTEGER), byte(1+len(n)), 0)
	} else {
		der = append(der, byte(asn1.INTEGER), byte(len(n)))
	}
	return append(der, n...)
}

// fixedSize turns the DER of an ECDSA signature into r and s, 32 bytes each
// (RFC 7518 §3.4).
func fixedSize(der []byte) ([]byte, error) {
	in := cryptobyte.String(der)
	var both cryptobyte.String
	var r, s []byte // big-endian, without zeros in front
	if !in.ReadASN1(&both, asn1.SEQUENCE) || !in.Empty() || !both.ReadASN1Integer(&r) || !both.ReadASN1Integer(&s) || !both.Empty() ||
		len(r) > p256Size || len(s) > p256Size {
		return nil, errors.New("the key's signature is not that of P-256")
	}
	b := make([]byte, 2*p256Size)
	copy(b[p256Size-len(r):], r)
	copy(b[2*p256Size-len(s):], s)
	return b, nil
}
