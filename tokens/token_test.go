package tokens_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/store"
	"innate/tokens"
)

func TestAnApplicationGetsAV1Token(t *testing.T) {
	w := start(t)
	r, object := w.register(directory.Registration{Name: "orders"})
	secret := w.secret(r.Client, w.now)

	a := w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(r.Client), "client_secret="+secret,
		"scope=https://vault.azure.net/.default openid offline_access profile", "x-client-SKU=MSAL.Go")
	got := w.claims(a)
	uti, _ := got["uti"].(string)
	if len(uti) != 22 {
		t.Errorf("uti %q: want 22 characters", uti)
	}
	want := map[string]any{
		"aud": "https://vault.azure.net", "iss": login + "/" + tenant + "/", "idp": login + "/" + tenant + "/",
		"iat": float64(noon.Unix()), "nbf": float64(noon.Unix() - 300), "exp": float64(noon.Unix() + 3600),
		"appid": string(r.Client), "appidacr": "1", "idtyp": "app", "oid": string(object.ID), "sub": string(object.ID),
		"tid": tenant, "uti": uti, "jti": uti, "ver": "1.0", "innate_iat": float64(noon.UnixMilli()),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got)\n%s", diff)
	}
	if !strings.HasPrefix(a.body, `{"token_type":"Bearer","expires_in":3600,"ext_expires_in":3600,"access_token":"`) {
		t.Errorf("v2 answer: %s", a.body)
	}
	for name, value := range map[string]string{"Cache-Control": "no-store, no-cache", "Pragma": "no-cache", "Content-Type": "application/json; charset=utf-8"} {
		if got := a.header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
}

func TestTheV1EndpointAnswersInStrings(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	w.now = noon.Add(500 * time.Millisecond) // what is left is rounded down
	a := w.post("/"+tenant+"/oauth2/token", "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret,
		"resource=https://management.core.windows.net/")
	w.claims(a)
	got := map[string]any{}
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	delete(got, "access_token")
	want := map[string]any{
		"token_type": "Bearer", "expires_in": "3599", "ext_expires_in": "3599", "expires_on": "1772370000",
		"not_before": "1772366100", "resource": "https://management.core.windows.net/",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestAManagedIdentitysTokenSaysWhereItRuns(t *testing.T) {
	w := start(t)
	const shared = innate.ResourceID(group + "Microsoft.ManagedIdentity/userAssignedIdentities/Id1")
	for name, c := range map[string]struct {
		owner  innate.ResourceID
		shared bool
		mirid  string
	}{
		"system-assigned": {app, false, strings.Replace(string(app), "resourceGroups", "resourcegroups", 1)},
		"user-assigned":   {shared, true, strings.Replace(string(shared), "resourceGroups", "resourcegroups", 1)},
	} {
		object := w.identity(c.owner, c.shared)
		a := w.present(w.certificate(object.ID, app, machine), "grant_type=client_credentials",
			"client_id="+string(object.Client), "scope="+vault+"/.default", "assurance=cgroup+uid")
		got := w.claims(a)
		for claim, want := range map[string]any{
			"oid": string(object.ID), "sub": string(object.ID), "appid": string(object.Client), "appidacr": "2",
			"xms_mirid": c.mirid, "xms_az_rid": strings.Replace(string(app), "resourceGroups", "resourcegroups", 1),
			"innate_host": string(machine), "innate_assurance": "cgroup+uid", "aud": vault,
		} {
			if got[claim] != want {
				t.Errorf("%s: %s is %v, want %v", name, claim, got[claim], want)
			}
		}
		for _, never := range []string{"scp", "upn", "name", "groups", "roles"} {
			if _, ok := got[never]; ok {
				t.Errorf("%s: the token has %s", name, never)
			}
		}
	}
}

func TestTheAudienceIsAsItWasAskedFor(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	v1, _ := w.register(directory.Registration{Name: "v1", IdentifierURIs: []string{"api://orders", "https://orders.innate.test/api"}})
	v2, _ := w.register(directory.Registration{Name: "v2", IdentifierURIs: []string{"api://v2"}, TokenVersion: 2, SigningAlg: "ES256"})
	w.register(directory.Registration{Name: "short", IdentifierURIs: []string{"api://short"}, SigningAlg: "ES256"})

	for _, c := range []struct{ scope, aud, ver, alg string }{
		{"https://vault.azure.net/.default", "https://vault.azure.net", "1.0", "RS256"},
		{"https://vault.azure.net//.default", "https://vault.azure.net/", "1.0", "RS256"}, // the suffix is cut once
		{"https://VAULT.azure.net/.default", "https://VAULT.azure.net", "1.0", "RS256"},
		{"https://management.innate.test/.default", "https://management.innate.test", "1.0", "RS256"},
		{"https://database.windows.net//.default", "https://database.windows.net/", "1.0", "RS256"},
		{"https://ossrdbms-aad.innate.test/.default", "https://ossrdbms-aad.innate.test", "1.0", "RS256"},
		{"https://storage.azure.com/.default", "https://storage.azure.com", "1.0", "RS256"},
		{"cfa8b339-82a2-471a-a3c9-0fc0be7a4093/.default", "cfa8b339-82a2-471a-a3c9-0fc0be7a4093", "1.0", "RS256"},
		{"api://orders/.default", "api://orders", "1.0", "RS256"},
		{"https://orders.innate.test/api//.default", "https://orders.innate.test/api/", "1.0", "RS256"},
		{string(v1.Client) + "/.default", string(v1.Client), "1.0", "RS256"},
		{"api://short/.default", "api://short", "1.0", "ES256"},
		{"api://v2/.default", string(v2.Client), "2.0", "ES256"},
		{"api://" + string(v2.Client) + "/.default", string(v2.Client), "2.0", "ES256"},
	} {
		a := w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+c.scope)
		got := w.claims(a)
		if got["aud"] != c.aud || got["ver"] != c.ver {
			t.Errorf("%s: aud %v, ver %v; want %s, %s", c.scope, got["aud"], got["ver"], c.aud, c.ver)
		}
		header := header(t, a)
		if _, x5t := header["x5t"]; header["alg"] != c.alg || header["typ"] != "JWT" || x5t != (c.ver == "1.0") {
			t.Errorf("%s: header %v", c.scope, header)
		}
		if c.ver == "2.0" {
			want := map[string]any{"azp": string(client), "azpacr": "1", "iss": login + "/" + tenant + "/v2.0"}
			for claim, want := range want {
				if got[claim] != want {
					t.Errorf("v2: %s is %v, want %v", claim, got[claim], want)
				}
			}
			for _, v1 := range []string{"appid", "appidacr", "idp"} {
				if _, ok := got[v1]; ok {
					t.Errorf("a v2 token has %s", v1)
				}
			}
		}
	}
}

func TestAnUnknownAudienceIsRefusedWithAdvice(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	w.register(directory.Registration{Name: "orders", IdentifierURIs: []string{"https://orders.innate.test", "api://orders"}})
	for _, resource := range []string{
		"https://example.org", "https://vault.azure.net.example.org", "https://vault.azure.net//", "api://nobody", "x",
		"https://orders.innate.test//", "api://orders//", "api://" + string(client) + "//", // one slash is passed over, not two
	} {
		a := w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+resource+"/.default")
		a.refused(400, "invalid_resource", "500011")
		if !strings.Contains(a.member("error_description"), "innate services") || !strings.Contains(a.body, resource) {
			t.Errorf("%s: %s", resource, a.body)
		}
	}
}

