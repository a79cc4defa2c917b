package tokens

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"

	"innate/jwt"
	"innate/store"
)

const (
	rsaBits = 2048
	keyLife = 5 * 365 * 24 * time.Hour // of the certificate that verifiers may show; the key itself is retired earlier
)

// signingAlgs are the algorithms that tokens are signed by: for each there is a
// key that signs, always.
var signingAlgs = [...]jwt.Alg{jwt.RS256, jwt.ES256}

// A keyRow is a signing key as it is stored. Its times say what it is for at
// any moment, so that a key begins and ends to sign by the clock, on every
// server alike, without a write.
type keyRow struct {
	Alg         jwt.Alg   `json:"alg"`
	Certificate []byte    `json:"certificate"`   // DER, self-signed
	Key         []byte    `json:"key,omitempty"` // PKCS #8, sealed; gone when it is withdrawn
	Published   time.Time `json:"published"`
	Active      time.Time `json:"active"`              // from when it signs
	Retired     time.Time `json:"retired,omitzero"`    // from when it does not; zero while no later key is known
	Withdrawn   bool      `json:"withdrawn,omitempty"` // someone else may have it: it is not published, and revoked
}

const keyRows store.Table[keyRow] = "tokens/keys/" // SHA-1 of the certificate, hex

// A KeyState is what a signing key is for at a moment.
type KeyState string

// The states of a key, in the order in which it goes through them; one that may
// be known to others is withdrawn from any of them.
const (
	KeyNext      KeyState = "next"      // published, so that verifiers have it before it signs
	KeySigning   KeyState = "signing"   // one of each algorithm
	KeyVerifying KeyState = "verifying" // published for the tokens that it has signed
	KeyWithdrawn KeyState = "withdrawn" // listed for people to see, and nothing else
)

func (r *keyRow) state(now time.Time) KeyState {
	switch {
	case r.Withdrawn:
		return KeyWithdrawn
	case r.retired(now):
		return KeyVerifying
	case now.Before(r.Active):
		return KeyNext
	default:
		return KeySigning
	}
}

func (r *keyRow) retired(now time.Time) bool { return !r.Retired.IsZero() && !now.Before(r.Retired) }

// until is when the key is forgotten; zero while that is not known.
func (r *keyRow) until() time.Time {
	if r.Retired.IsZero() {
		return time.Time{}
	}
	return r.Retired.Add(kept)
}

func (r *keyRow) over(now time.Time) bool { return !r.Retired.IsZero() && !now.Before(r.until()) }

// kid names the key in tokens and key sets. It is the x5t of its certificate
// too, as in Entra.
func (r *keyRow) kid() string {
	sum := sha1.Sum(r.Certificate)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// place is the associated data of a sealed key: where it belongs.
func place(id string) []byte { return []byte(string(keyRows) + id) }

// newKey makes a key that is published now and signs from active on.
func newKey(c Config, alg jwt.Alg, now, active time.Time) (id string, row keyRow, err error) {
	var key crypto.Signer
	if alg == jwt.ES256 {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = c.NewKey()
	}
	if err != nil {
		return "", keyRow{}, err
	}
	template := &x509.Certificate{ // of a random serial number, so that no two have one id
		Subject:   pkix.Name{CommonName: "Innate tokens of " + string(c.Tenant)},
		NotBefore: now,
		NotAfter:  now.Add(keyLife),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return "", keyRow{}, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", keyRow{}, err
	}
	sum := sha1.Sum(der)
	id = hex.EncodeToString(sum[:])
	return id, keyRow{
		Alg: alg, Certificate: der, Key: c.Seal.Seal(pkcs8, place(id)), Published: now, Active: active,
	}, nil
}

// A signingKey is a key as this process has it, ready to sign.
type signingKey struct {
	row    keyRow
	id     string // kid
	public crypto.PublicKey
	signer [3]*jwt.Signer // by token version; a v1 token's header has x5t beside kid
	fault  error          // why it cannot sign
}

// openKey reads a row, its private half too unless it is withdrawn. A key that
// cannot be unsealed here is still one that others sign with, and is published.
func openKey(c Config, id string, row keyRow) *signingKey {
	k := &signingKey{row: row, id: row.kid()}
	cert, err := x509.ParseCertificate(row.Certificate)
	if err != nil {
		k.fault = err
		return k
	}
	k.public = cert.PublicKey
	if !row.Withdrawn {
		k.fault = k.unseal(c, id)
	}
	return k
}

func (k *signingKey) unseal(c Config, id string) error {
	pkcs8, err := c.Seal.Open(k.row.Key, place(id))
	if err != nil {
		return err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return errors.New("it cannot sign")
	}
	if k.signer[1], err = jwt.NewSigner(key, k.row.Alg, map[string]any{"kid": k.id, "x5t": k.id}); err != nil {
		return err
	}
	k.signer[2], err = jwt.NewSigner(key, k.row.Alg, map[string]any{"kid": k.id})
	return err
}
