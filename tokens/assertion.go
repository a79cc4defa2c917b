package tokens

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"innate/directory"
	"innate/jwt"
)

const (
	clockSkew        = 5 * time.Minute // forgiven to an assertion's clock
	longestAssertion = 24 * time.Hour
)

// byAssertion proves an application by a JWT signed with a registered
// certificate (RFC 7523 §2.2, managed-identity-endpoints §4.4). An assertion
// may come again: MSAL for Node and for Python keep one for ten minutes.
func (s *Service) byAssertion(q *request) (caller, error) {
	q.credential = "client assertion"
	object, r, err := s.application(q)
	if err != nil {
		return caller{}, err
	}
	token, a, err := readAssertion(q.assertion)
	if err != nil {
		return caller{}, refusal(http.StatusBadRequest, "invalid_request", 50027, "The client assertion is not a valid JWT: %v", err)
	}
	client := string(q.client)
	if !strings.EqualFold(a.issuer, client) {
		return caller{}, unproved(700211, "The issuer of the client assertion is %s, and app %s has no federated credential for that issuer. With a certificate of its own, iss and sub are the client id", shown(a.issuer), client)
	}
	if !strings.EqualFold(a.subject, client) {
		return caller{}, refusal(http.StatusBadRequest, "invalid_request", 700021,
			"The subject of the client assertion is %s: want the client id %s, as iss has it", shown(a.subject), client)
	}
	if err := signedByRegistered(q, token, r); err != nil {
		return caller{}, err
	}
	if !s.assertable[strings.ToLower(a.audience)] {
		return caller{}, unproved(700023, "The audience of the client assertion is %s: want %s/%s/oauth2/v2.0/token", shown(a.audience), s.config.Login, s.config.Tenant)
	}
	if err := a.checkTimes(q.now); err != nil {
		return caller{}, unproved(700024, "The client assertion is not within its valid time range: %v", err)
	}
	return caller{object: object, acr: acrKey}, nil
}

// assertionAudiences are the values of aud by which an assertion is for us: the
// token endpoints and issuers of the tenant under each of its names.
func assertionAudiences(c Config) map[string]bool {
	all := map[string]bool{}
	for _, tenant := range []string{string(c.Tenant), c.Domain, adfs} {
		for _, path := range []string{"/oauth2/v2.0/token", "/oauth2/token", "/v2.0", "/"} {
			all[strings.ToLower(c.Login+"/"+tenant+path)] = true
		}
	}
	return all
}

// An assertion is what a client says of itself in a JWT.
type assertion struct {
	issuer, subject, audience string
	notBefore, expires        time.Time // notBefore is zero when not said
}

