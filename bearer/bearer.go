// Package bearer is how any service checks our token and answers the 401
// challenge. It verifies as a stranger would: from discovery, over HTTP. It is
// public: a service of yours uses it as our own vault does.
//
//	verifier, err := bearer.New(bearer.Config{
//		Authority: "https://login.example.org",
//		Tenant:    "6f0d…",
//		Audiences: []string{"api://orders"},
//	})
//	…
//	http.Handle("/orders/", verifier.Require(orders, nil))
//
// and in the handler
//
//	who, ok := bearer.From(r.Context())
//
// It owns what makes a token good: signature, issuer, audience, times,
// revocation. What its bearer may do is the service's own business: a good token
// proves who is asking and permits nothing.
package bearer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"innate"
	"innate/discovery"
	"innate/feed/client"
	"innate/jwt"
)

// Config says whom to believe. Authority, Tenant and Audiences are required.
type Config struct {
	Authority   string // origin of the token service, https://login.example.org
	Tenant      innate.TenantID
	Audiences   []string            // accepted aud values, each with and without one trailing slash, host case-blind
	HTTP        *http.Client        // nil means http.DefaultClient; in process its transport calls our own mux
	Revocations *client.Revocations // nil: tokens are good until they end
	Stale       time.Duration       // refuse when Revocations is older than this; 0 means 30 s
	Code        string              // error code in the body of a 401; empty means InvalidAuthenticationToken, ARM's
	// Offline makes Verify answer at once from the keys that Fetch got: a token
	// of an unknown key is refused, and the key fetched in the background. It is
	// for where a verification holds up more than who asks for it.
	Offline bool
	Now     func() time.Time // nil means time.Now
	Log     *slog.Logger     // nil means slog.Default()
}

const (
	defaultStale = 30 * time.Second
	defaultCode  = "InvalidAuthenticationToken"
)

// skew is by how much the clock of whoever issued a token may differ from ours.
const skew = time.Minute

// A Verifier checks access tokens.
type Verifier struct {
	config     Config
	audiences  map[string]bool            // in the form that compares
	issuers    [2]string                  // of v1 and of v2 tokens
	keys       map[string]*discovery.Keys // by issuer
	remembered memory
}

