package tokens_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"innate"
)

func TestEveryRefusalsIdsLeadToItsRecord(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	id, sec := "client_id="+string(client), "client_secret="+secret
	const grant, scope = "grant_type=client_credentials", "scope=https://vault.azure.net/.default"
	get := httptest.NewRequest(http.MethodGet, login+tokenPath, nil)
	for name, c := range map[string]struct {
		r      *http.Request
		client innate.ClientID // in the record
		target string
	}{
		"no POST":            {get, "", ""},
		"no form":            {raw(tokenPath, "%zz"), "", ""},
		"another tenant":     {request("/common/oauth2/v2.0/token", grant, id, sec, scope), "", ""},
		"secret in a query":  {request(tokenPath+"?client_secret=hunter2", grant, id, scope), "", ""},
		"no client":          {request(tokenPath, grant, sec, scope), "", ""},
		"client is no GUID":  {request(tokenPath, grant, "client_id=orders", sec, scope), "", ""},
		"no proof":           {request(tokenPath, grant, id, scope), client, ""},
		"wrong secret":       {request(tokenPath, grant, id, "client_secret=hunter2", scope), client, "https://vault.azure.net"},
		"no JSON for claims": {request(tokenPath, grant, id, sec, scope, "claims={"), client, "https://vault.azure.net"},
		"unknown audience":   {request(tokenPath, grant, id, sec, "scope=api://nobody/.default"), client, "api://nobody"},
	} {
		c.r.Header.Set("client-request-id", "7c9e6679-7425-40de-944b-e07fc1f90ae7")
		c.r.RemoteAddr = "192.0.2.7:4711"
		before := len(w.events())
		a := w.send(w.tokens.Handler(), c.r)
		if a.status < 400 || len(w.events()) != before+1 {
			t.Errorf("%s: %d, and %d records", name, a.status, len(w.events())-before)
			continue
		}
		ev := w.last()
		if ev.Allowed || ev.Action != "issue-token" || ev.Trace != a.member("trace_id") || ev.Correlation != "7c9e6679-7425-40de-944b-e07fc1f90ae7" ||
			ev.Address != "192.0.2.7" || ev.Client != c.client || ev.Target != c.target || ev.Why == "" {
			t.Errorf("%s: event %+v\nof %s", name, ev, a.body)
		}
	}
	// What anybody may read is not decided on.
	before := len(w.events())
	for _, path := range []string{"/nobody/v2.0/.well-known/openid-configuration", "/nobody/discovery/keys", "/nothing", "/common/discovery/instance"} {
		if a := w.send(w.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+path, nil)); a.status < 400 || a.member("trace_id") == "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if n := len(w.events()) - before; n != 0 {
		t.Errorf("%d records of documents", n)
	}
}
