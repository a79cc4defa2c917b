package tokens

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"innate/directory"
	"innate/jwt"
)

const (
	clockSkew        = 5 * time.Minute // forgiven to an assertion's clock
	longestAssertion = 24 * time.Hour
)

// byAssertion proves a client by a JWT: an application by one that it has signed
// itself with a registered certificate (RFC 7523 §2.2, managed-identity-endpoints
// §4.4), or whoever has a federated credential by another issuer's. What tells
// them apart is whether iss is the client id.
func (s *Service) byAssertion(ctx context.Context, q *request) (caller, error) {
	q.credential = "client assertion"
	a, err := q.read()
	if err != nil {
		return caller{}, err
	}
	if !strings.EqualFold(a.issuer, string(q.client)) {
		return s.byFederation(ctx, q, a)
	}
	object, r, err := s.application(q)
	if err != nil {
		return caller{}, err
	}
	if err := s.checkOwn(q, a, r); err != nil {
		return caller{}, err
	}
	if r.OneTime {
		if err := s.spend(ctx, q, a); err != nil {
			return caller{}, err
		}
	}
	return caller{object: object, acr: acrKey}, nil
}

// checkOwn checks an assertion that r has signed itself. It may come again,
// unless r is to be stricter: MSAL for Node and for Python keep one for ten minutes.
func (s *Service) checkOwn(q *request, a *assertion, r directory.Registration) error {
	if len(a.audience) != 1 {
		return notAJWT(errors.New("its aud is not one string"))
	}
	if !strings.EqualFold(a.subject, string(q.client)) {
		return refusal(http.StatusBadRequest, "invalid_request", 700021,
			"The subject of the client assertion is %s: want the client id %s, as iss has it", shown(a.subject), q.client)
	}
	if err := s.signedByRegistered(q, a.token, r); err != nil {
		return err
	}
	if !s.assertable[strings.ToLower(a.audience[0])] {
		return unproved(700023, "The audience of the client assertion is %s: want %s/%s/oauth2/v2.0/token", shown(a.audience[0]), s.config.Login, s.config.Tenant)
	}
	if err := a.checkTimes(q.now); err != nil {
		return err
	}
	if life := a.expires.Sub(a.begins(q.now)); life > longestAssertion {
		return settled{unproved(700024, "The client assertion is good for %s: want at most %s", life, longestAssertion)}
	}
	return nil
}

// read is the client assertion, which is read once however often it is looked at.
func (q *request) read() (*assertion, error) {
	if q.presented == nil {
		a, err := readAssertion(q.assertion)
		if err != nil {
			return nil, notAJWT(err)
		}
		q.presented = a
	}
	return q.presented, nil
}