// New checks c; keys are fetched when first needed.
func New(c Config) (*Verifier, error) {
	authority, err := origin(c.Authority)
	if err != nil {
		return nil, fmt.Errorf("bearer: Config.Authority: %w", err)
	}
	tenant, err := innate.ParseGUID(string(c.Tenant))
	if err != nil {
		return nil, fmt.Errorf("bearer: Config.Tenant: %w", err)
	}
	if len(c.Audiences) == 0 {
		return nil, errors.New("bearer: Config needs Audiences")
	}
	c.Authority, c.Tenant = authority, innate.TenantID(tenant)
	if c.HTTP == nil {
		c.HTTP = http.DefaultClient
	}
	if c.Stale == 0 {
		c.Stale = defaultStale
	}
	if c.Code == "" {
		c.Code = defaultCode
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	v := &Verifier{
		config:  c,
		issuers: [2]string{authority + "/" + tenant + "/", authority + "/" + tenant + "/v2.0"},
	}
	v.accept()
	if v.keys, err = newKeys(c, v.issuers); err != nil {
		return nil, err
	}
	return v, nil
}

// accept brings the audiences into the form that compares.
func (v *Verifier) accept() {
	v.audiences = map[string]bool{}
	for _, a := range v.config.Audiences {
		v.audiences[canonical(a)] = true
	}
}

// origin checks that s is an https origin and returns it without a trailing slash.
func origin(s string) (string, error) {
	s = strings.TrimSuffix(s, "/")
	u, err := url.Parse(s)
	if err != nil {
		return "", err
	}
	if u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != s {
		return "", fmt.Errorf("%q: want an origin such as https://login.example.org", s)
	}
	return s, nil
}

// canonical is an audience without one trailing slash and, where it is a URL,
// with its host in lower case (managed-identity-endpoints §5.1).
func canonical(audience string) string {
	audience = strings.TrimSuffix(audience, "/")
	scheme, rest, ok := strings.Cut(audience, "://")
	if !ok {
		return strings.ToLower(audience) // a GUID
	}
	host, _, _ := strings.Cut(rest, "/")
	return strings.ToLower(scheme+"://"+host) + rest[len(host):]
}

// An Error says why a token was refused, in words its bearer may read.
type Error struct {
	Fault  Fault  // what was wrong, in one word
	Code   string // RFC 6750 §3.1: invalid_token; insufficient_claims; temporarily_unavailable when keys or revocations cannot be had
	Text   string
	Claims string // JSON to ask the token service with; only where Code is insufficient_claims
	Cause  error
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Cause }

// A Fault says in a fixed word what was wrong with a token: nothing of the token
// is in it, so that it may stand where a token's own words must not.
type Fault string

// The faults.
const (
	Malformed     Fault = "malformed"      // no access token of this platform
	OtherIssuer   Fault = "other-issuer"   // or of another tenant
	OtherAudience Fault = "other-audience" // meant for another service
	UnknownKey    Fault = "unknown-key"    // signed by a key that its issuer does not publish
	BadSignature  Fault = "bad-signature"
	Expired       Fault = "expired"
	NotYetGood    Fault = "not-yet-good"
	Revoked       Fault = "revoked"
	Unavailable   Fault = "unavailable" // keys or revocations cannot be had: nothing is wrong with the token
)

const (
	invalidToken           = "invalid_token"
	insufficientClaims     = "insufficient_claims"
	temporarilyUnavailable = "temporarily_unavailable"
)

func invalid(fault Fault, format string, args ...any) *Error {
	return &Error{Fault: fault, Code: invalidToken, Text: fmt.Sprintf(format, args...)}
}

// Verify checks signature, issuer (v1 and v2), audience, times and revocation;
// its error is an *Error. A verified token is remembered until it ends or is
// revoked; its Claims are shared and must not be changed.
func (v *Verifier) Verify(ctx context.Context, token string) (*Claims, error) {
	sum := sha256.Sum256([]byte(token))
	known, ok := v.remembered.get(sum)
	if !ok {
		var err error
		if known, err = v.prove(ctx, token); err != nil {
			return nil, err
		}
	}
	// Times and revocations are looked at each time: what was good may be no longer.
	if err := v.current(known); err != nil {
		return nil, err
	}
	if !ok {
		v.remembered.put(sum, known, v.config.Now())
	}
	return &known.Claims, nil
}

// prove checks all of a token that time cannot change.
func (v *Verifier) prove(ctx context.Context, token string) (*proved, error) {
	t, err := jwt.Parse(token, jwt.RS256, jwt.ES256)
	if err != nil {
		return nil, &Error{Fault: Malformed, Code: invalidToken, Text: "this is not an access token of this platform: " + plain(err.Error()), Cause: err}
	}
	// Somebody else's token must not make us fetch keys.
	issuer, err := v.issuerOf(t.Unverified())
	if err != nil {
		return nil, err
	}
	key, err := v.key(ctx, issuer, t)
	if err != nil {
		return nil, err
	}
	payload, err := t.Verify(key.Public)
	if err != nil {
		return nil, &Error{Fault: BadSignature, Code: invalidToken, Text: "the token's signature is not that of the key it names", Cause: err}
	}
	return v.read(payload, t.KeyID)
}

// current checks what of a proved token may have changed since.
func (v *Verifier) current(p *proved) error {
	now := v.config.Now()
	if !now.Before(p.Expires.Add(skew)) {
		return invalid(Expired, "the token ended at %s; ask for another", p.Expires.UTC().Format(time.RFC3339))
	}
	if now.Before(p.NotBefore.Add(-skew)) || now.Before(p.Principal.IssuedAt.Add(-skew)) {
		return invalid(NotYetGood, "the token is good from %s only; is this machine's clock right?", p.NotBefore.UTC().Format(time.RFC3339))
	}
	revocations := v.config.Revocations
	if revocations == nil {
		return nil
	}
	if why, revoked := revocations.Revoked(p.claim); revoked {
		return p.revoked(why, now)
	}
	if age := revocations.Age(); age > v.config.Stale {
		return &Error{
			Fault: Unavailable, Code: temporarilyUnavailable,
			Text:  "this service has not heard for too long which tokens are revoked, and accepts none until it has",
			Cause: fmt.Errorf("revocations are %v old", age),
		}
	}
	return nil
}

// Claims are the claims of a verified access token (managed-identity-endpoints §5).
type Claims struct {
	Principal innate.Principal
	Audience  string
	Issuer    string
	Key       string // id of the key that signed it
	NotBefore time.Time
	Expires   time.Time
	Roles     []string        // app roles granted on the audience
	Groups    []string        // object ids, where the audience wants them; none when there are more than 200: Raw says then where to ask
	Raw       json.RawMessage // the whole payload
}
