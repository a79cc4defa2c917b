package innatetest_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"innate"
	"innate/innatetest"
)

// verify checks a token as a stranger with nothing but the issuer's name would.
func verify(t *testing.T, p *innatetest.Platform, issuer, audience, token string) (*oidc.IDToken, error) {
	t.Helper()
	ctx := oidc.ClientContext(t.Context(), p.Client())
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		t.Fatalf("discovery of %s: %v", issuer, err)
	}
	return provider.Verifier(&oidc.Config{ClientID: audience}).Verify(ctx, token)
}

func TestGoOIDCVerifiesOurTokensFromDiscoveryAlone(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api := p.App("api")
	tok := api.Token("https://vault.azure.net")
	v1 := p.Admin.Info.Login + "/" + string(p.Admin.Info.Tenant) + "/"
	id, err := verify(t, p, v1, "https://vault.azure.net", tok)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	if id.Subject != string(api.Principal()) {
		t.Errorf("subject %s, want %s", id.Subject, api.Principal())
	}
	if _, err := verify(t, p, v1, "https://graph.microsoft.com", tok); err == nil {
		t.Error("a token for the vault was taken for Graph's")
	}
	changed := tok[:len(tok)-8] + "AAAAAAAA"
	if _, err := verify(t, p, v1, "https://vault.azure.net", changed); err == nil {
		t.Error("a token with another signature was taken")
	}
}

// A registration whose API asks for v2 tokens gets them whichever endpoint they
// are asked at: by a client secret at the token service, and by a managed identity.
func TestGoOIDCVerifiesVersion2TokensOfARegistrationThatWantsThem(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	orders := register(t, p, map[string]any{
		"displayName": "orders", "identifierUris": []string{"api://orders"}, "api": map[string]int{"requestedAccessTokenVersion": 2},
	})
	v2 := p.Admin.Info.Login + "/" + string(p.Admin.Info.Tenant) + "/v2.0"
	api := p.App("api")
	for name, token := range map[string]string{
		"by a client secret":    byClientSecret(t, p, orders, "api://orders/.default"),
		"by a managed identity": api.Token("api://orders"),
	} {
		id, err := verify(t, p, v2, string(orders.Client), token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var claims struct {
			Version string `json:"ver"`
			Party   string `json:"azp"`
		}
		if err := id.Claims(&claims); err != nil {
			t.Fatal(err)
		}
		if claims.Version != "2.0" || claims.Party == "" {
			t.Errorf("%s: ver %q, azp %q; want 2.0 and who asked", name, claims.Version, claims.Party)
		}
	}
}

// A registration is an app registration with a client secret.
type registration struct {
	Object innate.ObjectID `json:"id"`
	Client innate.ClientID `json:"appId"`
	secret string
}

func register(t *testing.T, p *innatetest.Platform, body map[string]any) (r registration) {
	t.Helper()
	if err := p.Admin.Graph(t.Context(), http.MethodPost, "/v1.0/applications", body, &r); err != nil {
		t.Fatal(err)
	}
	var made struct {
		Text string `json:"secretText"`
	}
	if err := p.Admin.Graph(t.Context(), http.MethodPost, "/v1.0/applications/"+string(r.Object)+"/addPassword", map[string]any{}, &made); err != nil {
		t.Fatal(err)
	}
	r.secret = made.Text
	return r
}

// byClientSecret gets a token at the v2 endpoint.
func byClientSecret(t *testing.T, p *innatetest.Platform, r registration, scope string) string {
	t.Helper()
	resp, err := p.Client().PostForm(p.Admin.Info.Login+"/"+string(p.Admin.Info.Tenant)+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {string(r.Client)}, "client_secret": {r.secret}, "scope": {scope},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
		Text  string `json:"error_description"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("%s: %s %v", resp.Status, answer.Text, err)
	}
	return answer.Token
}
