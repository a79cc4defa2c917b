// Package ca is the platform's certificate authorities, one per purpose, so
// that a leaf of one is worth nothing where another is asked for.
//
// It owns the authorities' keys (sealed in the store), the form of every
// certificate and the URIs that say whom one speaks for. Whether somebody may
// have a certificate, and who holds which, is decided by its callers.
//
// A certificate says exactly what its Subject says: nothing but the key is
// taken from a request.
package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"innate/seal"
	"innate/store"
)

// A Purpose is what an authority's certificates are good for, and nothing else.
type Purpose string

// The purposes.
const (
	Servers    Purpose = "servers"    // server TLS
	Hosts      Purpose = "hosts"      // machines that run the agent
	Identities Purpose = "identities" // managed identities, one per (identity, hosting resource, host)
	Databases  Purpose = "databases"  // clients of PostgreSQL servers, one per (identity, server)
	Documents  Purpose = "documents"  // what a host signs on behalf of a VM, one per (VM, host)
)

// Config says what the authorities need. All but Now are required.
type Config struct {
	DB     *store.DB
	Seal   *seal.Key
	Domain string           // names are constrained to it, localhost and loopback
	Now    func() time.Time // nil means time.Now
}

func (c *Config) check() error {
	switch {
	case c.DB == nil:
		return errors.New("ca: Config needs DB")
	case c.Seal == nil:
		return errors.New("ca: Config needs Seal")
	case c.Domain == "":
		return errors.New("ca: Config needs Domain")
	}
	c.Domain = strings.ToLower(c.Domain)
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// Authorities are the platform's CAs.
type Authorities struct {
	now func() time.Time
	of  map[Purpose]*authority
}

// An authority is one CA, ready to sign.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool // cert alone
}

// A row is an authority as it is stored.
type row struct {
	Certificate []byte `json:"certificate"` // DER
	Key         []byte `json:"key"`         // PKCS #8, sealed
}

const rows store.Table[row] = "ca/authorities/" // purpose

// place is the associated data of a sealed key: where it belongs.
func place(p Purpose) []byte { return []byte(string(rows) + string(p)) }

// Open reads the authorities, making those that are missing. Of several
// programs that open one new store, one makes them and the others read them.
func Open(ctx context.Context, c Config) (*Authorities, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	var of map[Purpose]*authority
	_, err := c.DB.Update(ctx, func(tx store.Tx) error {
		of = map[Purpose]*authority{}
		for _, p := range []Purpose{Servers, Hosts, Identities, Databases, Documents} {
			a, err := readOrMake(tx, c, p)
			if err != nil {
				return fmt.Errorf("authority for %s: %w", p, err)
			}
			of[p] = a
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &Authorities{now: c.Now, of: of}, nil
}

func readOrMake(tx store.Tx, c Config, p Purpose) (*authority, error) {
	r, ok, err := rows.Get(tx, string(p))
	if err != nil {
		return nil, err
	}
	if ok {
		return unsealed(r, c, p)
	}
	a, err := newAuthority(p, c.Domain, c.Now())
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return a, rows.Put(tx, string(p), row{Certificate: a.cert.Raw, Key: c.Seal.Seal(pkcs8, place(p))})
}

func unsealed(r row, c Config, p Purpose) (*authority, error) {
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, fmt.Errorf("stored certificate: %w", err)
	}
	pkcs8, err := c.Seal.Open(r.Key, place(p))
	if err != nil {
		return nil, fmt.Errorf("stored key: %w", err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("stored key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the stored key is not that of the stored certificate")
	}
	return ready(cert, key), nil
}

func ready(cert *x509.Certificate, key *ecdsa.PrivateKey) *authority {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

// Certificate is the authority's own.
func (a *Authorities) Certificate(p Purpose) *x509.Certificate { return a.of[p].cert }

// Pool holds the authorities of those purposes.
func (a *Authorities) Pool(purposes ...Purpose) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, p := range purposes {
		pool.AddCert(a.of[p].cert)
	}
	return pool
}

// Thumbprint is the SHA-256 of a certificate's DER, in lower-case hexadecimal.
func Thumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
