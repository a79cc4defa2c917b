package bearer_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate/bearer"
	"innate/feed/client"
	"innate/jwt"
)

func TestAGoodTokenSaysWhoIsAsking(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	now := i.clock()
	for name, token := range map[string]string{
		"v1, RS256":                        i.sign("rsa-1", i.claims(nil)),
		"v1, ES256":                        i.sign("ec-1", i.claims(nil)),
		"v2, for a GUID":                   i.sign("ec-1", i.v2(nil)),
		"audience with a slash":            i.sign("ec-1", i.claims(claims{"aud": audience + "/"})),
		"audience's host in small letters": i.sign("ec-1", i.claims(claims{"aud": "https://vault.example.org"})),
		"another audience of the service":  i.sign("ec-1", i.claims(claims{"aud": "https://vault.azure.net/"})),
		"the tenant in capital letters":    i.sign("ec-1", i.claims(claims{"tid": strings.ToUpper(tenant)})),
		"issued by a clock a little ahead": i.sign("ec-1", i.claims(claims{"nbf": now.Unix() + 59})),
		"claims that nobody has heard of":  i.sign("ec-1", i.claims(claims{"rh": "0.x", "aio": "y", "xms_cc": []string{"cp1"}})),
		"app roles":                        i.sign("rsa-1", i.claims(claims{"roles": []string{"Reader"}})),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			want := wantPrincipal
			if !got.Principal.IssuedAt.Equal(now) {
				t.Errorf("issued at %v, want %v", got.Principal.IssuedAt, now)
			}
			want.IssuedAt, want.Expires = got.Principal.IssuedAt, got.Principal.Expires
			if diff := cmp.Diff(want, got.Principal); diff != "" {
				t.Errorf("principal (-want +got):\n%s", diff)
			}
			if !got.Expires.Equal(now.Add(time.Hour)) || !json.Valid(got.Raw) {
				t.Errorf("expires %v, raw %s", got.Expires, got.Raw)
			}
		})
	}
}

func TestATokenOfSomebodyWithoutAResourceIsCalledByItsClientID(t *testing.T) {
	i := newIssuer(t)
	none := claims{"xms_mirid": nil, "xms_az_rid": nil, "innate_host": nil, "innate_assurance": nil}
	got, err := i.verifier(nil).Verify(t.Context(), i.sign("ec-1", i.claims(none)))
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Principal; p.Name != app || p.Hosting != "" || p.Host != "" {
		t.Errorf("principal %+v", p)
	}
}

