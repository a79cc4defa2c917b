// Package innate is the vocabulary of the platform: who (TenantID, ObjectID,
// ClientID, Principal), what (ResourceID, Scope) and how surely (Assurance).
//
// It owns the spelling of these words and the rules for comparing them, and
// does no I/O. GUIDs are lower-case; resource ids keep the case of their first
// writer and are compared without regard to it (contracts: control-plane T5).
package innate

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A TenantID is the GUID of a directory.
type TenantID string

// An ObjectID is the GUID of a directory object: a user, group or service principal.
type ObjectID string

// A ClientID is the GUID under which a principal asks for tokens (appId).
type ClientID string

// NewGUID returns a random (version 4) GUID in lower case.
func NewGUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:36], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return string(out[:])
}

// ParseGUID returns s in canonical form: 8-4-4-4-12 hexadecimal digits, lower case.
func ParseGUID(s string) (string, error) {
	if len(s) != 36 {
		return "", fmt.Errorf("%q is not a GUID: want 36 characters, found %d", clip(s), len(s))
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return "", fmt.Errorf("%q is not a GUID: want a hyphen at position %d", s, i+1)
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f', c >= 'A' && c <= 'F':
		default:
			return "", fmt.Errorf("%q is not a GUID: %q at position %d is no hexadecimal digit", s, c, i+1)
		}
	}
	return strings.ToLower(s), nil
}

// An Assurance says how surely a caller was recognised; a higher value is a
// stronger proof (contracts: host-attestation §0, §11).
type Assurance uint8

// From the weakest to the strongest.
const (
	Unproved   Assurance = iota // nothing is known about the caller
	SecretOnly                  // it knew the secret; any process of that uid may
	UID                         // the kernel named its uid, which is the workload's own
	CgroupUID                   // the kernel named its cgroup and its uid
	NetNS                       // it sits in the workload's own network namespace
	Device                      // it came in by the workload's own network device
)

var assurances = [...]string{"none", "secret-only", "uid", "cgroup+uid", "netns", "device"}

func (a Assurance) String() string {
	if int(a) < len(assurances) {
		return assurances[a]
	}
	return fmt.Sprintf("assurance(%d)", uint8(a))
}

// ParseAssurance is the inverse of String.
func ParseAssurance(s string) (Assurance, error) {
	for i, name := range assurances {
		if s == name {
			return Assurance(i), nil
		}
	}
	return Unproved, fmt.Errorf("unknown assurance %q: want one of %s", clip(s), strings.Join(assurances[1:], ", "))
}

// MarshalText writes the word for a.
func (a Assurance) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads the word for an assurance.
func (a *Assurance) UnmarshalText(b []byte) (err error) {
	*a, err = ParseAssurance(string(b))
	return err
}

// A Principal is whoever is asking: proved by a token, or by the kernel on the
// administrators' socket. The zero value is nobody.
type Principal struct {
	Tenant TenantID
	Object ObjectID // the directory object; role assignments name it
	Client ClientID // empty for users
	Name   string   // for people to read; never decides anything

	// What the token says about where its bearer runs; empty for whoever has no host.
	Hosting   ResourceID // the VM or app that asked (xms_az_rid)
	Host      ResourceID // the machine it ran on
	Assurance Assurance

	Token    string    // the token's uti; empty on the administrators' socket
	IssuedAt time.Time // the token's iat
	Expires  time.Time // the token's exp; zero on the administrators' socket
}

// A Selector says which of a workload's identities is meant. At most one field
// is set; the zero value means the default identity.
type Selector struct {
	Client   ClientID
	Object   ObjectID
	Resource ResourceID
	System   bool // the system-assigned identity and no other
}

// What a source of tokens answers when a Selector names nothing it can use.
// Unknown, deleted and attached elsewhere are one answer: there is no oracle.
var (
	ErrNoIdentity     = errors.New("no such identity on this resource")
	ErrManyIdentities = errors.New("several user-assigned identities and no system-assigned one: say which")
)

// A Token is an access token as the host agent hands it out. Value never
// reaches a log, an error or a page.
type Token struct {
	Value     string // compact JWS
	Client    ClientID
	Object    ObjectID
	Resource  string // the audience exactly as it was asked for
	NotBefore time.Time
	Expires   time.Time
}

// A Refusal is a "no" that the caller may read; Cause never leaves our log.
// Every token endpoint, the agent's two among them, renders it in its own shape.
type Refusal struct {
	Status     int           // HTTP status
	OAuth      string        // RFC 6749 §5.2 error, such as invalid_client
	Code       int           // the AADSTS number that people and SDKs look for; 0 means none
	Text       string        // what was wrong and what to do
	RetryAfter time.Duration // 0 means do not say
	Trace      string        // the token service's trace id, if it made the decision
	Cause      error
}

func (r *Refusal) Error() string {
	text := r.Text
	if r.Code != 0 {
		text = fmt.Sprintf("AADSTS%d: %s", r.Code, text)
	}
	return text
}

func (r *Refusal) Unwrap() error { return r.Cause }

// clip shortens outside input for an error message.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
