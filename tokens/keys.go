package tokens

import (
	"context"
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
	"fmt"
	"math/big"
	"time"

	"innate/jwt"
	"innate/store"
)

const (
	rsaBits = 2048
	keyLife = 5 * 365 * 24 * time.Hour // of the certificate that verifiers may show; the key itself is retired earlier
)

// A keyRow is a signing key as it is stored. Its times say what it is for: it
// is published from Published on, signs from Active until a later key does, and
// is forgotten after Retired.
type keyRow struct {
	Alg         jwt.Alg    `json:"alg"`
	Certificate []byte     `json:"certificate"` // DER, self-signed
	Key         []byte     `json:"key"`         // PKCS #8, sealed
	Published   time.Time  `json:"published"`
	Active      time.Time  `json:"active"`
	Retired     *time.Time `json:"retired,omitempty"`
}

const keyRows store.Table[keyRow] = "tokens/keys/" // SHA-1 of the certificate, hex

func (r keyRow) active(now time.Time) bool {
	return !now.Before(r.Active) && (r.Retired == nil || now.Before(*r.Retired))
}

// A signingKey is a key ready to sign.
type signingKey struct {
	row    keyRow
	id     string // kid, which is the x5t of its certificate too, as in Entra
	public crypto.PublicKey
	signer [3]*jwt.Signer // by token version; a v1 token's header has x5t beside kid
}

// A ring is the signing keys: those that are published, and for each algorithm
// the one that signs.
type ring struct {
	published []*signingKey
	active    map[jwt.Alg]*signingKey
}

// openRing reads the signing keys, making the first of each algorithm. Of
// several servers that open one new store, one makes them.
func openRing(ctx context.Context, c Config) (*ring, error) {
	now := c.Now().UTC()
	_, err := c.DB.Update(ctx, func(tx store.Tx) error {
		signs := map[jwt.Alg]bool{}
		for _, row := range keyRows.All(tx, "", "") {
			signs[row.Alg] = signs[row.Alg] || row.active(now)
		}
		for _, alg := range []jwt.Alg{jwt.RS256, jwt.ES256} {
			if signs[alg] {
				continue
			}
			id, row, err := newKey(c, alg, now)
			if err != nil {
				return fmt.Errorf("making one for %s: %w", alg, err)
			}
			if err := keyRows.Put(tx, id, row); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r := &ring{active: map[jwt.Alg]*signingKey{}}
	err = c.DB.View(ctx, func(state store.Reader) error {
		for id, row := range keyRows.All(state, "", "") {
			k, err := unsealKey(c, id, row)
			if err != nil {
				return fmt.Errorf("key %s: %w", id, err)
			}
			r.add(k, now)
		}
		return nil
	})
	return r, err
}

// add publishes k; it signs if it is the newest of its algorithm that may.
func (r *ring) add(k *signingKey, now time.Time) {
	r.published = append(r.published, k)
	if signs := r.active[k.row.Alg]; k.row.active(now) && (signs == nil || signs.row.Active.Before(k.row.Active)) {
		r.active[k.row.Alg] = k
	}
}

// place is the associated data of a sealed key: where it belongs.
func place(id string) []byte { return []byte(string(keyRows) + id) }

// newKey makes a key that signs at once: nobody has cached a set without it.
func newKey(c Config, alg jwt.Alg, now time.Time) (id string, row keyRow, err error) {
	var key crypto.Signer
	if alg == jwt.ES256 {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = c.NewKey()
	}
	if err != nil {
		return "", keyRow{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "Innate tokens of " + string(c.Tenant)},
		NotBefore:    now,
		NotAfter:     now.Add(keyLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
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
		Alg: alg, Certificate: der, Key: c.Seal.Seal(pkcs8, place(id)), Published: now, Active: now,
	}, nil
}

func unsealKey(c Config, id string, row keyRow) (*signingKey, error) {
	pkcs8, err := c.Seal.Open(row.Key, place(id))
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("it cannot sign")
	}
	sum := sha1.Sum(row.Certificate)
	k := &signingKey{row: row, id: base64.RawURLEncoding.EncodeToString(sum[:]), public: key.Public()}
	if k.signer[1], err = jwt.NewSigner(key, row.Alg, map[string]any{"kid": k.id, "x5t": k.id}); err != nil {
		return nil, err
	}
	k.signer[2], err = jwt.NewSigner(key, row.Alg, map[string]any{"kid": k.id})
	return k, err
}

// set is the published keys as a JWK set. The v2 document names the issuer of each key.
func (r *ring) set(issuer string) jwt.Set {
	var set jwt.Set
	for _, k := range r.published {
		set.Keys = append(set.Keys, jwt.Key{ID: k.id, Alg: k.row.Alg, Public: k.public, Cert: k.row.Certificate, Issuer: issuer})
	}
	return set
}
