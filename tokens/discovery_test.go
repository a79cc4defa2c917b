package tokens_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"

	"innate/directory"
	"innate/store"
	"innate/store/file"
	"innate/tokens"
)

func (w *world) get(path string) answer {
	w.t.Helper()
	return w.send(w.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+path, nil))
}

func TestDiscoverySaysWhereEverythingIs(t *testing.T) {
	w := start(t)
	const v2, v1, adfs = "/v2.0/.well-known/openid-configuration", "/.well-known/openid-configuration", "/adfs/.well-known/openid-configuration"
	base := login + "/" + tenant
	for path, want := range map[string]map[string]string{
		"/" + tenant + v2:                        {"issuer": base + "/v2.0", "token_endpoint": base + "/oauth2/v2.0/token", "jwks_uri": base + "/discovery/v2.0/keys"},
		"/" + tenant + v1:                        {"issuer": base + "/", "token_endpoint": base + "/oauth2/token", "jwks_uri": login + "/common/discovery/keys"},
		adfs:                                     {"issuer": base + "/v2.0", "token_endpoint": login + "/adfs/oauth2/v2.0/token", "jwks_uri": base + "/discovery/v2.0/keys"},
		"/" + strings.ToUpper(tenant) + v2 + "?": {"issuer": base + "/v2.0"}, // Go adds the question mark
		"/INNATE.test" + v2:                      {"issuer": base + "/v2.0"},
		"/common" + v2:                           {"issuer": base + "/v2.0"},
		"/organizations" + v2:                    {"issuer": base + "/v2.0"},
	} {
		a := w.get(path)
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.status, a.body)
			continue
		}
		for name, value := range want {
			if got := a.member(name); got != value {
				t.Errorf("%s: %s is %s, want %s", path, name, got, value)
			}
		}
	}

	var doc map[string]any
	if err := json.Unmarshal([]byte(w.get("/"+tenant+v2).body), &doc); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"authorization_endpoint":                     base + "/oauth2/v2.0/authorize",
		"subject_types_supported":                    []any{"pairwise"},
		"id_token_signing_alg_values_supported":      []any{"RS256", "ES256"},
		"token_endpoint_auth_methods_supported":      []any{"client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"},
		"mtls_endpoint_aliases":                      map[string]any{"token_endpoint": mutual + "/" + tenant + "/oauth2/v2.0/token"},
		"tls_client_certificate_bound_access_tokens": false,
		"cloud_instance_name":                        "login.innate.test",
		"msgraph_host":                               "graph.innate.test",
	} {
		if diff := cmp.Diff(want, doc[name]); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	w.get("/example.org"+v2).refused(400, "invalid_request", "90002")
	w.get("/00000000-0000-0000-0000-000000000001/discovery/v2.0/keys").refused(400, "invalid_request", "90002")
	if a := w.get("/x/y"); a.status != http.StatusNotFound || a.member("error") != "invalid_request" {
		t.Errorf("unknown path: %d %s", a.status, a.body)
	}
}

func TestThePublishedKeysAreAsEntraWritesThem(t *testing.T) {
	w := start(t)
	for path, issuer := range map[string]string{
		"/" + tenant + "/discovery/v2.0/keys": login + "/" + tenant + "/v2.0",
		"/" + tenant + "/discovery/keys":      "", "/common/discovery/keys": "", "/common/discovery/v2.0/keys": login + "/" + tenant + "/v2.0",
	} {
		var set struct{ Keys []map[string]any }
		if err := json.Unmarshal([]byte(w.get(path).body), &set); err != nil || len(set.Keys) != 2 {
			t.Fatalf("%s: %d keys, %v", path, len(set.Keys), err)
		}
		for _, k := range set.Keys {
			want := []string{"alg", "crv", "kid", "kty", "use", "x", "x5c", "x5t", "y"}
			if k["kty"] == "RSA" {
				want = []string{"alg", "e", "kid", "kty", "n", "use", "x5c", "x5t"}
			}
			if issuer != "" {
				want = append(want, "issuer")
				slices.Sort(want)
			}
			if got := slices.Sorted(maps.Keys(k)); !slices.Equal(got, want) {
				t.Errorf("%s: members %v, want %v", path, got, want)
			}
			if k["kid"] != k["x5t"] || k["use"] != "sig" || issuer != "" && k["issuer"] != issuer {
				t.Errorf("%s: %v", path, k)
			}
		}
	}
}