func TestABadTokenIsRefused(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	now := i.clock().Unix()
	good := i.sign("ec-1", i.claims(nil))
	parts := strings.Split(good, ".")
	payload, err := json.Marshal(i.claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	es := func(c claims) string { return i.sign("ec-1", i.claims(c)) }
	for name, token := range map[string]string{
		"nothing":                         "",
		"no token":                        "hello",
		"no signature":                    parts[0] + "." + parts[1] + ".",
		"another signature":               parts[0] + "." + parts[1] + "." + strings.Split(es(claims{"uti": "2"}), ".")[2],
		"another payload":                 parts[0] + "." + strings.Split(es(claims{"uti": "2"}), ".")[1] + "." + parts[2],
		"alg none":                        raw(`{"alg":"none","typ":"JWT","kid":"ec-1"}`, string(payload), nil),
		"alg None":                        raw(`{"alg":"None","kid":"ec-1"}`, string(payload), nil),
		"HS256 with the public key":       hs256(t, "rsa-1", string(payload)),
		"PS256 with the right key":        i.signWith(rsaKey(), jwt.PS256, "rsa-1", i.claims(nil)),
		"a key of ours, another's id":     i.signWith(i.keys["ec-1"], jwt.ES256, "rsa-1", i.claims(nil)),
		"RS256 under the id of EC":        i.signWith(rsaKey(), jwt.RS256, "ec-1", i.claims(nil)),
		"a stranger's key, our id":        i.signWith(ecKey(t), jwt.ES256, "ec-1", i.claims(nil)),
		"a stranger's key, its own id":    i.signWith(ecKey(t), jwt.ES256, "ec-9", i.claims(nil)),
		"no key id":                       raw(`{"alg":"ES256","typ":"JWT"}`, string(payload), make([]byte, 64)),
		"its own key in the header":       selfSigned(t, i.claims(nil)),
		"an unknown crit":                 raw(`{"alg":"ES256","kid":"ec-1","crit":["b64"],"b64":false}`, string(payload), make([]byte, 64)),
		"a claim twice":                   raw(`{"alg":"ES256","kid":"ec-1"}`, `{"oid":"x","oid":"y"}`, make([]byte, 64)),
		"huge":                            es(claims{"rh": strings.Repeat("x", 1<<20)}),
		"another issuer":                  es(claims{"iss": "https://login.example.com/" + tenant + "/"}),
		"the issuer of another tenant":    es(claims{"iss": i.srv.URL + "/22222222-2222-4333-8444-555555555555/"}),
		"our issuer and more":             es(claims{"iss": i.srv.URL + "/" + tenant + "/v2.0/"}),
		"no issuer":                       es(claims{"iss": nil}),
		"the version of the other one":    es(claims{"ver": "2.0"}),
		"another audience":                es(claims{"aud": "https://database.windows.net"}),
		"an audience that begins as ours": es(claims{"aud": audience + ".evil.org"}),
		"audience with two slashes":       es(claims{"aud": audience + "//"}),
		"several audiences":               es(claims{"aud": []string{audience}}),
		"no audience":                     es(claims{"aud": nil}),
		"another tenant":                  es(claims{"tid": "22222222-2222-4333-8444-555555555555"}),
		"no tenant":                       es(claims{"tid": nil}),
		"ended":                           es(claims{"exp": now - 61}),
		"no end":                          es(claims{"exp": nil}),
		"an end in words":                 es(claims{"exp": "tomorrow"}),
		"not yet good":                    es(claims{"nbf": now + 61}),
		"issued in the future":            es(claims{"iat": now + 61}),
		"no time of issue":                es(claims{"iat": nil}),
		"a user's":                        es(claims{"idtyp": "user"}),
		"another subject":                 es(claims{"sub": app}),
		"no object":                       es(claims{"oid": nil, "sub": nil}),
		"an object that is no GUID":       es(claims{"oid": "root", "sub": "root"}),
		"no client":                       es(claims{"appid": nil}),
		"a hosting resource that is none": es(claims{"xms_az_rid": "web-1"}),
		"a machine that is none":          es(claims{"innate_host": "m1"}),
		"an assurance that is none":       es(claims{"innate_assurance": "trust me"}),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), token)
			var refused *bearer.Error
			if !errors.As(err, &refused) {
				t.Fatalf("got %+v, error %v; want a bearer.Error", got, err)
			}
			if refused.Code != "invalid_token" || refused.Text == "" || refused.Fault == "" {
				t.Errorf("code %q, text %q", refused.Code, refused.Text)
			}
			if len(refused.Text) > 1000 || strings.ContainsFunc(refused.Text, func(c rune) bool { return c < ' ' || c > '~' }) {
				t.Errorf("the text does not fit in a header: %q", refused.Text)
			}
		})
	}
}

// hs256 signs with a secret that everybody has: the public key of that id, as PEM.
func hs256(t *testing.T, kid, payload string) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	token := raw(fmt.Sprintf(`{"alg":"HS256","typ":"JWT","kid":%q}`, kid), payload, nil)
	mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	mac.Write([]byte(strings.TrimSuffix(token, ".")))
	return token + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// selfSigned brings its own key in the header.