func TestTheTokenRequestIsReadStrictly(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	id, sec := "client_id="+string(client), "client_secret="+secret
	const grant, scope = "grant_type=client_credentials", "scope=https://vault.azure.net/.default"
	for name, c := range map[string]struct {
		path  string
		form  []string
		oauth string
		code  string
	}{
		"no grant type":        {tokenPath, []string{id, sec, scope}, "invalid_request", "900144"},
		"another grant type":   {tokenPath, []string{"grant_type=password", id, sec, scope}, "unsupported_grant_type", "70003"},
		"no client":            {tokenPath, []string{grant, sec, scope}, "invalid_request", "900144"},
		"client is no GUID":    {tokenPath, []string{grant, "client_id=orders", sec, scope}, "unauthorized_client", "700016"},
		"no scope":             {tokenPath, []string{grant, id, sec}, "invalid_request", "900144"},
		"no resource at v1":    {"/" + tenant + "/oauth2/token", []string{grant, id, sec}, "invalid_request", "900144"},
		"not .default":         {tokenPath, []string{grant, id, sec, "scope=https://vault.azure.net/read"}, "invalid_scope", "1002012"},
		"bare .default":        {tokenPath, []string{grant, id, sec, "scope=/.default"}, "invalid_scope", "1002012"},
		"only openid":          {tokenPath, []string{grant, id, sec, "scope=openid profile"}, "invalid_scope", "1002012"},
		"two resources":        {tokenPath, []string{grant, id, sec, "scope=https://vault.azure.net/.default https://graph.microsoft.com/.default"}, "invalid_scope", "70011"},
		"scope twice":          {tokenPath, []string{grant, id, sec, scope, scope}, "invalid_request", "9002313"},
		"client twice":         {tokenPath, []string{grant, id, id, sec, scope}, "invalid_request", "9002313"},
		"unknown twice":        {tokenPath, []string{grant, id, sec, scope, "x=1", "x=2"}, "invalid_request", "9002313"},
		"two proofs":           {tokenPath, []string{grant, id, sec, scope, "client_assertion=x"}, "invalid_request", "9002313"},
		"secret in the query":  {tokenPath + "?client_secret=x", []string{grant, id, sec, scope}, "invalid_request", "9002313"},
		"not well formed":      {tokenPath + "?client%5fsecret=x%zz;", []string{grant, id, sec, scope}, "invalid_request", "9002313"},
		"assertion in a query": {tokenPath + "?client_assertion=x", []string{grant, id, sec, scope}, "invalid_request", "9002313"},
		"another tenant":       {"/00000000-0000-0000-0000-000000000001/oauth2/v2.0/token", []string{grant, id, sec, scope}, "invalid_request", "90002"},
		"common":               {"/common/oauth2/v2.0/token", []string{grant, id, sec, scope}, "invalid_request", "90002"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.post(c.path, c.form...)
			a.t = t
			a.refused(400, c.oauth, c.code)
		})
	}
	w.post(tokenPath, grant, id, scope).refused(401, "invalid_client", "7000218")
}