func TestInstanceDiscoveryVouchesForThisHostAlone(t *testing.T) {
	w := start(t)
	const path = "/common/discovery/instance?api-version=1.1&authorization_endpoint="
	a := w.get(path + "https://LOGIN.innate.test/" + tenant + "/oauth2/v2.0/authorize")
	want := `{"tenant_discovery_endpoint":"` + login + "/" + tenant + `/v2.0/.well-known/openid-configuration","api-version":"1.1",` +
		`"metadata":[{"preferred_network":"login.innate.test","preferred_cache":"login.innate.test","aliases":["login.innate.test"]}]}` + "\n"
	if a.status != http.StatusOK || a.body != want {
		t.Errorf("got  %d %s\nwant %s", a.status, a.body, want)
	}
	for _, other := range []string{"https://login.innate.test.evil.org/x", "http://login.innate.test/x", "https://login.innate.test@evil.org/", "%zz", ""} {
		w.get(path+other).refused(400, "invalid_instance", "50049")
	}
}

// A verifier that never heard of us: go-oidc, over the wire, from the issuer alone.
func TestAStrangerVerifiesFromDiscoveryAlone(t *testing.T) {
	w := start(t)
	w.register(directory.Registration{Name: "v1", IdentifierURIs: []string{"api://v1"}})
	v2, _ := w.register(directory.Registration{Name: "v2", IdentifierURIs: []string{"api://v2"}, TokenVersion: 2, SigningAlg: "ES256"})
	client, secret := w.application()

	var handler http.Handler
	srv := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { handler.ServeHTTP(rw, r) }))
	defer srv.Close()
	w.config.Login = srv.URL
	s, err := tokens.New(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	handler = s.Handler()
	ctx := oidc.ClientContext(t.Context(), srv.Client())
	for _, c := range []struct{ issuer, resource, aud string }{
		{srv.URL + "/" + tenant + "/", "api://v1", "api://v1"},
		{srv.URL + "/" + tenant + "/v2.0", "api://v2", string(v2.Client)},
	} {
		provider, err := oidc.NewProvider(ctx, c.issuer)
		if err != nil {
			t.Fatal(err)
		}
		a := w.send(handler, request(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+c.resource+"/.default"))
		token, err := provider.Verifier(&oidc.Config{ClientID: c.aud, Now: w.config.Now}).Verify(ctx, a.member("access_token"))
		if err != nil {
			t.Errorf("%s: %v", c.issuer, err)
			continue
		}
		if token.Subject == "" || !token.IssuedAt.Equal(noon) {
			t.Errorf("%+v", token)
		}
	}
}

func TestTwoServersThatOpenANewStoreShareTheirKeys(t *testing.T) {
	w := start(t)
	engine, err := file.Create(t.TempDir() + "/store")
	if err != nil {
		t.Fatal(err)
	}
	if w.config.DB, err = store.Open(t.Context(), engine); err != nil {
		t.Fatal(err)
	}
	defer w.config.DB.Close()
	var bodies [2]string
	var wg sync.WaitGroup
	for i := range bodies {
		wg.Go(func() {
			s, err := tokens.New(context.Background(), w.config)
			if err != nil {
				t.Error(err)
				return
			}
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, login+"/common/discovery/keys", nil))
			bodies[i] = rec.Body.String()
		})
	}
	wg.Wait()
	if bodies[0] != bodies[1] || strings.Count(bodies[0], `"kid"`) != 2 {
		t.Errorf("%s\n%s", bodies[0], bodies[1])
	}
}

func TestAConfigThatLacksSomethingIsRefusedByName(t *testing.T) {
	w := start(t)
	for name, lack := range map[string]func(*tokens.Config){
		"DB":        func(c *tokens.Config) { c.DB = nil },
		"Audit":     func(c *tokens.Config) { c.Audit = nil },
		"Seal":      func(c *tokens.Config) { c.Seal = nil },
		"CA":        func(c *tokens.Config) { c.CA = nil },
		"Directory": func(c *tokens.Config) { c.Directory = nil },
		"Tenant":    func(c *tokens.Config) { c.Tenant = "home" },
		"Domain":    func(c *tokens.Config) { c.Domain = "" },
		"Services":  func(c *tokens.Config) { c.Services = nil },
		"Login":     func(c *tokens.Config) { c.Login = "http://login.innate.test" },
		"Mutual":    func(c *tokens.Config) { c.Mutual = "https://hosts.innate.test/" },
	} {
		c := w.config
		lack(&c)
		if _, err := tokens.New(t.Context(), c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}