func selfSigned(t *testing.T, c claims) string {
	t.Helper()
	key := ecKey(t)
	set, err := json.Marshal(jwt.Set{Keys: []jwt.Key{{ID: "ec-1", Alg: jwt.ES256, Public: key.Public()}}})
	if err != nil {
		t.Fatal(err)
	}
	var keys struct{ Keys []json.RawMessage }
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	s, err := jwt.NewSigner(key, jwt.ES256, map[string]any{"kid": "ec-1", "jwk": keys.Keys[0]})
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestARememberedTokenEndsAllTheSame(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	token := i.sign("ec-1", i.claims(nil))
	for range 3 {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	i.pass(time.Hour + 2*time.Minute)
	if _, err := v.Verify(t.Context(), token); err == nil {
		t.Error("good after its end")
	}
}

func TestARememberedTokenIsRevokedAllTheSame(t *testing.T) {
	i := newIssuer(t)
	set := client.NewRevocations(nil)
	v := i.verifier(func(c *bearer.Config) { c.Revocations = set })
	token := i.sign("ec-1", i.claims(nil))
	for kind, id := range map[client.RevocationKind]string{
		client.RevokedIdentity: object, client.RevokedResource: strings.ToLower(vm), client.RevokedHost: strings.ToLower(machine),
		client.RevokedToken: "uti-1", client.RevokedKey: "ec-1",
	} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Fatalf("before: %v", err)
		}
		set.Apply(client.Event{Key: client.RevocationKey(kind, id), Value: json.RawMessage(`{}`)})
		if _, err := v.Verify(t.Context(), token); err == nil || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s revoked: error %v", kind, err)
		}
		set.Apply(client.Event{Key: client.RevocationKey(kind, id)})
	}
}

func TestNoTokenIsGoodOnAnOldViewOfWhatIsRevoked(t *testing.T) {
	i := newIssuer(t)
	var age time.Duration
	v := i.verifier(func(c *bearer.Config) {
		c.Revocations = client.NewRevocations(func() time.Duration { return age })
	})
	token := i.sign("ec-1", i.claims(nil))
	for _, c := range []struct {
		age  time.Duration
		want string
	}{{0, ""}, {30 * time.Second, ""}, {31 * time.Second, "temporarily_unavailable"}, {time.Second, ""}} {
		age = c.age
		_, err := v.Verify(t.Context(), token)
		if got := code(err); got != c.want {
			t.Errorf("a view %v old: %q (%v), want %q", c.age, got, err, c.want)
		}
	}
}

// code is the code of a refusal; empty when there was none.
func code(err error) string {
	if err == nil {
		return ""
	}
	var refused *bearer.Error
	if !errors.As(err, &refused) {
		return "not a bearer.Error: " + err.Error()
	}
	return refused.Code
}

