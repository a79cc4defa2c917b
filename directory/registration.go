package directory

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"time"

	"innate"
	"innate/store"
)

// A Registration is an app registration: a program that brings its own credentials.
type Registration struct {
	ID             innate.ObjectID `json:"id"` // of the application object; not a principal
	Client         innate.ClientID `json:"client"`
	Principal      innate.ObjectID `json:"principal"` // its service principal
	Name           string          `json:"name"`
	IdentifierURIs []string        `json:"identifierUris,omitempty"` // audiences it answers to
	TokenVersion   int             `json:"tokenVersion,omitempty"`   // requestedAccessTokenVersion: 0 or 1 means v1
	SigningAlg     string          `json:"signingAlg,omitempty"`     // of tokens for it: "" means RS256, or ES256
	AppRoles       []AppRole       `json:"appRoles,omitempty"`
	RoleRequired   bool            `json:"roleRequired,omitempty"`   // appRoleAssignmentRequired: no token for it without one
	GroupClaims    string          `json:"groupClaims,omitempty"`    // groupMembershipClaims: "" means none, or SecurityGroup, All: tokens for it have groups
	OptionalClaims []string        `json:"optionalClaims,omitempty"` // of access tokens for it: xms_cc
	OneTime        bool            `json:"oneTime,omitempty"`        // an assertion of its own is taken once: its jti may not come again
	Secrets        []Secret        `json:"secrets,omitempty"`
	Certificates   []Certificate   `json:"certificates,omitempty"`
	Created        time.Time       `json:"created"`
}

