package jwt

import (
	"bytes"
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"encoding/json"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// A Key is a public key as a JWK.
type Key struct {
	ID     string // kid
	Alg    Alg    // left out when empty
	Public crypto.PublicKey
	Cert   []byte // DER; written as x5c and x5t when present
	Issuer string // written as issuer when not empty
}

// MarshalJSON writes the JWK as Entra does (managed-identity-endpoints §4.2).
func (k Key) MarshalJSON() ([]byte, error) {
	j := jose.JSONWebKey{Key: k.Public, KeyID: k.ID, Algorithm: string(k.Alg), Use: "sig"}
	if !j.IsPublic() {
		return nil, fmt.Errorf("key %q is not a public key", k.ID)
	}
	if len(k.Cert) > 0 {
		cert, err := x509.ParseCertificate(k.Cert)
		if err != nil {
			return nil, fmt.Errorf("certificate of key %q: %w", k.ID, err)
		}
		sum := sha1.Sum(k.Cert) // RFC 7517 §4.8: a name for the certificate, not a proof
		j.Certificates, j.CertificateThumbprintSHA1 = []*x509.Certificate{cert}, sum[:]
	}
	b, err := j.MarshalJSON()
	if err != nil || k.Issuer == "" {
		return b, err
	}
	issuer, err := json.Marshal(k.Issuer)
	if err != nil {
		return nil, err
	}
	b = append(bytes.TrimSuffix(b, []byte("}")), `,"issuer":`...) // not a member that the library knows
	return append(append(b, issuer...), '}'), nil
}

// Fits reports whether k can verify by alg, and does not name another algorithm.
func (k Key) Fits(alg Alg) bool {
	return (k.Alg == "" || k.Alg == alg) && alg.fits(k.Public) == nil
}

// A Set is a JWK set.
type Set struct{ Keys []Key }

// MarshalJSON writes the JWK set.
func (s Set) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Keys []Key `json:"keys"`
	}{append([]Key{}, s.Keys...)})
}

// UnmarshalJSON reads a JWK set, passing over keys of kinds we do not know
// (RFC 7517 §5), keys for encryption, and private keys.
func (s *Set) UnmarshalJSON(b []byte) error {
	var raw struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return fmt.Errorf("JWK set: %w", err)
	}
	s.Keys = nil
	for _, r := range raw.Keys {
		if k, ok := readKey(r); ok {
			s.Keys = append(s.Keys, k)
		}
	}
	return nil
}

func readKey(raw json.RawMessage) (Key, bool) {
	var j jose.JSONWebKey
	var more struct {
		Issuer string `json:"issuer"`
	}
	if j.UnmarshalJSON(raw) != nil || json.Unmarshal(raw, &more) != nil ||
		!j.Valid() || !j.IsPublic() || j.Use != "" && j.Use != "sig" {
		return Key{}, false
	}
	k := Key{ID: j.KeyID, Alg: Alg(j.Algorithm), Public: j.Key, Issuer: more.Issuer}
	if !k.usable() {
		return Key{}, false
	}
	if len(j.Certificates) > 0 {
		k.Cert = j.Certificates[0].Raw
	}
	return k, true
}

// usable reports whether k can verify by some algorithm that we know.
func (k Key) usable() bool {
	return k.Fits(RS256) || k.Fits(PS256) || k.Fits(ES256)
}
