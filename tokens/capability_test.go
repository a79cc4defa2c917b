package tokens_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"innate/directory"
)

// The least that a client says of itself, and with a challenge merged into it.
const (
	cp1    = `claims={"access_token":{"xms_cc":{"values":["CP1"]}}}`
	merged = `claims={"access_token":{"nbf":{"essential":true,"value":"%d"},"xms_cc":{"values":["CP1"]}}}`
)

func TestXMSCCIsInTheTokenWhenClientAndServiceBothWantIt(t *testing.T) {
	w := start(t)
	w.orders(func(r *directory.Registration) { r.OptionalClaims = []string{"idtyp", "xms_cc"} })
	w.register(directory.Registration{Name: "plain", IdentifierURIs: []string{"api://plain"}})
	client, secret := w.application()
	for _, c := range []struct {
		resource, claims string
		want             bool
	}{
		{"https://vault.azure.net", cp1, true},
		{"https://graph.microsoft.com", cp1, true},
		{"https://management.azure.com/", cp1, true},
		{"api://orders", cp1, true},
		{"api://plain", cp1, false},                       // it does not ask
		{"https://database.windows.net", cp1, false},      // a database sends no challenge
		{"https://vault.azure.net", "x=1", false},         // the client says nothing
		{"https://vault.azure.net", "claims=", false},     // nor here
		{"https://vault.azure.net", "claims=null", false}, // nor here
		{"https://vault.azure.net", `claims={"access_token":{"xms_cc":{"values":["cp1"]}},"id_token":{"signin_state":{"essential":true}}}`, true}, // as MSAL for Node
		{"https://vault.azure.net", `claims={"access_token":{"xms_cc":{"values":["llt",7,null,"CP1"]}}}`, true},
		{"https://vault.azure.net", `claims={"access_token":{"xms_cc":{"values":["cp10","CP"]}}}`, false},
		{"https://vault.azure.net", `claims={"access_token":{"xms_cc":{"values":"cp1"}}}`, false}, // not an array: passed over
		{"https://vault.azure.net", `claims={"access_token":{"xms_cc":null}}`, false},
		{"https://vault.azure.net", `claims={"access_token":7,"x":[{}]}`, false},
		{"https://vault.azure.net", `claims={"id_token":{"xms_cc":{"values":["CP1"]}}}`, false}, // of another token
		{"https://vault.azure.net", `claims={"access_token":{"polids":{"essential":true,"values":["x"]},"xms_cc":{"values":["CP1"]}}}`, true},
	} {
		for path, name := range map[string]string{tokenPath: "scope", "/" + tenant + "/oauth2/token": "resource"} {
			resource := c.resource
			if name == "scope" {
				resource += "/.default"
			}
			got := w.claims(w.post(path, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret,
				name+"="+resource, c.claims))
			if has := slices.Equal(stringsOf(got["xms_cc"]), []string{"cp1"}); has != c.want || (got["xms_cc"] != nil) != c.want {
				t.Errorf("%s for %s at %s: xms_cc %v, want %v", c.claims, c.resource, path, got["xms_cc"], c.want)
			}
		}
	}
}

func TestAClaimsChallengeIsMetByANewerNbf(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	usual := noon.Unix() - 300
	for value, want := range map[string]int64{
		"0": usual, "1": usual, // as MSAL's tests have it
		strconv.FormatInt(usual-1, 10):             usual,
		strconv.FormatInt(usual+1, 10):             usual + 1,
		`"` + strconv.FormatInt(usual+1, 10) + `"`: usual + 1,
		strconv.FormatInt(noon.Unix(), 10):         noon.Unix(),
		strconv.FormatInt(noon.Unix()+60, 10):      noon.Unix() + 60, // the clock of the service is ahead
		"null":                                     usual,
	} {
		a := w.ask(client, secret, vault, `claims={"access_token":{"nbf":{"essential":true,"value":`+value+`}}}`)
		claims := w.claims(a)
		if got := claims["nbf"]; got != float64(want) {
			t.Errorf("value %s: nbf %.0f, want %d", value, got, want)
		}
		if claims["iat"] != float64(noon.Unix()) || claims["exp"] != float64(noon.Unix()+3600) {
			t.Errorf("value %s: iat %v, exp %v: they are not the client's to choose", value, claims["iat"], claims["exp"])
		}
	}
	a := w.post("/"+tenant+"/oauth2/token", "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret,
		"resource="+vault, fmt.Sprintf(merged, noon.Unix()))
	if got := a.member("not_before"); got != strconv.FormatInt(noon.Unix(), 10) {
		t.Errorf("v1: not_before %s", got)
	}
}

func TestAClaimsParameterThatCannotBeMetIsRefused(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	for name, c := range map[string]struct{ claims, says string }{
		"no JSON":             {`{"access_token"`, "not a JSON object"},
		"more than one value": {`{}{}`, "not a JSON object"},
		"an array":            {`[]`, "not a JSON object"},
		"a string":            {`"access_token"`, "not a JSON object"},
		"base64":              {`eyJhY2Nlc3NfdG9rZW4iOnt9fQ`, "not a JSON object"}, // as it stood in the challenge
		"too long":            {`{"x":"` + strings.Repeat("x", 8<<10) + `"}`, "longer than 8192 bytes"},
		"from tomorrow":       {fmt.Sprintf(`{"access_token":{"nbf":{"value":%d}}}`, noon.Add(24*time.Hour).Unix()), "begins at 2026-03-02T12:00:00Z or later, and it is 2026-03-01T12:00:00Z"},
		"in over a minute":    {fmt.Sprintf(`{"access_token":{"nbf":{"value":"%d"}}}`, noon.Unix()+61), "Check the clock"},
		"no time":             {`{"access_token":{"nbf":{"value":"noon"}}}`, "not a time in seconds"},
		"a negative time":     {`{"access_token":{"nbf":{"value":-1}}}`, "not a time in seconds"},
		"an endless time":     {`{"access_token":{"nbf":{"value":1e300}}}`, "not a time in seconds"},
		"a time that is true": {`{"access_token":{"nbf":{"value":true}}}`, "not a time in seconds"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.ask(client, secret, vault, "claims="+c.claims)
			a.t = t
			a.refused(http.StatusBadRequest, "invalid_request", "9002313")
			if !strings.Contains(a.member("error_description"), c.says) {
				t.Errorf("it does not say %q: %s", c.says, a.body)
			}
		})
	}
	// Depth alone is nothing to refuse: nobody walks down it.
	deep := strings.Repeat(`{"x":[`, 400) + strings.Repeat(`]}`, 400)
	w.claims(w.ask(client, secret, vault, `claims={"x":`+deep+`,"access_token":{"xms_cc":{"values":[`+deep+`]}}}`))
}