// readAssertion reads an assertion, unverified. Members are read by their exact
// names, since the decoder of a struct would take Sub for sub.
func readAssertion(compact string) (*jwt.Token, assertion, error) {
	token, err := jwt.Parse(compact, jwt.PS256, jwt.RS256, jwt.ES256)
	if err != nil {
		return nil, assertion{}, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(token.Unverified(), &members); err != nil {
		return nil, assertion{}, errors.New("its claims are not a JSON object")
	}
	var a assertion
	if a.issuer, err = text(members, "iss"); err != nil {
		return nil, assertion{}, err
	}
	if a.subject, err = text(members, "sub"); err != nil {
		return nil, assertion{}, err
	}
	if a.audience, err = text(members, "aud"); err != nil {
		return nil, assertion{}, err
	}
	if a.expires, err = date(members["exp"]); err != nil {
		return nil, assertion{}, fmt.Errorf("its exp %w", err)
	}
	for _, name := range []string{"nbf", "iat"} {
		if raw, ok := members[name]; ok && a.notBefore.IsZero() {
			if a.notBefore, err = date(raw); err != nil {
				return nil, assertion{}, fmt.Errorf("its %s %w", name, err)
			}
		}
	}
	return token, a, nil
}

// text reads a member that is a string, or an array of one.
func text(members map[string]json.RawMessage, name string) (string, error) {
	var one string
	if json.Unmarshal(members[name], &one) == nil && one != "" {
		return one, nil
	}
	var several []string
	if json.Unmarshal(members[name], &several) == nil && len(several) == 1 {
		return several[0], nil
	}
	return "", fmt.Errorf("its %s is not one string", name)
}

// date reads seconds since 1970, as a number or, as .NET writes them, a string.
func date(raw json.RawMessage) (time.Time, error) {
	if s := ""; json.Unmarshal(raw, &s) == nil {
		raw = json.RawMessage(s)
	}
	var seconds *float64
	const farOff = 1 << 40 // some 35 000 years
	if json.Unmarshal(raw, &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > farOff {
		return time.Time{}, errors.New("is not a time in seconds since 1970")
	}
	return time.Unix(int64(*seconds), 0), nil
}

func (a assertion) checkTimes(now time.Time) error {
	begins := a.notBefore
	if begins.IsZero() {
		begins = now
	}
	switch stamp := now.UTC().Format(time.RFC3339); {
	case now.Before(begins.Add(-clockSkew)):
		return fmt.Errorf("it begins at %s and it is %s. Is the client's clock right?", begins.UTC().Format(time.RFC3339), stamp)
	case now.After(a.expires.Add(clockSkew)):
		return fmt.Errorf("it ended at %s and it is %s. Is the client's clock right?", a.expires.UTC().Format(time.RFC3339), stamp)
	case a.expires.Sub(begins) > longestAssertion:
		return fmt.Errorf("it is good for %s: want at most %s", a.expires.Sub(begins), longestAssertion)
	}
	return nil
}

// signedByRegistered checks the signature with the registered certificate that
// the header names. The header's own x5c is not looked at: anybody can put one there.
func signedByRegistered(q *request, token *jwt.Token, r directory.Registration) error {
	named, err := thumbprintOf(token)
	if err != nil {
		return unproved(700027, "The certificate with which the client assertion is signed cannot be told: %v", err)
	}
	for _, registered := range r.Certificates {
		if !named.is(registered.DER) {
			continue
		}
		sum := sha256.Sum256(registered.DER)
		q.key = hex.EncodeToString(sum[:])
		cert, err := x509.ParseCertificate(registered.DER)
		if err != nil {
			return fmt.Errorf("registered certificate %s of app %s: %w", registered.KeyID, r.Client, err)
		}
		if q.now.Before(registered.Start) || q.now.After(registered.End) || q.now.Before(cert.NotBefore) || q.now.After(cert.NotAfter) {
			return unproved(7000222, "The certificate with thumbprint %s of app %s is good from %s to %s only: register a new one",
				named, r.Client, cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
		}
		if _, err := token.Verify(cert.PublicKey); err != nil {
			return unproved(700027, "The client assertion failed signature validation with the certificate %s: %v", named, err)
		}
		return nil
	}
	return unproved(700027, "The certificate with thumbprint %s with which the client assertion says it is signed is not registered on app %s", named, r.Client)
}

// A thumbprint names a certificate: by SHA-256, or SHA-1 from older clients. It
// is only a name; the signature is the proof.
type thumbprint []byte

// thumbprintOf reads x5t#S256 or x5t of the header, in any base64: MSAL for Go
// pads and uses the standard alphabet, MSAL for Node does neither.
func thumbprintOf(token *jwt.Token) (thumbprint, error) {
	for _, name := range []struct {
		header string
		size   int
	}{{"x5t#S256", sha256.Size}, {"x5t", sha1.Size}} {
		raw, ok := token.Header[name.header]
		if !ok {
			continue
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("its header's %s is not a string", name.header)
		}
		s = strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(s), "=")
		sum, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil || len(sum) != name.size {
			return nil, fmt.Errorf("its header's %s is not the base64 of %d bytes", name.header, name.size)
		}
		return sum, nil
	}
	return nil, errors.New("its header has neither x5t#S256 nor x5t")
}

func (t thumbprint) is(der []byte) bool {
	if len(t) == sha1.Size {
		sum := sha1.Sum(der)
		return bytes.Equal(t, sum[:])
	}
	sum := sha256.Sum256(der)
	return bytes.Equal(t, sum[:])
}

func (t thumbprint) String() string { return hex.EncodeToString(t) }
