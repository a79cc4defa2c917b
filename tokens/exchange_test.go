package tokens_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/jwt"
	"innate/rest"
	"innate/store"
	"innate/tokens"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessToken   = "urn:ietf:params:oauth:token-type:access_token"
	jwtType       = "urn:ietf:params:oauth:token-type:jwt"
)

// A shop is a world in which the API "orders" is called by a managed identity
// and may exchange what it is called with.
type shop struct {
	*world
	orders  proven
	web     directory.Object // who calls
	granted bool             // whether MayExchange allows
	asked   []innate.Principal
	revoked string // uti of a revoked token
}

// A proven client is an app registration with a secret.
type proven struct {
	directory.Registration
	secret string
}

func (w *world) proven(r directory.Registration) proven {
	w.t.Helper()
	made, _ := w.register(r)
	return proven{made, w.secret(made.Client, w.now.Add(-time.Hour))}
}

// openShop starts one. The token service is made anew, since the world's exchanges nothing.
func openShop(t testing.TB) *shop {
	t.Helper()
	s := &shop{world: start(t), granted: true}
	s.config.MayExchange = func(_ context.Context, who innate.Principal, subject directory.Object, resource string) error {
		s.asked = append(s.asked, who)
		if !s.granted {
			return rest.Errorf(http.StatusForbidden, "AuthorizationFailed", "%s may not act for %s at %s", who.Name, subject.Name, resource)
		}
		return nil
	}
	s.config.Revoked = func(of innate.Principal, _ string) (string, bool) { return "it was taken back", of.Token == s.revoked }
	service, err := tokens.New(t.Context(), s.config)
	if err != nil {
		t.Fatal(err)
	}
	s.tokens = service
	s.orders = s.proven(directory.Registration{Name: "orders", IdentifierURIs: []string{"api://orders"}})
	s.web = s.identity(app, false)
	return s
}

// called is the token with which the managed identity calls an audience.
func (s *shop) called(audience string) string {
	s.t.Helper()
	a := s.present(s.certificate(s.web.ID, app, machine), "grant_type=client_credentials",
		"client_id="+string(s.web.Client), "scope="+audience+"/.default", "assurance=cgroup+uid")
	s.claims(a)
	return a.member("access_token")
}

// swap is an exchange of token by a client for the vault; further fields replace.
func (s *shop) swap(by proven, token string, fields ...string) answer {
	s.t.Helper()
	return s.post(tokenPath, swapForm(by, token, fields...)...)
}

func swapForm(by proven, token string, fields ...string) []string {
	form := map[string]string{
		"grant_type": exchangeGrant, "client_id": string(by.Client), "client_secret": by.secret,
		"subject_token": token, "subject_token_type": accessToken, "scope": vault + "/.default",
	}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, "=")
		form[name] = value
	}
	var all []string
	for name, value := range form {
		all = append(all, name+"="+value)
	}
	return all
}

func TestAnExchangedTokenIsTheSubjectsAndSaysWhoActs(t *testing.T) {
	s := openShop(t)
	token := s.called("api://orders")
	uti, _ := payloadOf(t, token)["uti"].(string)
	s.now = noon.Add(10 * time.Minute)

	a := s.swap(s.orders, token)
	got := s.claims(a)
	want := map[string]any{
		"aud": vault, "iss": login + "/" + tenant + "/", "idp": login + "/" + tenant + "/", "ver": "1.0", "idtyp": "app", "tid": tenant,
		"iat": float64(s.now.Unix()), "nbf": float64(s.now.Unix() - 300), "innate_iat": float64(s.now.UnixMilli()),
		"exp": float64(noon.Unix() + 3600), // as the subject token's, and not an hour from now
		"oid": string(s.web.ID), "sub": string(s.web.ID), "appid": string(s.web.Client), "appidacr": "2",
		"xms_mirid":   strings.Replace(string(app), "resourceGroups", "resourcegroups", 1),
		"xms_az_rid":  strings.Replace(string(app), "resourceGroups", "resourcegroups", 1),
		"innate_host": string(machine), "innate_assurance": "cgroup+uid",
		"act": map[string]any{"sub": string(s.orders.Principal), "appid": string(s.orders.Client)},
		"uti": got["uti"], "jti": got["uti"],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got)\n%s", diff)
	}
	if a.member("issued_token_type") != accessToken || a.member("token_type") != "Bearer" || a.member("expires_in") != "3000" {
		t.Errorf("the answer: %s", a.body)
	}
	if len(s.asked) != 1 || s.asked[0].Object != s.orders.Principal || s.asked[0].Client != s.orders.Client {
		t.Errorf("may-exchange was asked of %+v", s.asked)
	}

	ev := s.last()
	if !ev.Allowed || ev.Action != "issue-token" || ev.Target != vault || ev.Principal != s.web.ID || ev.Client != s.web.Client ||
		ev.Token != got["uti"] || !app.Equal(innate.ResourceID(ev.Hosting)) || ev.Assurance != innate.CgroupUID {
		t.Errorf("the event is not of the subject: %+v", ev)
	}
	if ev.Detail["actor"] != string(s.orders.Client) || ev.Detail["subjectToken"] != uti || !strings.Contains(ev.Why, string(s.orders.Client)) {
		t.Errorf("the event does not say who exchanged what: %+v", ev)
	}
}