func TestWhatSDKsAddIsPassedOver(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	form := []string{"grant_type=client_credentials", "client_id=" + strings.ToUpper(string(client)), "client_secret=" + secret,
		"scope=https://vault.azure.net/.default", "client_info=1", `claims={"access_token":{"xms_cc":{"values":["CP1"]}}}`,
		"x-client-current-telemetry=5|771,2,,,|,", "assurance=device"}
	for _, path := range []string{
		tokenPath + "?client-request-id=0f8fad5b-d9cb-469f-a165-70867728950e&x=1&x=2",
		"/" + strings.ToUpper(tenant) + "/oauth2/v2.0/token",
		"/Innate.Test/oauth2/v2.0/token",
		"/adfs/oauth2/v2.0/token", "/adfs/oauth2/token",
	} {
		r := request(path, form...)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded;charset=utf-8")
		claims := w.claims(w.send(w.tokens.Handler(), r))
		if _, ok := claims["innate_assurance"]; ok {
			t.Errorf("%s: an application said its own assurance", path)
		}
	}
}

func TestBodiesThatAreNoFormAreRefused(t *testing.T) {
	w := start(t)
	for name, c := range map[string]struct {
		r      *http.Request
		status int
	}{
		"JSON": {func() *http.Request {
			r := raw(tokenPath, `{"grant_type":"client_credentials"}`)
			r.Header.Set("Content-Type", "application/json")
			return r
		}(), 400},
		"no content type": {func() *http.Request {
			r := raw(tokenPath, "grant_type=client_credentials")
			r.Header.Del("Content-Type")
			return r
		}(), 400},
		"bad escape": {raw(tokenPath, "client_secret=%zz"), 400},
		"semicolon":  {raw(tokenPath, "grant_type=client_credentials;client_id=x"), 400},
		"too long":   {raw(tokenPath, "a="+strings.Repeat("x", 64<<10)), 413},
		"GET":        {httptest.NewRequest(http.MethodGet, login+tokenPath, nil), 405},
	} {
		a := w.send(w.tokens.Handler(), c.r)
		if a.status != c.status || a.member("error") != "invalid_request" || a.member("trace_id") == "" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if strings.Contains(a.body, "zz") {
			t.Errorf("%s: the answer quotes the body: %s", name, a.body)
		}
	}
}

