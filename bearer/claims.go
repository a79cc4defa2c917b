package bearer

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"innate"
	"innate/feed/client"
)

// A proved token is one whose signature and words are right; whether it is
// good now is another question.
type proved struct {
	Claims
	claim      client.Claim // what may have been revoked since
	challenges bool         // its client understands claims challenges
}

// A payload is a token's claims on the wire (managed-identity-endpoints §5).
type payload struct {
	Audience  string   `json:"aud"`
	Issuer    string   `json:"iss"`
	IssuedAt  int64    `json:"iat"`
	Moment    int64    `json:"innate_iat"` // iat in milliseconds
	NotBefore int64    `json:"nbf"`
	Expires   int64    `json:"exp"`
	Version   string   `json:"ver"`
	Tenant    string   `json:"tid"`
	Kind      string   `json:"idtyp"`
	Object    string   `json:"oid"`
	Subject   string   `json:"sub"`
	Client    string   `json:"appid"` // v1
	Party     string   `json:"azp"`   // v2
	Token     string   `json:"uti"`
	Roles     []string `json:"roles"`
	Groups    []string `json:"groups"`
	Identity  string   `json:"xms_mirid"`
	Hosting   string   `json:"xms_az_rid"`
	Host      string   `json:"innate_host"`
	Assurance string   `json:"innate_assurance"`
	Abilities []string `json:"xms_cc"`
}

// issuerOf is the issuer of a token that is not yet verified: one of ours.
func (v *Verifier) issuerOf(unverified json.RawMessage) (string, error) {
	var p struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(unverified, &p); err != nil {
		return "", &Error{Fault: Malformed, Code: invalidToken, Text: "the token's issuer cannot be read", Cause: err}
	}
	if !slices.Contains(v.issuers[:], p.Issuer) {
		return "", invalid(OtherIssuer, "the token is of issuer %s; this service believes %s", quote(p.Issuer), v.issuers[1])
	}
	return p.Issuer, nil
}

// read makes Claims of a verified payload.
func (v *Verifier) read(raw json.RawMessage, kid string) (*proved, error) {
	var p payload
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, &Error{Fault: Malformed, Code: invalidToken, Text: "the token's claims cannot be read", Cause: err}
	}
	if err := v.check(p); err != nil {
		return nil, err
	}
	who, err := p.principal()
	if err != nil {
		return nil, &Error{Fault: Malformed, Code: invalidToken, Text: "the token's claims cannot be read", Cause: err}
	}
	return &proved{
		Claims: Claims{
			Principal: who, Audience: p.Audience, Issuer: p.Issuer, Key: kid,
			NotBefore: time.Unix(p.NotBefore, 0), Expires: time.Unix(p.Expires, 0),
			Roles: p.Roles, Groups: p.Groups, Raw: raw,
		},
		claim: client.Claim{
			Object: who.Object, Hosting: who.Hosting, Host: who.Host,
			Token: who.Token, Key: kid, IssuedAt: who.IssuedAt,
		},
		challenges: slices.ContainsFunc(p.Abilities, func(a string) bool { return strings.EqualFold(a, "cp1") }),
	}, nil
}

func (v *Verifier) check(p payload) error {
	wantVersion := "1.0"
	if p.Issuer == v.issuers[1] {
		wantVersion = "2.0"
	}
	switch {
	case p.Version != wantVersion:
		return invalid(Malformed, "the token is of version %s and its issuer of version %s", quote(p.Version), wantVersion)
	case !v.audiences[canonical(p.Audience)]:
		return invalid(OtherAudience, "the token is for %s; this service accepts %s", quote(p.Audience), strings.Join(v.config.Audiences, ", "))
	case !strings.EqualFold(p.Tenant, string(v.config.Tenant)):
		return invalid(OtherIssuer, "the token is of tenant %s; this service is of tenant %s", quote(p.Tenant), v.config.Tenant)
	case p.Kind != "app" || p.Object == "" || p.Subject != p.Object:
		return invalid(Malformed, "the token is not that of a service principal (idtyp app, sub the same as oid)")
	case p.IssuedAt == 0 || p.Expires == 0:
		return invalid(Malformed, "the token does not say when it was issued and when it ends")
	}
	return nil
}

// principal is who the token names. An id that is none is an error: it is
// looked up by, here and in revocations.
func (p payload) principal() (who innate.Principal, err error) {
	object, err := innate.ParseGUID(p.Object)
	if err != nil {
		return who, err
	}
	app, err := innate.ParseGUID(p.app())
	if err != nil {
		return who, err
	}
	hosting, err1 := optional(p.Hosting)
	host, err2 := optional(p.Host)
	assurance, err3 := p.assurance()
	if err := errors.Join(err1, err2, err3); err != nil {
		return who, err
	}
	return innate.Principal{
		Tenant: innate.TenantID(strings.ToLower(p.Tenant)), Object: innate.ObjectID(object), Client: innate.ClientID(app),
		Name: p.name(), Hosting: hosting, Host: host, Assurance: assurance,
		Token: p.Token, IssuedAt: p.issued(), Expires: time.Unix(p.Expires, 0),
	}, nil
}

// issued is when the token was issued, as finely as it says.
func (p payload) issued() time.Time {
	if p.Moment/1000 == p.IssuedAt {
		return time.UnixMilli(p.Moment)
	}
	return time.Unix(p.IssuedAt, 0)
}

func (p payload) app() string {
	if p.Client != "" {
		return p.Client
	}
	return p.Party
}

// name is that of a managed identity's resource, else the client id.
func (p payload) name() string {
	if name := innate.ResourceID(p.Identity).Name(); name != "" {
		return name
	}
	return p.app()
}

func (p payload) assurance() (innate.Assurance, error) {
	if p.Assurance == "" {
		return innate.Unproved, nil
	}
	return innate.ParseAssurance(p.Assurance)
}

func optional(id string) (innate.ResourceID, error) {
	if id == "" {
		return "", nil
	}
	return innate.ParseResourceID(id)
}

// quote is what a token says, fit for a header and a log: short and ASCII.
func quote(s string) string {
	if len(s) > 200 {
		s = s[:200] + "..."
	}
	return strconv.QuoteToASCII(s)
}

// plain is an error's text, fit for a header.
func plain(s string) string {
	q := quote(s)
	return q[1 : len(q)-1]
}