// payloadOf is a token's claims, unverified.
func payloadOf(t testing.TB, token string) (c map[string]any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnExchangeNamesItsAudienceInAnyOfThreeWays(t *testing.T) {
	s := openShop(t)
	s.register(directory.Registration{Name: "v2", IdentifierURIs: []string{"api://v2"}, TokenVersion: 2, SigningAlg: "ES256"})
	token := s.called("api://orders")
	for _, c := range []struct {
		name, path string
		fields     []string
		aud        string // "" means refused as an invalid request
	}{
		{"scope", tokenPath, nil, vault},
		{"scope with OpenID's", tokenPath, []string{"scope=openid " + vault + "/.default offline_access"}, vault},
		{"resource", tokenPath, []string{"scope=", "resource=" + vault + "/"}, vault + "/"},
		{"audience", tokenPath, []string{"scope=", "audience=" + vault}, vault},
		{"resource, v1", "/" + tenant + "/oauth2/token", []string{"scope=", "resource=" + vault}, vault},
		{"scope, v1", "/" + tenant + "/oauth2/token", nil, vault},
		{"as a JWT", tokenPath, []string{"subject_token_type=" + jwtType, "requested_token_type=" + jwtType}, vault},
		{"none", tokenPath, []string{"scope="}, ""},
		{"two", tokenPath, []string{"audience=" + vault}, ""},
		{"an actor's token", tokenPath, []string{"actor_token=" + token, "actor_token_type=" + accessToken}, ""},
		{"an ID token", tokenPath, []string{"subject_token_type=urn:ietf:params:oauth:token-type:id_token"}, ""},
		{"no type", tokenPath, []string{"subject_token_type="}, ""},
		{"no token", tokenPath, []string{"subject_token="}, ""},
		{"for a refresh token", tokenPath, []string{"requested_token_type=urn:ietf:params:oauth:token-type:refresh_token"}, ""},
	} {
		a := s.post(c.path, swapForm(s.orders, token, c.fields...)...)
		if c.aud == "" {
			if a.status != http.StatusBadRequest || a.member("error") != "invalid_request" || strings.Contains(a.body, token) {
				t.Errorf("%s: got %d %s, want an invalid request", c.name, a.status, a.body)
			}
			continue
		}
		if got := s.claims(a); got["aud"] != c.aud {
			t.Errorf("%s: aud %v, want %s", c.name, got["aud"], c.aud)
		}
		if kind := a.member("issued_token_type"); kind != accessToken && !slices.Contains(c.fields, "requested_token_type="+kind) {
			t.Errorf("%s: issued_token_type %s", c.name, kind)
		}
	}
	s.swap(s.orders, token, "scope=api://nobody/.default").refused(400, "invalid_resource", "500011")

	got := s.claims(s.swap(s.orders, token, "scope=api://v2/.default"))
	if got["ver"] != "2.0" || got["azp"] != string(s.web.Client) || got["azpacr"] != "2" || got["appid"] != nil {
		t.Errorf("for an API with v2 tokens: %v", got)
	}
}

func TestOnlyATokenThatIsGoodAndForTheActorIsExchanged(t *testing.T) {
	s := openShop(t)
	other := s.proven(directory.Registration{Name: "other", IdentifierURIs: []string{"api://other"}})
	v2 := s.proven(directory.Registration{Name: "v2", IdentifierURIs: []string{"api://v2"}, TokenVersion: 2, SigningAlg: "ES256"})
	greedy := s.proven(directory.Registration{Name: "greedy", IdentifierURIs: []string{vault}}) // what the wiring refuses
	token := s.called("api://orders")
	elsewhere := *s.world
	foreign := &shop{world: &elsewhere, web: s.web}
	foreign.config.Login = "https://login.elsewhere.test" // its store, and so its keys, were copied
	var err error
	if foreign.tokens, err = tokens.New(t.Context(), foreign.config); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	encode := base64.RawURLEncoding.EncodeToString
	twin, err := jwt.NewSigner(newKey(t), jwt.ES256, map[string]any{"kid": kidOf(t, s.called("api://v2"))})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := twin.Sign(payloadOf(t, token))
	if err != nil {
		t.Fatal(err)
	}
	changed := payloadOf(t, token)
	changed["oid"], changed["sub"] = string(other.Principal), string(other.Principal)
	altered, err := json.Marshal(changed)
	if err != nil {
		t.Fatal(err)
	}

	for name, c := range map[string]struct {
		by    proven
		token string
		good  bool
	}{
		"by its identifier URI":             {s.orders, token, true},
		"by its URI with a slash":           {s.orders, s.called("api://orders/"), true},
		"by its client id":                  {s.orders, s.called(string(s.orders.Client)), true},
		"by api:// and its client id":       {s.orders, s.called("api://" + string(s.orders.Client)), true},
		"a v2 token, by ES256":              {v2, s.called("api://v2"), true},
		"for another API":                   {other, token, false}, // it saw the token and wants to climb
		"for the platform's own service":    {s.orders, s.called(vault), false},
		"for a service taken for its own":   {greedy, s.called(vault), false},
		"of another issuer":                 {s.orders, foreign.called("api://orders"), false},
		"signed by a twin of the key":       {s.orders, forged, false},
		"claims changed":                    {s.orders, parts[0] + "." + encode(altered) + "." + parts[2], false},
		"unsigned":                          {s.orders, encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", false},
		"without a kid":                     {s.orders, encode([]byte(`{"alg":"RS256"}`)) + "." + parts[1] + "." + parts[2], false},
		"by the key under another alg":      {s.orders, strings.Replace(token, parts[0], encode([]byte(`{"alg":"ES256","kid":"`+kidOf(t, token)+`"}`)), 1), false},
		"with a claim that stands twice":    {s.orders, parts[0] + "." + encode([]byte(`{"aud":"a","aud":"b"}`)) + "." + parts[2], false},
		"no token at all":                   {s.orders, "hunter2", false},
		"a token with more behind the dots": {s.orders, token + ".x", false},
	} {
		a := s.swap(c.by, c.token)
		if c.good {
			if got := s.claims(a); got["sub"] != string(s.web.ID) {
				t.Errorf("%s: a token of %v", name, got["sub"])
			}
			continue
		}
		t.Log(name)
		a.refused(400, "invalid_request", "50013")
		if strings.Contains(a.body, c.token) {
			t.Errorf("%s: the token is in the refusal", name)
		}
	}
}

// kidOf is that of a token.
func kidOf(t testing.TB, token string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	var h struct {
		Kid string `json:"kid"`
	}
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h.Kid
}

func TestASubjectTokenEndsWithItsTimeAndItsSubject(t *testing.T) {
	for name, end := range map[string]func(s *shop, token string){
		"expired":      func(s *shop, _ string) { s.now = s.now.Add(time.Hour) },
		"not yet good": func(s *shop, _ string) { s.now = s.now.Add(-6 * time.Minute) },
		"revoked":      func(s *shop, token string) { s.revoked = payloadOf(s.t, token)["uti"].(string) },
		"disabled":     func(s *shop, _ string) { s.enable(s.web.ID, false) },
		"deleted": func(s *shop, _ string) {
			s.update(func(tx store.Tx) error { return s.directory.DeleteObject(tx, s.web.ID) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openShop(t)
			token := s.called("api://orders")
			s.claims(s.swap(s.orders, token))
			end(s, token)
			s.swap(s.orders, token).refused(400, "invalid_request", "50013")
			if ev := s.last(); ev.Allowed || ev.Client != s.orders.Client || ev.Detail["actor"] != string(s.orders.Client) {
				t.Errorf("the refusal is recorded as %+v", ev)
			}
		})
	}
}

func TestAnExchangeNeedsPermissionAndAProvedActor(t *testing.T) {
	s := openShop(t)
	token := s.called("api://orders")

	s.granted = false
	a := s.swap(s.orders, token)
	a.refused(400, "invalid_grant", "65001")
	if text := a.member("error_description"); !strings.Contains(text, "orders may not act for App1 at "+vault) {
		t.Errorf("the refusal does not say what is missing: %s", text)
	}
	if ev := s.last(); ev.Allowed || ev.Detail["subject"] != string(s.web.ID) || ev.Detail["subjectToken"] != payloadOf(t, token)["uti"] {
		t.Errorf("the refusal is recorded as %+v", ev)
	}

	s.granted = true
	s.swap(proven{s.orders.Registration, "wrong"}, token).refused(401, "invalid_client", "7000215")
	s.swap(proven{s.orders.Registration, ""}, token).refused(401, "invalid_client", "7000218")
	r := request(tokenPath+"?subject_token="+url.QueryEscape(token), swapForm(s.orders, token)...)
	s.send(s.tokens.Handler(), r).refused(400, "invalid_request", "9002313")
	s.enable(s.orders.Principal, false)
	s.swap(s.orders, token).refused(400, "unauthorized_client", "7000112")
}

func TestAWorkloadExchangesItsOwnTokenWithoutARole(t *testing.T) {
	s := openShop(t)
	s.granted = false
	token := s.called("https://storage.azure.com")
	got := s.claims(s.present(s.certificate(s.web.ID, app, machine), "grant_type="+exchangeGrant, "client_id="+string(s.web.Client),
		"subject_token="+token, "subject_token_type="+accessToken, "scope="+vault+"/.default", "assurance=device"))
	if got["sub"] != string(s.web.ID) || got["aud"] != vault || got["innate_assurance"] != "cgroup+uid" {
		t.Errorf("got a token for %v at %v, assurance %v; want its own at the vault, as surely as before", got["sub"], got["aud"], got["innate_assurance"])
	}
	if len(s.asked) > 0 {
		t.Error("a role was asked for")
	}
}

// Of a workload that runs in two places, what one was given is of no use to the other.
func TestAWorkloadsOwnTokenIsExchangedOnlyWhereItGotIt(t *testing.T) {
	s := openShop(t)
	shared := s.identity(group+"Microsoft.ManagedIdentity/userAssignedIdentities/Id1", true)
	here := s.certificate(shared.ID, app, machine)
	client := "client_id=" + string(shared.Client)
	token := s.present(here, "grant_type=client_credentials", client, "scope="+vault+"/.default", "assurance=device").member("access_token")
	swap := []string{"grant_type=" + exchangeGrant, client, "subject_token=" + token, "subject_token_type=" + accessToken, "scope=https://storage.azure.com/.default"}

	s.present(s.certificate(shared.ID, app, machine+"2"), swap...).refused(400, "invalid_request", "50013")
	s.present(s.certificate(shared.ID, app+"2", machine), swap...).refused(400, "invalid_request", "50013")
	got := s.claims(s.present(here, append(swap, "assurance=uid")...))
	if got["xms_az_rid"] != strings.Replace(string(app), "resourceGroups", "resourcegroups", 1) || got["innate_assurance"] != "uid" {
		t.Errorf("it runs at %v, assurance %v; want it as surely as it proved itself now", got["xms_az_rid"], got["innate_assurance"])
	}
}

func TestASecretMakesNoTokenOfAKey(t *testing.T) {
	s := openShop(t)
	key := newKey(t)
	sum := sha256.Sum256(s.certify(s.orders.Client, key, noon.Add(-time.Hour), noon.Add(time.Hour)))
	byKey := s.assert(s.orders.Client, assertion{key, jwt.ES256,
		map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, s.valid(s.orders.Client)}.compact(t))
	if got := s.claims(byKey)["appidacr"]; got != "2" {
		t.Fatalf("appidacr %v", got)
	}
	if got := s.claims(s.swap(s.orders, byKey.member("access_token")))["appidacr"]; got != "1" {
		t.Errorf("proved by a secret, it has appidacr %v", got)
	}
}

// Whoever merely saw a token is told that it is not for it, and no more.
func TestWhatBecameOfASubjectIsToldToItsServiceAlone(t *testing.T) {
	s := openShop(t)
	other := s.proven(directory.Registration{Name: "other", IdentifierURIs: []string{"api://other"}})
	token := s.called("api://orders")
	want := s.swap(other, token).member("error_description")
	s.enable(s.web.ID, false)
	got := s.swap(other, token).member("error_description")
	if text, _, _ := strings.Cut(want, " Trace ID"); !strings.HasPrefix(got, text) {
		t.Errorf("got  %s\nwant %s", got, text)
	}
}

// An exchanged token is shown to services. Were it taken as the proof of another
// client, its bearer would have a token with a life of its own, and no act in it.
func TestAnExchangedTokenProvesNoOtherClient(t *testing.T) {
	s := openShop(t)
	const cloud = directory.FederatedAudience
	s.register(directory.Registration{Name: "exchange", IdentifierURIs: []string{cloud}})
	r, object := s.register(directory.Registration{Name: "elsewhere"})
	s.federate(object.ID, directory.FederatedCredential{Issuer: login + "/" + tenant + "/", Subject: string(s.web.ID)})

	s.claims(s.assert(r.Client, s.called(cloud)))
	swapped := s.swap(s.orders, s.called("api://orders"), "scope="+cloud+"/.default")
	s.claims(swapped)
	s.assert(r.Client, swapped.member("access_token")).refused(401, "invalid_client", "700027")
}

func TestActorsAreNestedAndAtMostFour(t *testing.T) {
	s := openShop(t)
	token := s.called("api://orders")
	var want any
	for range 4 {
		a := s.swap(s.orders, token, "scope=api://orders/.default")
		act := map[string]any{"sub": string(s.orders.Principal), "appid": string(s.orders.Client)}
		if want != nil {
			act["act"] = want
		}
		want = act
		if diff := cmp.Diff(want, s.claims(a)["act"]); diff != "" {
			t.Fatalf("act (-want +got)\n%s", diff)
		}
		token = a.member("access_token")
	}
	s.swap(s.orders, token).refused(400, "invalid_request", "50013")
}

func TestDoubtIsNoPermission(t *testing.T) {
	s := openShop(t)
	token := s.called("api://orders")
	s.config.MayExchange = func(context.Context, innate.Principal, directory.Object, string) error {
		return errors.New("the store is away")
	}
	var err error
	if s.tokens, err = tokens.New(t.Context(), s.config); err != nil {
		t.Fatal(err)
	}
	a := s.swap(s.orders, token)
	a.refused(503, "temporarily_unavailable", "90033")
	if strings.Contains(a.body, "the store is away") {
		t.Errorf("the cause is in the answer: %s", a.body)
	}
}

func TestAServiceThatExchangesNothingSaysSo(t *testing.T) {
	w := start(t)
	by := w.proven(directory.Registration{IdentifierURIs: []string{"api://orders"}})
	w.post(tokenPath, swapForm(by, "x")...).refused(400, "unsupported_grant_type", "70003")
	if a := w.send(w.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+"/"+tenant+"/v2.0/.well-known/openid-configuration", nil)); strings.Contains(a.body, exchangeGrant) {
		t.Error("discovery lists the grant nevertheless")
	}
	s := openShop(t)
	if a := s.send(s.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+"/"+tenant+"/v2.0/.well-known/openid-configuration", nil)); !strings.Contains(a.body, exchangeGrant) {
		t.Error("discovery does not list the grant")
	}
	s.config.Revoked = nil
	if _, err := tokens.New(t.Context(), s.config); err == nil {
		t.Error("it exchanges without knowing what is revoked")
	}
}

// FuzzSubjectToken presents anything as the subject token: nothing but a token
// of ours is exchanged.
func FuzzSubjectToken(f *testing.F) {
	s := openShop(f)
	good := s.called("api://orders")
	f.Add(good)
	f.Add(strings.Replace(good, ".", "..", 1))
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		values := url.Values{}
		for _, field := range swapForm(s.orders, token) {
			name, value, _ := strings.Cut(field, "=")
			values.Set(name, value)
		}
		rec := httptest.NewRecorder()
		s.tokens.Handler().ServeHTTP(rec, raw(tokenPath, values.Encode()))
		if rec.Code >= http.StatusInternalServerError || rec.Code == http.StatusOK && token != good {
			t.Errorf("%q: %d %s", token, rec.Code, rec.Body)
		}
	})
}