// A Secret is a password of an app registration; what was shown once is kept as a keyed hash.
type Secret struct {
	KeyID string    `json:"keyId"`
	Name  string    `json:"name,omitempty"`
	Hint  string    `json:"hint"` // first three characters
	Hash  []byte    `json:"hash"` // SHA-256 over the registration's client id, a NUL and the secret (256 random bits: no slow hash needed)
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// Matches compares in constant time. ok says that secret is this one and good
// at now; expired that it is this one and its time has passed.
func (s Secret) Matches(client innate.ClientID, secret string, now time.Time) (ok, expired bool) {
	same := subtle.ConstantTimeCompare(s.Hash, secretHash(client, secret)) == 1
	past := !now.Before(s.End)
	return same && !past && !now.Before(s.Start), same && past
}

func secretHash(client innate.ClientID, secret string) []byte {
	sum := sha256.Sum256([]byte(string(client) + "\x00" + secret))
	return sum[:]
}

// A Certificate is a public credential of an app registration.
type Certificate struct {
	KeyID string    `json:"keyId"`
	Name  string    `json:"name,omitempty"`
	DER   []byte    `json:"der"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

const (
	registrations store.Table[Registration]    = "directory/registrations/" // client id
	uris          store.Table[innate.ClientID] = "directory/uris/"          // identifier URI as URIKey spells it
)

// maxCredentials bounds the secrets, and the certificates, of one registration.
const maxCredentials = 50

// CreateRegistration makes an app registration and its service principal.
func CreateRegistration(tx store.Tx, r Registration, now time.Time) (Registration, Object, error) {
	r.ID, r.Created = innate.ObjectID(innate.NewGUID()), now.UTC()
	if r.Client == "" {
		r.Client = innate.ClientID(innate.NewGUID())
	}
	if _, ok, err := registrations.Get(tx, string(r.Client)); err != nil {
		return Registration{}, Object{}, err
	} else if ok {
		return Registration{}, Object{}, taken("Another application has the appId '%s'.", r.Client)
	}
	o, err := create(tx, Object{Kind: Application, Name: r.Name, Client: r.Client}, now)
	if err != nil {
		return Registration{}, Object{}, err
	}
	r.Principal = o.ID
	if err := claimURIs(tx, r.Client, nil, r.IdentifierURIs); err != nil {
		return Registration{}, Object{}, err
	}
	if err := claimAppRoles(tx, r.Principal, nil, r.AppRoles); err != nil {
		return Registration{}, Object{}, err
	}
	return r, o, registrations.Put(tx, string(r.Client), r)
}

// editRegistration changes a registration and keeps in step its service
// principal's name, its claim to its URIs and the assignments to its app roles.
func editRegistration(tx store.Tx, client innate.ClientID, edit func(*Registration) error) error {
	old, ok, err := registrations.Get(tx, string(client))
	if err != nil {
		return err
	}
	if !ok {
		return notFound(client)
	}
	now := old
	if err := edit(&now); err != nil {
		return err
	}
	if now.Name != old.Name {
		if err := rename(tx, now.Principal, now.Name); err != nil {
			return err
		}
	}
	if err := claimURIs(tx, client, old.IdentifierURIs, now.IdentifierURIs); err != nil {
		return err
	}
	if err := claimAppRoles(tx, now.Principal, old.AppRoles, now.AppRoles); err != nil {
		return err
	}
	return registrations.Put(tx, string(client), now)
}

func rename(tx store.Tx, id innate.ObjectID, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	o, err := find(tx, id)
	if err != nil {
		return err
	}
	o.Name = name
	return objects.Put(tx, string(id), o)
}

func dropRegistration(tx store.Tx, client innate.ClientID) error {
	r, ok, err := registrations.Get(tx, string(client))
	if err != nil || !ok {
		return err
	}
	registrations.Delete(tx, string(client))
	return claimURIs(tx, client, r.IdentifierURIs, nil)
}

// AddSecret makes a secret for a registration and returns it; it is shown this once.
func AddSecret(tx store.Tx, client innate.ClientID, name string, start, end time.Time) (Secret, string, error) {
	if !start.Before(end) {
		return Secret{}, "", bad("The credential ends at %s, before it starts at %s.", end.Format(time.RFC3339), start.Format(time.RFC3339))
	}
	if name != "" {
		if err := checkName(name); err != nil {
			return Secret{}, "", err
		}
	}
	value := newSecret()
	s := Secret{
		KeyID: innate.NewGUID(), Name: name, Hint: value[:3], Hash: secretHash(client, value),
		Start: start.UTC(), End: end.UTC(),
	}
	err := editRegistration(tx, client, func(r *Registration) error {
		if len(r.Secrets) >= maxCredentials {
			return bad("The application has %d secrets: remove one first.", maxCredentials)
		}
		r.Secrets = append(r.Secrets, s)
		return nil
	})
	if err != nil {
		return Secret{}, "", err
	}
	return s, value, nil
}

// AddCertificate registers a certificate (DER). One that is there already is returned as it is.
func AddCertificate(tx store.Tx, client innate.ClientID, der []byte, name string) (Certificate, error) {
	c, err := newCertificate(der, name)
	if err != nil {
		return Certificate{}, err
	}
	err = editRegistration(tx, client, func(r *Registration) error {
		for _, have := range r.Certificates {
			if bytes.Equal(have.DER, der) {
				c = have
				return nil
			}
		}
		if len(r.Certificates) >= maxCredentials {
			return bad("The application has %d certificates: remove one first.", maxCredentials)
		}
		r.Certificates = append(r.Certificates, c)
		return nil
	})
	return c, err
}

// Bounds for the RSA key of a certificate, in bits. A signature of a larger one
// takes long to check, and it is strangers who send signatures.
const (
	minRSA = 2048
	maxRSA = 8192
)

func newCertificate(der []byte, name string) (Certificate, error) {
	if name != "" {
		if err := checkName(name); err != nil {
			return Certificate{}, err
		}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Certificate{}, bad("The key is no X.509 certificate in DER: %s", err)
	}
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return Certificate{}, bad("The certificate has an RSA key of %d bits: want %d to %d.", bits, minRSA, maxRSA)
		}
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return Certificate{}, bad("The certificate has an ECDSA key on %s: want P-256, since assertions are signed by ES256.", key.Params().Name)
		}
	default:
		return Certificate{}, bad("The certificate has a key of type %s: want RSA or ECDSA.", c.PublicKeyAlgorithm)
	}
	return Certificate{KeyID: innate.NewGUID(), Name: name, DER: der, Start: c.NotBefore.UTC(), End: c.NotAfter.UTC()}, nil
}

// newSecret returns 256 random bits as base64url. It does not begin with a hyphen:
// command lines take such a value for an option, az's among them.
func newSecret() string {
	for {
		var random [32]byte
		rand.Read(random[:]) // never fails, see crypto/rand
		if value := base64.RawURLEncoding.EncodeToString(random[:]); value[0] != '-' {
			return value
		}
	}
}
