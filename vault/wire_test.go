package vault_test

import (
	"fmt"
	"strings"
	"testing"

	"innate/access"
)

func TestLimits(t *testing.T) {
	w := newWorld(t)
	tags := func(n int, value string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"t%d":%q`, i, value))
		}
		return `{"value":"v","tags":{` + strings.Join(all, ",") + `}}`
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name, path, body string
		want             int
	}{
		{"an empty value", "/secrets/a", `{"value":""}`, 200},
		{"a value of the greatest size", "/secrets/a", `{"value":"` + long(25600) + `"}`, 200},
		{"a value too long", "/secrets/a", `{"value":"` + long(25601) + `"}`, 400},
		{"a value too long in bytes", "/secrets/a", `{"value":"` + strings.Repeat("é", 12801) + `"}`, 400},
		{"15 tags", "/secrets/a", tags(15, long(512)), 200},
		{"16 tags", "/secrets/a", tags(16, "x"), 400},
		{"a tag too long", "/secrets/a", tags(1, long(513)), 400},
		{"a tag without a name", "/secrets/a", `{"value":"v","tags":{"":"x"}}`, 400},
		{"a content type of 255 letters", "/secrets/a", `{"value":"v","contentType":"` + strings.Repeat("é", 255) + `"}`, 200},
		{"a content type too long", "/secrets/a", `{"value":"v","contentType":"` + long(256) + `"}`, 400},
		{"a name of the greatest length", "/secrets/" + long(127), `{"value":"v"}`, 200},
		{"a name too long", "/secrets/" + long(128), `{"value":"v"}`, 400},
		{"a name with a dot", "/secrets/a.b", `{"value":"v"}`, 400},
		{"a name with an underscore", "/secrets/a_b", `{"value":"v"}`, 400},
		{"a name in another script", "/secrets/ключ", `{"value":"v"}`, 400},
		{"a name that is our own pattern", "/secrets/{name}", `{"value":"v"}`, 400},
		{"no value", "/secrets/a", `{}`, 400},
		{"a null value", "/secrets/a", `{"value":null}`, 400},
		{"a value that is no string", "/secrets/a", `{"value":5}`, 400},
		{"the value twice", "/secrets/a", `{"value":"a","value":"b"}`, 400},
		{"no body", "/secrets/a", ``, 400},
		{"no JSON", "/secrets/a", `value=x`, 400},
		{"an end before 1970", "/secrets/a", `{"value":"v","attributes":{"exp":-1}}`, 400},
		{"an end that is no number", "/secrets/a", `{"value":"v","attributes":{"exp":"soon"}}`, 400},
		{"a body without end", "/secrets/a", `{"value":"` + long(2<<20) + `"}`, 413},
		{"members that nobody has heard of", "/secrets/a", `{"value":"v","kid":"x","attributes":{"recoveryLevel":"Purgeable"}}`, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := w.send("officer", "PUT", c.path+api, c.body); a.status != c.want {
				t.Errorf("%d, want %d: %.200s", a.status, c.want, a.text)
			}
		})
	}
}

func TestVersionsOfTheAPI(t *testing.T) {
	w := newWorld(t)
	for query, want := range map[string]int{
		"?api-version=7.0": 200, "?api-version=7.6": 200, "?api-version=2026-04-01": 200, "?api-version=2031-01-01-preview": 200,
		"?api%2Dversion=2025-07-01": 200, "": 400, "?api-version=": 400, "?api-version=latest": 400, "?api-version=6.9": 400,
	} {
		if a := w.send("officer", "GET", "/secrets"+query, ""); a.status != want {
			t.Errorf("%q: %d, want %d: %s", query, a.status, want, a.text)
		}
	}
}

func TestWhatIsNoOperationIsNotFound(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	for _, c := range [][2]string{
		{"GET", "/"}, {"GET", "/keys/a"}, {"GET", "/certificates/contacts"}, {"GET", "/secrets/a/backup"}, {"POST", "/secrets/restore/backup/x"},
		{"POST", "/secrets/a"}, {"PUT", "/secrets"}, {"DELETE", "/secrets/a/versions"}, {"GET", "/secrets/a/versions/b"},
		{"GET", "/secrets/a/recover"}, {"GET", "/deletedsecrets/a/versions"}, {"GET", "/secrets/{name}/{version}/x"},
	} {
		w.refused(w.send("officer", c[0], c[1]+api, `{"value":"v"}`), 404, "NotFound", "")
	}
	for _, version := range []string{"x", "{version}", strings.Repeat("0", 32), strings.Repeat("0", 3000)} {
		a := w.send("officer", "GET", "/secrets/a/"+version+api, "")
		w.refused(a, 404, "SecretNotFound", "")
		if len(a.text) > 1000 {
			t.Errorf("a version of %d letters is echoed", len(version))
		}
	}
}

func TestTheVaultIsToldByTheHost(t *testing.T) {
	w := newWorld(t)
	w.grant("officer", access.KeyVaultSecretsOfficer, kv2.Scope())
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"of kv1"}`)
	for host, want := range map[string]int{
		"kv1.vault.innate.test:8443": 200, "KV1.Vault.innate.TEST:8443": 200, "kv1.vault.innate.test": 200,
		"kv2.vault.innate.test:8443": 404, // another vault has no such secret
		"kv1.vault.innate.test:443":  404, "kv3.vault.innate.test:8443": 404, "vault.innate.test:8443": 404,
		"a.kv1.vault.innate.test": 404, ".vault.innate.test": 404, "kv1.vault.innate.test.evil.org": 404, "kv1": 404, "[::1]:8443": 404,
	} {
		a := w.sendTo(host, "officer", "GET", "/secrets/a"+api, "")
		if a.status != want {
			t.Errorf("%s: %d, want %d: %s", host, a.status, want, a.text)
		}
		if want == 200 && !strings.HasPrefix(a.ID, "https://"+host+"/secrets/a/") {
			t.Errorf("%s: id %q is not on the host that was called", host, a.ID)
		}
	}
}

func FuzzPath(f *testing.F) {
	w := newWorld(f)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	for _, path := range []string{"/secrets/a", "/secrets/a/", "/Secrets//a", "/secrets/a/versions", "/deletedsecrets", "/secrets/%00", "/secrets/../secrets/a", "", "///"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		w.t = t
		a := w.send("officer", "GET", strings.ReplaceAll("/"+path, "?", "")+api, "")
		if a.status >= 500 || a.status >= 300 && a.Error.Code == "" {
			t.Errorf("%q: %d %s", path, a.status, a.text)
		}
		if a.status == 200 && !strings.Contains(strings.ToLower(path), "secrets") {
			t.Errorf("%q: %s", path, a.text)
		}
	})
}

func FuzzSetBody(f *testing.F) {
	w := newWorld(f)
	f.Add(`{"value":"v","contentType":"t","tags":{"a":"b"},"attributes":{"enabled":true,"nbf":1,"exp":2}}`)
	f.Add(`{"value":null}`)
	f.Add(`{"VALUE":"v"}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, body string) {
		w.t = t
		set := w.send("officer", "PUT", "/secrets/a"+api, body)
		if set.status != 200 && set.status != 400 && set.status != 413 {
			t.Errorf("%q: %d %s", body, set.status, set.text)
		}
		if set.status != 200 {
			return
		}
		got := w.send("officer", "GET", "/secrets/a"+api, "")
		if same := got.status == 200 && got.Value == set.Value && got.ID == set.ID; same != set.Attributes.Enabled {
			t.Errorf("%q: set %s, got %s", body, set.text, got.text)
		}
	})
}
