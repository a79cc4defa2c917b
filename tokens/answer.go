package tokens

import (
	"encoding/json"
	"sync"
	"time"

	"innate/jsonobject"
	"innate/jwt"
)

// refreshHint is the least life of a token whose holder is told to renew it at half.
const refreshHint = 2 * time.Hour

// An answer is the body of one with a token, and the memory in which it was
// made, which serves again and again: a token takes 3 KiB of it.
type answer struct {
	body   []byte
	claims []byte // as JSON
}

var answers = sync.Pool{New: func() any { return new(answer) }}

// free gives the memory back, once the body is written.
func (a *answer) free() { answers.Put(a) }

// answer makes the answer with a token of c, which is signed where it stands in
// it (managed-identity-endpoints §4.3). The v2 endpoint says numbers; the v1
// endpoint the same as strings, and more.
func (q *request) answer(c *claims, signer *jwt.Signer) (a *answer, err error) {
	a = answers.Get().(*answer)
	if a.claims, err = c.encode(a.claims[:0]); err != nil {
		return nil, err
	}
	b := append(a.body[:0], `{"token_type":"Bearer"`...)
	left := int64(time.Unix(c.Expires, 0).Sub(q.now) / time.Second)
	if q.version == 1 {
		b = jsonobject.Digits(b, "expires_in", left)
		b = jsonobject.Digits(b, "ext_expires_in", left)
		b = jsonobject.Digits(b, "expires_on", c.Expires)
		b = jsonobject.Digits(b, "not_before", c.NotBefore)
		b = jsonobject.String(b, "resource", q.resource) // as it was asked for: some clients keep the token under it
	} else {
		b = jsonobject.Number(b, "expires_in", left)
		b = jsonobject.Number(b, "ext_expires_in", left)
		if left > int64(refreshHint/time.Second) {
			b = jsonobject.Number(b, "refresh_in", left/2)
		}
	}
	if q.exchange != nil { // RFC 8693 §2.2.1
		b = jsonobject.Present(b, "issued_token_type", q.exchange.wanted)
	}
	b = append(jsonobject.Name(b, "access_token"), '"')
	if b, err = signer.Append(b, a.claims); err != nil { // base64url and dots: nothing to escape
		return nil, err
	}
	a.body = append(b, "\"}\n"...)
	return a, nil
}

// encode adds c to b as JSON: what encoding/json makes of it, the characters of HTML as they are.
func (c *claims) encode(b []byte) ([]byte, error) {
	b = jsonobject.String(append(b, '{'), "aud", c.Audience)
	b = jsonobject.String(b, "iss", c.Issuer)
	b = jsonobject.Number(b, "iat", c.IssuedAt)
	b = jsonobject.Number(b, "innate_iat", c.Moment)
	b = jsonobject.Number(b, "nbf", c.NotBefore)
	b = jsonobject.Number(b, "exp", c.Expires)
	b = jsonobject.Present(b, "appid", c.AppID)
	b = jsonobject.Present(b, "appidacr", c.AppACR)
	b = jsonobject.Present(b, "azp", c.Azp)
	b = jsonobject.Present(b, "azpacr", c.AzpACR)
	b = jsonobject.Present(b, "idp", c.Provider)
	b = jsonobject.String(b, "idtyp", c.Type)
	b = jsonobject.String(b, "oid", c.Object)
	b = jsonobject.String(b, "sub", c.Subject)
	b = jsonobject.String(b, "tid", c.Tenant)
	b = jsonobject.String(b, "uti", c.TokenID)
	b = jsonobject.String(b, "jti", c.JWTID)
	b = jsonobject.String(b, "ver", c.Version)
	b = jsonobject.Present(b, "xms_mirid", c.Identity)
	b = jsonobject.Present(b, "xms_az_rid", c.Hosting)
	b = jsonobject.Present(b, "innate_host", c.Host)
	b = jsonobject.Present(b, "innate_assurance", c.Assurance)
	b, err := c.encodeRest(b)
	return append(b, '}'), err
}

// encodeRest adds what few tokens have.
func (c *claims) encodeRest(b []byte) (_ []byte, err error) {
	add := func(name string, value any) {
		var text []byte
		if err == nil {
			text, err = json.Marshal(value)
		}
		b = append(jsonobject.Name(b, name), text...)
	}
	if c.Actor != nil {
		add("act", c.Actor)
	}
	if len(c.Roles) > 0 {
		add("roles", c.Roles)
	}
	if len(c.Groups) > 0 {
		add("groups", c.Groups)
	}
	if len(c.ClaimNames) > 0 {
		add("_claim_names", c.ClaimNames)
		add("_claim_sources", c.ClaimSources)
	}
	if len(c.Capabilities) > 0 {
		add("xms_cc", c.Capabilities)
	}
	return b, err
}
