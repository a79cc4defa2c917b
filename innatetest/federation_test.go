package innatetest_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"innate"
	"innate/innatetest"
)

// startTrusting starts a platform that may fetch the keys of home, which to it
// is an issuer on loopback with a certificate of nobody that it knows.
func startTrusting(t *testing.T, home *innatetest.Platform) *innatetest.Platform {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(home.Admin.Info.CA)) {
		t.Fatal("the platform has no authority")
	}
	login, err := url.Parse(home.Admin.Info.Login)
	if err != nil {
		t.Fatal(err)
	}
	return innatetest.Start(t, innatetest.WithIssuer(login.Host, roots))
}

// trust lets tokens of another issuer prove an identity.
func trust(p *innatetest.Platform, identity *innatetest.Identity, issuer string, subject innate.ObjectID, audience string) {
	p.ARM(http.MethodPut, string(identity.ID())+"/federatedIdentityCredentials/partner", map[string]any{
		"properties": map[string]any{"issuer": issuer, "subject": subject, "audiences": []string{audience}},
	}, nil)
}

// An abroad is a workload of one platform as a client of another: the
// vendor's credential, which at each use asks the workload's own endpoint for an
// assertion.
type abroad struct {
	home door
	cred *azidentity.ClientAssertionCredential
	last string // the assertion
}

var errNoAssertion = errors.New("its own endpoint gave no token")

func goAbroad(t *testing.T, env []string, resource string, p *innatetest.Platform, client innate.ClientID) *abroad {
	t.Helper()
	a := &abroad{home: doorOf(t, env)}
	var err error
	a.cred, err = azidentity.NewClientAssertionCredential(string(p.Admin.Info.Tenant), string(client),
		func(context.Context) (string, error) {
			if a.last = a.home.token(t, resource).Token; a.last == "" {
				return "", errNoAssertion
			}
			return a.last, nil
		}, &azidentity.ClientAssertionCredentialOptions{
			DisableInstanceDiscovery: true, // or Microsoft would be asked who we are
			ClientOptions: azcore.ClientOptions{
				Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: p.Admin.Info.Login},
				Transport: p.Client(),
				Retry:     policy.RetryOptions{MaxRetries: -1}, // a refusal is one
			},
		})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *abroad) token(t *testing.T, resource string) (string, error) {
	t.Helper()
	got, err := a.cred.GetToken(t.Context(), policy.TokenRequestOptions{Scopes: []string{resource + "/.default"}})
	return got.Token, err
}

// Federation out: to the second platform the first is a stranger's issuer, known
// by its discovery alone.
func TestAWorkloadOfOnePlatformIsAnIdentityOfAnother(t *testing.T) {
	t.Parallel()
	home := innatetest.Start(t)
	away := startTrusting(t, home)
	tenant := home.Admin.Info.Login + "/" + string(home.Admin.Info.Tenant)
	for _, c := range []struct {
		name, uri string
		version   int
		issuer    string
	}{
		{"version 1", "api://AzureADTokenExchange", 1, tenant + "/"},
		{"version 2", "api://exchange-2", 2, tenant + "/v2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			exchange := register(t, home, map[string]any{
				"displayName": c.uri, "identifierUris": []string{c.uri}, "api": map[string]int{"requestedAccessTokenVersion": c.version},
			})
			audience := c.uri
			if c.version == 2 {
				audience = string(exchange.Client)
			}
			suffix := strings.ReplaceAll(c.name, " ", "-")
			api, guest, kv := home.App("api-"+suffix), away.Identity("guest-"+suffix), away.Vault("kv-"+suffix)
			kv.Put("db-password", "hunter2")
			away.Grant(guest, "Key Vault Secrets User", kv)
			trust(away, guest, c.issuer, api.Principal(), audience)

			a := goAbroad(t, api.Env(), c.uri, away, guest.Client())
			token, err := a.token(t, "https://vault.azure.net")
			if err != nil {
				t.Fatal(err)
			}
			id, err := verify(t, away, away.Admin.Info.Login+"/"+string(away.Admin.Info.Tenant)+"/", "https://vault.azure.net", token)
			if err != nil {
				t.Fatalf("go-oidc on the other platform's token: %v", err)
			}
			if id.Subject != string(guest.Principal()) {
				t.Errorf("it is of %s, want %s", id.Subject, guest.Principal())
			}
			if code, value := kv.GetWith(token, "db-password"); code != http.StatusOK || value != "hunter2" {
				t.Errorf("at the other platform's vault: %d %s", code, value)
			}
			if code, _ := kv.GetWith(a.last, "db-password"); code != http.StatusUnauthorized {
				t.Errorf("the assertion itself at that vault: %d, want 401", code)
			}

			// Another workload of the same platform, with a token as good, is nobody there.
			other := goAbroad(t, home.App("other-"+suffix).Env(), c.uri, away, guest.Client())
			if token, err := other.token(t, "https://vault.azure.net"); token != "" || err == nil || !strings.Contains(err.Error(), "AADSTS700213") {
				t.Errorf("another workload: %v, want AADSTS700213", err)
			}
			// And so is the right one with a token for something else.
			elsewhere := goAbroad(t, api.Env(), "https://management.azure.com", away, guest.Client())
			if token, err := elsewhere.token(t, "https://vault.azure.net"); token != "" || err == nil {
				t.Errorf("with an assertion for the management API: %v", err)
			}

			// Revoked at home, it can prove itself nowhere any more.
			home.ARM(http.MethodPatch, string(api.ID()), map[string]any{"identity": map[string]string{"type": "None"}}, nil)
			eventually(t, "the agent hears that the identity is gone", func() bool { return a.home.token(t, c.uri).Token == "" })
			if token, err := a.token(t, "https://management.azure.com"); token != "" || err == nil || !strings.Contains(err.Error(), errNoAssertion.Error()) {
				t.Errorf("without an identity of its own: %v, want %q", err, errNoAssertion)
			}
		})
	}
}

// Trust ends in the same moment on the side that gave it.
func TestATrustThatIsTakenBackAdmitsNothingMore(t *testing.T) {
	t.Parallel()
	home := innatetest.Start(t)
	away := startTrusting(t, home)
	const uri = "api://AzureADTokenExchange"
	register(t, home, map[string]any{"displayName": "exchange", "identifierUris": []string{uri}})
	api, guest := home.App("api"), away.Identity("guest")
	issuer := home.Admin.Info.Login + "/" + string(home.Admin.Info.Tenant) + "/"
	a := goAbroad(t, api.Env(), uri, away, guest.Client())
	for range 2 {
		if token, err := a.token(t, "https://vault.azure.net"); token != "" || err == nil || !strings.Contains(err.Error(), "AADSTS700211") {
			t.Fatalf("trusted by nobody: %v, want AADSTS700211", err)
		}
		trust(away, guest, issuer, api.Principal(), uri)
		if _, err := a.token(t, "https://management.azure.com"); err != nil {
			t.Fatalf("just trusted: %v", err)
		}
		away.ARM(http.MethodDelete, string(guest.ID())+"/federatedIdentityCredentials/partner", nil, nil)
		a = goAbroad(t, api.Env(), uri, away, guest.Client()) // one that keeps no token
	}
}
