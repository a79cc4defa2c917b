package innatetest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"innate"
	"innate/innatetest"
)

// A holder is whoever has that object id.
type holder innate.ObjectID

func (h holder) Principal() innate.ObjectID { return innate.ObjectID(h) }

// holderOf is the service principal of a registration.
func holderOf(t *testing.T, p *innatetest.Platform, r registration) holder {
	t.Helper()
	var found struct {
		ID holder `json:"id"`
	}
	if err := p.Admin.Graph(t.Context(), http.MethodGet, "/v1.0/servicePrincipals(appId='"+string(r.Client)+"')", nil, &found); err != nil {
		t.Fatal(err)
	}
	return found.ID
}

// A caller that an API was called by is who reads the secret, and who is in the
// log, when the API reads it for the caller with an exchanged token.
func TestAnAPIActsForItsCallerWithAnExchangedToken(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.Grant(api, "Key Vault Secrets User", kv)
	orders := register(t, p, map[string]any{"displayName": "orders", "identifierUris": []string{"api://orders"}})
	actor, called := holderOf(t, p, orders), api.Token("api://orders")

	status, body := swap(t, p, orders, called)
	if status != http.StatusBadRequest || body.Error != "invalid_grant" {
		t.Fatalf("without a role: %d %+v", status, body)
	}
	command := "innate role assign --to " + string(actor) + " --role 'Token Exchanger' --at " + string(api.ID())
	if !strings.Contains(body.Text, command) {
		t.Errorf("the refusal does not say %q: %s", command, body.Text)
	}

	p.Grant(actor, "Token Exchanger", api)
	status, body = swap(t, p, orders, called)
	if status != http.StatusOK {
		t.Fatalf("with the role: %d %+v", status, body)
	}
	if code, value := kv.GetWith(body.Token, "db-password"); code != http.StatusOK || value != "hunter2" {
		t.Fatalf("reading with the exchanged token: %d %s", code, value)
	}
	var read bool
	for _, ev := range recorded(t, p, "control") {
		if ev.Action == "Microsoft.KeyVault/vaults/secrets/getSecret/action" && ev.Token == payload(t, body.Token)["uti"] {
			read = ev.Allowed && ev.Principal == api.Principal() && api.ID().Equal(innate.ResourceID(ev.Hosting))
		}
	}
	if !read {
		t.Error("the log does not say that the caller read the secret")
	}

	// The API's own token opens nothing that its caller's does.
	if code, _ := kv.GetWith(byClientSecret(t, p, orders, "https://vault.azure.net/.default"), "db-password"); code != http.StatusForbidden {
		t.Errorf("the API as itself: %d, want 403", code)
	}
	p.Delete(api)
	if code, _ := kv.GetWith(body.Token, "db-password"); code != http.StatusUnauthorized {
		t.Errorf("its caller is gone: %d, want 401", code)
	}
	if status, body = swap(t, p, orders, called); status != http.StatusBadRequest || body.Token != "" {
		t.Errorf("a token of who is gone is exchanged: %d %+v", status, body)
	}
}

type exchanged struct {
	Token string `json:"access_token"`
	Error string `json:"error"`
	Text  string `json:"error_description"`
}

// swap asks for the vault in place of whoever token is of.
func swap(t *testing.T, p *innatetest.Platform, by registration, token string) (int, exchanged) {
	t.Helper()
	resp, err := p.Client().PostForm(p.Admin.Info.Login+"/"+string(p.Admin.Info.Tenant)+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "client_id": {string(by.Client)}, "client_secret": {by.secret},
		"subject_token": {token}, "subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
		"scope": {"https://vault.azure.net/.default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body exchanged
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}