func TestARefusalHasEntrasShape(t *testing.T) {
	w := start(t)
	r := request(tokenPath, "grant_type=client_credentials", "client_id=0f8fad5b-d9cb-469f-a165-70867728950e", "client_secret=x", "scope="+vault+"/.default")
	r.Header.Set("client-request-id", "7c9e6679-7425-40de-944b-e07fc1f90ae7")
	r.Header.Set("return-client-request-id", "true")
	r.RemoteAddr = "192.0.2.7:4711"
	a := w.send(w.tokens.Handler(), r)
	a.refused(400, "unauthorized_client", "700016")

	trace := a.member("trace_id")
	want := "AADSTS700016: Application with identifier '0f8fad5b-d9cb-469f-a165-70867728950e' was not found in the directory '" + tenant +
		"'. It may have been deleted, or belong to another tenant. Trace ID: " + trace +
		" Correlation ID: 7c9e6679-7425-40de-944b-e07fc1f90ae7 Timestamp: 2026-03-01 12:00:00Z"
	if got := a.member("error_description"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if a.member("error_uri") != login+"/error?code=700016" || a.member("timestamp") != "2026-03-01 12:00:00Z" {
		t.Errorf("%s", a.body)
	}
	if a.header.Get("x-ms-request-id") != trace || a.header.Get("client-request-id") != "7c9e6679-7425-40de-944b-e07fc1f90ae7" {
		t.Errorf("header %v", a.header)
	}
	ev := w.last()
	if ev.Allowed || ev.Trace != trace || ev.Correlation != "7c9e6679-7425-40de-944b-e07fc1f90ae7" || ev.Address != "192.0.2.7" ||
		ev.Client != "0f8fad5b-d9cb-469f-a165-70867728950e" || !strings.HasPrefix(ev.Why, "AADSTS700016") {
		t.Errorf("event %+v", ev)
	}
}

func TestEveryTokenIsInTheAuditLogBeforeItIsAnswered(t *testing.T) {
	w := start(t)
	object := w.identity(app, false)
	cert := w.certificate(object.ID, app, machine)
	form := []string{"grant_type=client_credentials", "client_id=" + string(object.Client), "scope=" + vault + "/.default", "assurance=netns"}
	claims := w.claims(w.present(cert, form...))

	ev := w.last()
	if !ev.Allowed || ev.Action != "issue-token" || ev.Target != vault || ev.Principal != object.ID || ev.Client != object.Client ||
		ev.Hosting != string(app) || ev.Host != string(machine) || ev.Assurance != innate.NetNS || ev.Token != claims["uti"] {
		t.Errorf("event %+v", ev)
	}
	if got := slices.Sorted(maps.Keys(ev.Detail)); !slices.Equal(got, []string{"credential", "key", "kid"}) {
		t.Errorf("detail %v", ev.Detail)
	}

	if err := w.log.Close(); err != nil {
		t.Fatal(err)
	}
	a := w.present(cert, form...)
	a.refused(503, "temporarily_unavailable", "90033")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("header %v", a.header)
	}
}

func TestNoTokenWritesToTheStore(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	before := w.revision()
	for range 3 {
		w.claims(w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+vault+"/.default"))
	}
	w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret=wrong", "scope="+vault+"/.default")
	if after := w.revision(); after != before {
		t.Errorf("revision %d, was %d", after, before)
	}
}

func (w *world) revision() (at store.Revision) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(r store.Reader) error { at = r.Revision(); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return at
}

func TestTheHostHeaderSteersNothing(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	r := request(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+vault+"/.default")
	r.Host = "evil.example.org"
	r.Header.Set("X-Forwarded-Host", "evil.example.org")
	r.Header.Set("Forwarded", "host=evil.example.org")
	if got := w.claims(w.send(w.tokens.Handler(), r))["iss"]; got != login+"/"+tenant+"/" {
		t.Errorf("iss %v", got)
	}
	d := httptest.NewRequest(http.MethodGet, "https://evil.example.org/"+tenant+"/v2.0/.well-known/openid-configuration", nil)
	d.Header.Set("X-Forwarded-Host", "evil.example.org")
	if a := w.send(w.tokens.Handler(), d); strings.Contains(a.body, "evil") {
		t.Errorf("discovery: %s", a.body)
	}
}

func TestATokensLifeIsAsConfigured(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	w.config.Lifetime = 8 * time.Hour
	s, err := tokens.New(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	a := w.send(s.Handler(), request(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+vault+"/.default"))
	if a.member("expires_in") != "28800" || a.member("refresh_in") != "14400" {
		t.Errorf("%s", a.body)
	}
	for _, bad := range []time.Duration{time.Minute, 25 * time.Hour, -time.Hour} {
		w.config.Lifetime = bad
		if _, err := tokens.New(t.Context(), w.config); err == nil {
			t.Errorf("a life of %s was accepted", bad)
		}
	}
}

func TestServicesAreListedWithoutSecrets(t *testing.T) {
	w := start(t)
	r, _ := w.register(directory.Registration{Name: "orders", IdentifierURIs: []string{"api://orders"}})
	w.secret(r.Client, w.now)
	w.register(directory.Registration{Name: "without an audience"})
	s, err := tokens.New(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	a := w.send(s.ServicesHandler(), httptest.NewRequest(http.MethodGet, login+"/services", nil))
	var got []tokens.FirstParty
	if err := json.Unmarshal([]byte(a.body), &got); err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(w.config.Services), tokens.FirstParty{Name: "orders", ID: r.Client, URIs: []string{"api://orders"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if strings.Contains(strings.ToLower(a.body), "hash") || strings.Contains(a.body, "hint") {
		t.Errorf("%s", a.body)
	}
	for uri, want := range map[string]bool{"https://VAULT.azure.net/": true, vault: true, "api://orders": false, "https://vault.azure.net/x": false} {
		if got := s.FirstParty(uri); got != want {
			t.Errorf("FirstParty(%s) = %v", uri, got)
		}
	}
}
