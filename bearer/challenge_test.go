package bearer_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"innate/bearer"
	"innate/feed/client"
)

func TestWhoeverUnderstandsAClaimsChallengeGetsOneWhenItsTokenIsRevoked(t *testing.T) {
	i := newIssuer(t)
	set := client.NewRevocations(nil)
	set.Apply(client.Event{Key: client.RevocationKey(client.RevokedIdentity, object), Value: json.RawMessage(`{}`)})
	h := i.verifier(func(c *bearer.Config) { c.Revocations = set }).Require(whoami, nil)
	now := i.clock().Unix()
	wanted := fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, now)
	challenge := fmt.Sprintf(`Bearer realm="", authorization_uri="%s/common/oauth2/authorize", error="insufficient_claims", claims="%s"`,
		i.srv.URL, base64.StdEncoding.EncodeToString([]byte(wanted)))
	refusal := fmt.Sprintf(`Bearer authorization_uri="%s/%s", error="invalid_token", error_description="the token `, i.srv.URL, tenant)
	for _, c := range []struct {
		name  string
		token string
		want  string // how the challenge begins
	}{
		{"cp1", i.sign("ec-1", i.claims(claims{"xms_cc": []string{"cp1"}})), challenge},
		{"cp1 in a v2 token", i.sign("rsa-1", i.v2(claims{"xms_cc": []string{"cp1"}})), challenge},
		{"as Go writes it, among others", i.sign("ec-1", i.claims(claims{"xms_cc": []string{"x", "CP1"}})), challenge},
		{"no capability", i.sign("ec-1", i.claims(nil)), refusal + "is revoked"},
		{"another capability", i.sign("ec-1", i.claims(claims{"xms_cc": []string{"cp10"}})), refusal + "is revoked"},
		{"ended as well", i.sign("ec-1", i.claims(claims{"xms_cc": []string{"cp1"}, "exp": now - 3600})), refusal + "ended"},
		{"another's token", i.sign("ec-1", i.claims(claims{"xms_cc": []string{"cp1"}, "aud": "https://a"})), refusal + "is for"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // proved, and remembered
				w := ask(h, t.Context(), "Bearer "+c.token)
				if got := w.Header().Get("WWW-Authenticate"); w.Code != 401 || !strings.HasPrefix(got, c.want) {
					t.Errorf("answered %d\n%s, want\n%s", w.Code, got, c.want)
				}
				if !strings.Contains(w.Body.String(), `"code":"InvalidAuthenticationToken"`) {
					t.Errorf("body %s", w.Body)
				}
			}
		})
	}
	set.Apply(client.Event{Key: client.RevocationKey(client.RevokedIdentity, object)})
	if w := ask(h, t.Context(), "Bearer "+i.sign("ec-1", i.claims(claims{"xms_cc": []string{"cp1"}}))); w.Code != 200 {
		t.Errorf("not revoked: answered %d", w.Code)
	}
}
