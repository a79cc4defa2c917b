package bearer

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// A Challenge makes the WWW-Authenticate value for a request that came without a
// good token; err is nil when there was none. It ends in err.Params, so that
// clients hear of a revocation (managed-identity-endpoints §4.7).
type Challenge func(r *http.Request, err *Error) string

func (v *Verifier) challenge(_ *http.Request, err *Error) string {
	switch {
	case err == nil:
		return `Bearer authorization_uri="` + v.config.Authority + "/" + string(v.config.Tenant) + `"`
	case err.Claims != "":
		return `Bearer realm="", authorization_uri="` + v.config.Authority + `/common/oauth2/authorize", ` + err.Params()
	default:
		return v.challenge(nil, nil) + ", " + err.Params()
	}
}

// Params are what of a challenge says why the token was refused (RFC 6750 §3).
func (e *Error) Params() string {
	if e.Claims != "" { // and no words: clients cut this challenge at commas and blanks
		return `error="` + e.Code + `", claims="` + base64.StdEncoding.EncodeToString([]byte(e.Claims)) + `"`
	}
	return `error="` + e.Code + `", error_description="` + strings.ReplaceAll(e.Text, `"`, `'`) + `"`
}

// revoked refuses a token, and tells a client that understands it to ask for one
// that is good from now on: it would hand the same one out of its cache again.
func (p *proved) revoked(why string, now time.Time) *Error {
	e := invalid(Revoked, "the token is revoked: %s", why)
	if p.challenges {
		e.Code = insufficientClaims
		e.Claims = fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, now.Unix())
	}
	return e
}
