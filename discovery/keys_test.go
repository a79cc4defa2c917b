package discovery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"innate/discovery"
	"innate/jwt"
)

func TestAKeyIsFoundByItsIDAndTheTokensAlgorithm(t *testing.T) {
	both := []jwt.Key{ec("e"), {ID: "r", Alg: jwt.RS256, Public: rsaPublic()}}
	for _, c := range []struct {
		name string
		keys []jwt.Key
		kid  string
		alg  jwt.Alg
		want string
	}{
		{"by id", both, "e", jwt.ES256, ""},
		{"by another id", both, "r", jwt.RS256, ""},
		{"an id that is not published", both, "x", jwt.ES256, "final"},
		{"an id whose key is of another kind", both, "e", jwt.RS256, "final"},
		{"a key that says another algorithm", both, "r", jwt.PS256, "final"},
		{"a key that says none", []jwt.Key{{ID: "r", Public: rsaPublic()}}, "r", jwt.PS256, ""},
		{"one id, two kinds of key", []jwt.Key{ec("k"), {ID: "k", Public: rsaPublic()}}, "k", jwt.RS256, ""}, // RFC 7517 §4.5
		{"an id in other letters", both, "E", jwt.ES256, "final"},
		{"an algorithm that we do not know", both, "e", "none", "final"},
		{"no id, one key that fits", both, "", jwt.ES256, ""},
		{"no id, and the one key has none", []jwt.Key{ec("")}, "", jwt.ES256, ""},
		{"no id, two keys that fit", []jwt.Key{ec("a"), ec("b")}, "", jwt.ES256, "final"},
		{"no id, no key that fits", []jwt.Key{ec("a")}, "", jwt.RS256, "final"},
		{"an id, and the one key has none", []jwt.Key{ec("")}, "k", jwt.ES256, "final"}, // it may be the next key's
	} {
		t.Run(c.name, func(t *testing.T) {
			how, why := get(t, t.Context(), newIssuer(c.keys...).believe(t, nil), c.kid, c.alg)
			if how != c.want || how != "" && !strings.Contains(why, name) {
				t.Errorf("%q: %s; want %q, naming the issuer", how, why, c.want)
			}
		})
	}
}

func TestAHundredWhoAskAtOnceCostOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(ec("k"))
		begun, release := 0, make(chan struct{})
		keys := i.believe(t, func(c *discovery.Config) {
			c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				begun++
				<-release
				return i.RoundTrip(r)
			})}
		})
		var had sync.WaitGroup
		for range 2 {
			for range 50 {
				had.Go(func() {
					if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "" {
						t.Errorf("%s: %s", how, why)
					}
				})
			}
			synctest.Wait()     // they wait
			i.pass(time.Minute) // a slow fetch is not begun again
		}
		if begun != 1 {
			t.Errorf("%d requests are under way, want 1", begun)
		}
		close(release)
		had.Wait()
		if n := i.documents(); n != 1 {
			t.Errorf("%d key sets were fetched, want 1", n)
		}
	})
}

func TestAnUnknownKeyIsLookedForAgain(t *testing.T) {
	i := newIssuer(ec("old"))
	keys := i.believe(t, nil)
	for _, step := range []struct {
		pass    time.Duration
		publish string
		kid     string
		want    string
		fetches int
	}{
		{0, "", "old", "", 1},
		{time.Minute, "", "new", "final", 2},
		{0, "", "other", "final", 2},                      // it was looked for this very moment
		{time.Second, "new", "new", "", 3},                // published since
		{time.Second, "newer", "newer", "", 4},            // a second roll right after the first
		{time.Second, "newest", "newest", "temporary", 4}, // too many in a moment
		{0, "", "old", "", 4},                             // what is known is not held up
		{5 * time.Second, "", "newest", "", 5},            // the pause is over
		{30 * time.Minute, "", "newest", "", 5},           // fresh enough
		{time.Second, "", "other", "final", 6},
		{-2 * time.Hour, "last", "last", "", 7}, // the clock was set back: no pause of two hours
	} {
		i.pass(step.pass)
		if step.publish != "" {
			i.set(func() { i.keys = append(i.keys, ec(step.publish)) })
		}
		how, why := get(t, t.Context(), keys, step.kid, jwt.ES256)
		if how != step.want || i.documents() != step.fetches {
			t.Errorf("%+v: %q (%s), %d fetches", step, how, why, i.documents())
		}
	}
}

func TestKeysAreRefreshedInTheBackground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(ec("old"))
		keys := i.believe(t, nil)
		get(t, t.Context(), keys, "old", jwt.ES256)
		i.set(func() { i.keys = []jwt.Key{ec("new")} })
		i.pass(time.Hour)
		if how, why := get(t, t.Context(), keys, "old", jwt.ES256); how != "" {
			t.Errorf("while they are fetched: %s: %s", how, why)
		}
		synctest.Wait()
		if how, _ := get(t, t.Context(), keys, "new", jwt.ES256); how != "" || i.documents() != 2 {
			t.Errorf("the new key: %q, %d fetches", how, i.documents())
		}
		if how, _ := get(t, t.Context(), keys, "old", jwt.ES256); how != "final" {
			t.Errorf("the old key, which is published no more: %q", how)
		}
	})
}