func notAJWT(err error) error {
	return settled{refusal(http.StatusBadRequest, "invalid_request", 50027, "The client assertion is not a valid JWT: %v", err)}
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

// An assertion is what a client, or an issuer for it, says in a JWT.
type assertion struct {
	token              *jwt.Token
	claims             map[string]json.RawMessage // by their exact names
	issuer, subject    string
	audience           []string  // at least one
	notBefore, expires time.Time // notBefore is zero when not said

	// What need not be found again at a second look.
	signed bool   // by a key of its issuer
	keys   string // whether that issuer's keys could be had, for an Explanation
	spent  bool   // its jti is kept
}

// readAssertion reads an assertion, unverified. Members are read by their exact
// names, since the decoder of a struct would take Sub for sub.
func readAssertion(compact string) (*assertion, error) {
	token, err := jwt.Parse(compact, jwt.PS256, jwt.RS256, jwt.ES256)
	if err != nil {
		return nil, err
	}
	a := &assertion{token: token, claims: token.Members()}
	for _, one := range []struct {
		name string
		to   *string
	}{{"iss", &a.issuer}, {"sub", &a.subject}} {
		if *one.to, _ = jwt.Text(a.claims[one.name]); *one.to == "" {
			return nil, fmt.Errorf("its %s is not a string", one.name)
		}
	}
	if a.audience, err = audiences(a.claims["aud"]); err != nil {
		return nil, err
	}
	if a.expires, err = date(a.claims["exp"]); err != nil {
		return nil, fmt.Errorf("its exp %w", err)
	}
	for _, name := range []string{"nbf", "iat"} {
		if raw, ok := a.claims[name]; ok && a.notBefore.IsZero() {
			if a.notBefore, err = date(raw); err != nil {
				return nil, fmt.Errorf("its %s %w", name, err)
			}
		}
	}
	return a, nil
}

// audiences reads aud, a string or an array of strings (RFC 7519 §4.1.3).
func audiences(raw json.RawMessage) ([]string, error) {
	if one, _ := jwt.Text(raw); one != "" {
		return []string{one}, nil
	}
	var several []*string
	if json.Unmarshal(raw, &several) != nil || len(several) == 0 {
		return nil, errors.New("its aud is neither a string nor an array of strings")
	}
	var all []string
	for _, one := range several {
		if one == nil || *one == "" {
			return nil, errors.New("its aud is not an array of strings")
		}
		all = append(all, *one)
	}
	return all, nil
}

// date reads seconds since 1970, as a number or, as .NET writes them, a string.
func date(raw json.RawMessage) (time.Time, error) {
	if s, ok := jwt.Text(raw); ok {
		raw = json.RawMessage(s)
	}
	if whole, err := strconv.ParseUint(string(raw), 10, 32); err == nil { // as nearly all write it
		return time.Unix(int64(whole), 0), nil
	}
	var seconds *float64
	const farOff = 1 << 40 // some 35 000 years
	if json.Unmarshal(raw, &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > farOff {
		return time.Time{}, errors.New("is not a time in seconds since 1970")
	}
	return time.Unix(int64(*seconds), 0), nil
}

// begins is from when on a is good; when it does not say, that is now.
func (a *assertion) begins(now time.Time) time.Time {
	if a.notBefore.IsZero() {
		return now
	}
	return a.notBefore
}

// checkTimes checks that a has begun and has not ended. How long it is good in
// all is bounded for an application's own alone: another issuer decides that
// itself, and the tokens of some Kubernetes clusters are good for a year.
func (a *assertion) checkTimes(now time.Time) error {
	var wrong string
	switch begins := a.begins(now); {
	case now.Before(begins.Add(-clockSkew)):
		wrong = "it begins at " + begins.UTC().Format(time.RFC3339)
	case now.After(a.expires.Add(clockSkew)):
		wrong = "it ended at " + a.expires.UTC().Format(time.RFC3339)
	default:
		return nil
	}
	return settled{unproved(700024, "The client assertion is not within its valid time range: %s and it is %s. Is the clock right where it was made?",
		wrong, now.UTC().Format(time.RFC3339))}
}

// signedByRegistered checks the signature with the registered certificate that
// the header names. The header's own x5c is not looked at: anybody can put one there.
func (s *Service) signedByRegistered(q *request, token *jwt.Token, r directory.Registration) error {
	named, err := thumbprintOf(token)
	if err != nil {
		return unproved(700027, "The certificate with which the client assertion is signed cannot be told: %v", err)
	}
	for _, registered := range r.Certificates {
		known := s.certificateOf(registered.DER)
		if !named.is(known) {
			continue
		}
		if known.fault != nil {
			return fmt.Errorf("registered certificate %s of app %s: %w", registered.KeyID, r.Client, known.fault)
		}
		q.key = known.thumbprint
		cert := known.parsed
		if _, err := token.Verify(cert.PublicKey); err != nil {
			return unproved(700027, "The client assertion failed signature validation with the certificate %s: %v", named, err)
		}
		if q.now.Before(registered.Start) || q.now.After(registered.End) || q.now.Before(cert.NotBefore) || q.now.After(cert.NotAfter) {
			return unproved(7000222, "The certificate with thumbprint %s of app %s is good from %s to %s only: register a new one",
				named, r.Client, cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
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
		s, ok := jwt.Text(raw)
		if !ok {
			return nil, fmt.Errorf("its header's %s is not a string", name.header)
		}
		sum, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(urlAlphabet.Replace(s), "="))
		if err != nil || len(sum) != name.size {
			return nil, fmt.Errorf("its header's %s is not the base64 of %d bytes", name.header, name.size)
		}
		return sum, nil
	}
	return nil, errors.New("its header has neither x5t#S256 nor x5t")
}

// urlAlphabet turns base64's standard alphabet into that of URLs.
var urlAlphabet = strings.NewReplacer("+", "-", "/", "_")

// is reports whether t names c.
func (t thumbprint) is(c *certificate) bool {
	if len(t) == sha1.Size {
		return bytes.Equal(t, c.sha1[:])
	}
	return bytes.Equal(t, c.sha256[:])
}

// A certificate is a registered one with the names that a header may have for it.
type certificate struct {
	sha256     [sha256.Size]byte
	sha1       [sha1.Size]byte
	thumbprint string            // sha256 as the record has it
	parsed     *x509.Certificate // unless there is a fault in it
	fault      error
}

// maxCertificates bounds the memory for registered certificates.
const maxCertificates = 1 << 12

// certificateOf reads a registered certificate. Whether it is registered still,
// and how long it is good, is looked at in every request.
func (s *Service) certificateOf(der []byte) *certificate {
	if c, ok := s.certificates.get(der); ok {
		return c
	}
	c := &certificate{sha256: sha256.Sum256(der), sha1: sha1.Sum(der)}
	c.thumbprint = hex.EncodeToString(c.sha256[:])
	c.parsed, c.fault = x509.ParseCertificate(der)
	s.certificates.put(der, c)
	return c
}

func (t thumbprint) String() string { return hex.EncodeToString(t) }