func TestKeysAreFetchedOnceForManyAndAgainForANewOne(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	verifyAll := func(token string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if _, err := v.Verify(context.Background(), token); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	verifyAll(i.sign("rsa-1", i.claims(nil)))
	if n := i.documents(); n != 1 {
		t.Errorf("20 first tokens: %d fetches, want 1", n)
	}
	i.pass(time.Minute)
	fresh := ecKey(t)
	i.set(func() { i.keys = map[string]crypto.Signer{"ec-2": fresh} })
	verifyAll(i.sign("ec-2", i.claims(nil)))
	if n := i.documents(); n != 2 {
		t.Errorf("20 tokens by a new key: %d fetches in all, want 2", n)
	}
	if _, err := v.Verify(t.Context(), i.signWith(rsaKey(), jwt.RS256, "rsa-1", i.claims(claims{"uti": "late"}))); err == nil {
		t.Error("a token by a key that is published no more is good")
	}
}

func TestTokensOfUnknownKeysDoNotHammerTheIssuer(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	stranger := ecKey(t)
	for n := range 50 {
		token := i.signWith(stranger, jwt.ES256, fmt.Sprint("kid-", n), i.claims(nil))
		if _, err := v.Verify(t.Context(), token); code(err) != "invalid_token" {
			t.Fatalf("error %v", err)
		}
	}
	if n := i.documents(); n != 1 {
		t.Errorf("%d fetches in a moment, want 1", n)
	}
	if _, err := v.Verify(t.Context(), i.sign("ec-1", i.claims(claims{"iss": "https://elsewhere/"}))); err == nil || i.documents() != 1 {
		t.Errorf("another issuer's token: error %v, %d fetches", err, i.documents())
	}
}

func TestOldKeysServeADayWhileTheIssuerIsAway(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	long := func(uti string) string {
		return i.sign("ec-1", i.claims(claims{"uti": uti, "exp": i.clock().Add(48 * time.Hour).Unix()}))
	}
	if _, err := v.Verify(t.Context(), long("1")); err != nil {
		t.Fatal(err)
	}
	i.set(func() { i.broken = true })
	i.pass(23 * time.Hour)
	if _, err := v.Verify(t.Context(), long("2")); err != nil {
		t.Errorf("after 23 hours: %v", err)
	}
	i.pass(2 * time.Hour)
	if _, err := v.Verify(t.Context(), long("3")); code(err) != "temporarily_unavailable" {
		t.Errorf("after 25 hours: %v", err)
	}
	i.set(func() { i.broken = false })
	i.pass(time.Minute)
	if _, err := v.Verify(t.Context(), long("4")); err != nil {
		t.Errorf("the issuer is back: %v", err)
	}
}

func TestAnIssuerThatIsNotWhatItShouldBeIsNotBelieved(t *testing.T) {
	v1, v2 := "/"+tenant+"/.well-known/openid-configuration", "/"+tenant+"/v2.0/.well-known/openid-configuration"
	for _, c := range []struct{ name, path, body string }{
		{"another issuer in the document", v2, `{"issuer":"https://login.example.com/` + tenant + `/v2.0","jwks_uri":"ORIGIN/common/discovery/keys"}`},
		{"keys elsewhere", v1, `{"issuer":"ORIGIN/` + tenant + `/","jwks_uri":"https://login.example.com/keys"}`},
		{"keys on a host that begins the same", v1, `{"issuer":"ORIGIN/` + tenant + `/","jwks_uri":"ORIGIN.example.com/keys"}`},
		{"keys behind a user name", v1, `{"issuer":"ORIGIN/` + tenant + `/","jwks_uri":"https://ORIGIN@example.com/keys"}`},
		{"keys without TLS", v1, `{"issuer":"ORIGIN/` + tenant + `/","jwks_uri":"http://127.0.0.1/keys"}`},
		{"no keys", v1, `{"issuer":"ORIGIN/` + tenant + `/"}`},
		{"no document", v2, `<html>`},
		{"a huge document", v2, `{"issuer":"` + strings.Repeat("x", 2<<20)},
		{"a huge key set", "/common/discovery/keys", `{"keys":[` + strings.Repeat(" ", 2<<20) + `]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIssuer(t)
			i.replace[c.path] = strings.ReplaceAll(c.body, "ORIGIN", i.srv.URL)
			token := i.sign("ec-1", i.claims(nil))
			if c.path == v2 {
				token = i.sign("ec-1", i.v2(nil))
			}
			if _, err := i.verifier(nil).Verify(t.Context(), token); code(err) != "temporarily_unavailable" {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestDiscoveryFollowsNoRedirect(t *testing.T) {
	i := newIssuer(t)
	token := i.sign("ec-1", i.claims(nil))
	v := i.verifier(func(c *bearer.Config) {
		next := c.HTTP.Transport
		c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(r)
			if err == nil && !strings.HasSuffix(r.URL.Path, "/moved") {
				resp.StatusCode = http.StatusFound
				resp.Header.Set("Location", r.URL.Path+"/moved")
			}
			return resp, err
		})}
	})
	if _, err := v.Verify(t.Context(), token); code(err) != "temporarily_unavailable" {
		t.Errorf("error %v", err)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTheFirstCallersGoingDoesNotEndTheFetch(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	token := i.sign("ec-1", i.claims(nil))
	if _, err := v.Verify(gone, token); code(err) != "temporarily_unavailable" && err != nil {
		t.Errorf("a caller that left: %v", err)
	}
	if _, err := v.Verify(t.Context(), token); err != nil {
		t.Errorf("the next caller: %v", err)
	}
	if n := i.documents(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestAVerifierThatCannotBeRightIsNotMade(t *testing.T) {
	good := bearer.Config{Authority: "https://login.example.org", Tenant: tenant, Audiences: []string{audience}}
	for name, spoil := range map[string]func(*bearer.Config){
		"no authority":            func(c *bearer.Config) { c.Authority = "" },
		"authority without TLS":   func(c *bearer.Config) { c.Authority = "http://login.example.org" },
		"authority with a path":   func(c *bearer.Config) { c.Authority = "https://login.example.org/" + tenant },
		"tenant that is no GUID":  func(c *bearer.Config) { c.Tenant = "common" },
		"no audience":             func(c *bearer.Config) { c.Audiences = nil },
		"authority with a secret": func(c *bearer.Config) { c.Authority = "https://a:b@login.example.org" },
	} {
		c := good
		spoil(&c)
		if _, err := bearer.New(c); err == nil {
			t.Errorf("%s: made", name)
		}
	}
	if _, err := bearer.New(good); err != nil {
		t.Error(err)
	}
}

func FuzzVerify(f *testing.F) {
	i := newIssuer(f)
	v := i.verifier(nil)
	good := i.sign("ec-1", i.claims(nil))
	f.Add(good)
	f.Add(i.sign("rsa-1", i.v2(nil)))
	f.Add(raw(`{"alg":"none"}`, `{}`, nil))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		got, err := v.Verify(t.Context(), token)
		if err == nil && got.Principal.Object != object {
			t.Errorf("%q is good for %+v", token, got.Principal)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	i := newIssuer(b)
	b.Run("remembered", func(b *testing.B) {
		v := i.verifier(func(c *bearer.Config) { c.Revocations = client.NewRevocations(nil) })
		token := i.sign("rsa-1", i.claims(nil))
		for b.Loop() {
			if _, err := v.Verify(b.Context(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("new", func(b *testing.B) {
		v := i.verifier(nil)
		tokens := make([]string, 2000)
		for n := range tokens {
			tokens[n] = i.sign("ec-1", i.claims(claims{"uti": fmt.Sprint(n)}))
		}
		for n := 0; b.Loop(); n++ {
			if n == len(tokens) {
				v, n = i.verifier(nil), 0
			}
			if _, err := v.Verify(b.Context(), tokens[n]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestAnOfflineVerifierNeverWaitsForTheNetwork(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(func(c *bearer.Config) { c.Offline = true })
	if err := v.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), i.sign("ec-1", i.claims(nil))); err != nil {
		t.Errorf("a key that was fetched before: %v", err)
	}
	// The authority publishes another key, and answers nobody while it is held.
	i.set(func() { i.keys["ec-2"] = ecKey(t) })
	token, now := i.sign("ec-2", i.claims(nil)), i.clock()
	stuck := i.verifier(func(c *bearer.Config) { c.Offline, c.Now = true, func() time.Time { return now } })
	i.mu.Lock()
	_, err := stuck.Verify(t.Context(), token)
	i.mu.Unlock()
	var refused *bearer.Error
	if !errors.As(err, &refused) || refused.Code != "temporarily_unavailable" {
		t.Fatalf("a key that must be fetched: %v, want temporarily_unavailable", err)
	}
	// What was begun in the background has been done when another asks for it.
	if err := stuck.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := stuck.Verify(t.Context(), token); err != nil {
		t.Errorf("once the key is here: %v", err)
	}
}

func TestAVerifierForOtherAudiencesHasTheSameKeys(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(func(c *bearer.Config) { c.Offline = true })
	if err := v.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := v.For("https://orders.postgres.example.org")
	if _, err := other.Verify(t.Context(), i.sign("ec-1", i.claims(claims{"aud": "https://orders.postgres.example.org/"}))); err != nil {
		t.Errorf("its own audience: %v", err)
	}
	if _, err := other.Verify(t.Context(), i.sign("ec-1", i.claims(nil))); err == nil {
		t.Error("the first verifier's audience was accepted by the second")
	}
}