func TestOldKeysServeADayWhileTheIssuerIsDown(t *testing.T) {
	i := newIssuer(ec("k"))
	keys := i.believe(t, nil)
	if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "" {
		t.Fatal(why)
	}
	i.set(func() { i.broken = true })
	i.pass(24*time.Hour - time.Second)
	if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "" {
		t.Errorf("before a day is over: %s", why)
	}
	if how, _ := get(t, t.Context(), keys, "x", jwt.ES256); how != "temporary" {
		t.Errorf("a key that may be published by now: %q, want temporary", how)
	}
	i.pass(10 * time.Second)
	if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "temporary" || !strings.Contains(why, "answered 500") {
		t.Errorf("after a day: %q: %s", how, why)
	}
	i.set(func() { i.broken = false })
	i.pass(5 * time.Second)
	if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "" {
		t.Errorf("the issuer is back: %s", why)
	}
}

func TestASlowIssuerIsGivenUpAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(ec("k"))
		keys := i.believe(t, func(c *discovery.Config) {
			c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				<-r.Context().Done()
				return nil, r.Context().Err()
			})}
		})
		begun := time.Now()
		how, why := get(t, t.Context(), keys, "k", jwt.ES256)
		if took := time.Since(begun); how != "temporary" || !strings.Contains(why, "in time") || took != 10*time.Second {
			t.Errorf("%q after %v: %s", how, took, why)
		}
	})
}

func TestWhoeverCannotWaitDoesNotEndTheFetchOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(ec("k"))
		release := make(chan struct{})
		keys := i.believe(t, func(c *discovery.Config) {
			c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				<-release
				return i.RoundTrip(r)
			})}
		})
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if how, _ := get(t, short, keys, "k", jwt.ES256); how != "temporary" {
			t.Errorf("whoever cannot wait: %q, want temporary", how)
		}
		close(release)
		if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "" || i.documents() != 1 {
			t.Errorf("the next: %s, %d fetches", why, i.documents())
		}
	})
}

func TestTheDiscoveryDocumentIsBelowTheIssuerAsItStands(t *testing.T) {
	for issuer, want := range map[string]string{
		"https://a.example":         "https://a.example/.well-known/openid-configuration",
		"https://a.example/":        "https://a.example/.well-known/openid-configuration",
		"https://a.example/t/v2.0":  "https://a.example/t/v2.0/.well-known/openid-configuration",
		"https://a.example/t//":     "https://a.example/t//.well-known/openid-configuration", // one slash is trimmed
		"https://a.example/x/../t":  "https://a.example/x/../t/.well-known/openid-configuration",
		"https://a.example:8443/id": "https://a.example:8443/id/.well-known/openid-configuration",
	} {
		i := newIssuer(ec("k"))
		i.name = issuer
		var first string
		keys := i.believe(t, func(c *discovery.Config) {
			c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if first == "" {
					first = r.URL.String()
				}
				return i.RoundTrip(r)
			})}
		})
		if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "" || first != want {
			t.Errorf("%s: asked %s, want %s: %s", issuer, first, want, why)
		}
	}
}

func TestAnIssuerThatIsNoHTTPSURLIsRefused(t *testing.T) {
	for _, issuer := range []string{
		"", "issuer", "http://issuer.example.com", "https://", "https:///x", "https://:443", "HTTPS//x", "file:///etc/passwd",
		"https://u:p@issuer.example.com", "https://issuer.example.com?a=b", "https://issuer.example.com/#f", "https://issuer.example.com/\n",
	} {
		if _, err := discovery.New(discovery.Config{Issuer: issuer}); err == nil {
			t.Errorf("%q: made", issuer)
		}
	}
	if _, err := discovery.New(discovery.Config{Issuer: name}); err != nil {
		t.Error(err)
	}
}

func TestDocumentsThatAreNotWhatTheyShouldBeAreNotBelieved(t *testing.T) {
	const origin = "https://issuer.example.com"
	document, set := "/cluster-1/.well-known/openid-configuration", "/keys"
	many := make([]string, 300)
	for n := range many {
		b, err := ec(fmt.Sprint(n)).MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		many[n] = string(b)
	}
	at := func(issuer, keys string) string { return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer, keys) }
	for _, c := range []struct{ name, path, body, why string }{
		{"another issuer", document, at(origin+"/cluster-2", origin+"/keys"), "another issuer's"},
		{"the issuer and a slash", document, at(name+"/", origin+"/keys"), "another issuer's"},
		{"the issuer in capital letters", document, at(strings.ToUpper(name), origin+"/keys"), "another issuer's"},
		{"no issuer", document, `{"jwks_uri":"` + origin + `/keys"}`, "another issuer's"},
		{"no keys", document, at(name, ""), "must not be"},
		{"keys without TLS", document, at(name, "http://issuer.example.com/keys"), "must not be"},
		{"keys in a file", document, at(name, "file:///etc/passwd"), "must not be"},
		{"keys on another port", document, at(name, origin+":8443/keys"), "must not be"},
		{"keys on a host that begins the same", document, at(name, origin+".evil.org/keys"), "must not be"},
		{"keys behind a user name", document, at(name, "https://issuer.example.com@evil.org/keys"), "must not be"},
		{"keys behind a password", document, at(name, "https://u:p@issuer.example.com/keys"), "must not be"},
		{"keys at a place that fills the log", document, at(name, origin+"/"+strings.Repeat("x", 2000)), "must not be"},
		{"not JSON", document, "<html>", "not the JSON"},
		{"a list", document, "[]", "not the JSON"},
		{"nothing", document, "", "not the JSON"},
		{"a number for a name", document, `{"issuer":7}`, "not the JSON"},
		{"nested deep", document, strings.Repeat("[", 20000), "not the JSON"},
		{"large", document, `{"issuer":"` + strings.Repeat("x", 1<<20), "larger than 1048576 bytes"},
		{"a large key set", set, `{"keys":[` + strings.Repeat(" ", 1<<20) + `]}`, "larger than 1048576 bytes"},
		{"a set that is none", set, `[]`, "not the JSON"},
		{"an empty set", set, `{"keys":[]}`, "no key that can be used"},
		{"a set of null", set, `null`, "no key that can be used"},
		{"a set of secrets", set, `{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"k"}]}`, "no key that can be used"},
		{"a set without end", set, `{"keys":[` + strings.Join(many, ",") + `]}`, "too many keys"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := newIssuer(ec("k"))
			i.replace[c.path] = c.body
			keys := i.believe(t, func(c *discovery.Config) { c.KeysOn = origin })
			if how, why := get(t, t.Context(), keys, "k", jwt.ES256); how != "temporary" || !strings.Contains(why, c.why) {
				t.Errorf("%q: %s; want temporary, %q", how, why, c.why)
			}
		})
	}
}

func TestKeysMayBeOnAnotherOriginUnlessOneIsDemanded(t *testing.T) {
	i := newIssuer(ec("k"))
	i.replace["/cluster-1/.well-known/openid-configuration"] = `{"issuer":"` + name + `","jwks_uri":"https://keys.example.net/keys","more":[{}]}`
	if how, why := get(t, t.Context(), i.believe(t, nil), "k", jwt.ES256); how != "" {
		t.Errorf("none is demanded: %s", why)
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	i := newIssuer(ec("k"))
	var asked []string
	keys := i.believe(t, func(c *discovery.Config) {
		c.HTTP = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.Host)
			w := httptest.NewRecorder()
			http.Redirect(w, r, "https://127.0.0.1/latest/meta-data", http.StatusFound)
			return w.Result(), nil
		})}
	})
	how, why := get(t, t.Context(), keys, "k", jwt.ES256)
	if how != "temporary" || !strings.Contains(why, "answered 302") || len(asked) != 1 {
		t.Errorf("%q: %s; asked %v", how, why, asked)
	}
}

// Whatever an issuer serves, the first request is to it, the key that comes out
// is one of its own documents, and a refusal fits on a line.
func FuzzKeys(f *testing.F) {
	key, err := ec("k").MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(name, `{"issuer":"`+name+`","jwks_uri":"https://issuer.example.com/keys"}`, `{"keys":[`+string(key)+`]}`)
	f.Add("https://a\u00fc.example/%2e%2e/", `{"issuer":"x"}`, `{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`)
	f.Add("https://[::1%25lo]:1", `{"ISSUER":"`, `null`)
	f.Fuzz(func(t *testing.T, issuer, document, set string) {
		i := newIssuer()
		asked := 0
		keys, err := discovery.New(discovery.Config{
			Issuer: issuer, Now: i.clock, Log: slog.New(slog.DiscardHandler),
			HTTP: &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				if asked++; asked == 1 {
					if u, err := url.Parse(issuer); err != nil || r.URL.Scheme != "https" || r.URL.Host != u.Host {
						t.Errorf("issuer %q: asked %s", issuer, r.URL)
					}
					w.WriteString(document)
				} else {
					w.WriteString(set)
				}
				return w.Result(), nil
			})},
		})
		if err != nil {
			return
		}
		how, _ := get(t, t.Context(), keys, "k", jwt.ES256)
		var said struct{ Issuer string }
		if json.Unmarshal([]byte(document), &said); how == "" && (said.Issuer != issuer || asked != 2) {
			t.Errorf("a key of issuer %q came out of %q after %d requests", issuer, document, asked)
		}
	})
}
