package bearer_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"innate"
	"innate/bearer"
)

// whoami answers with the object id of whoever is asking.
var whoami = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	io.WriteString(w, string(who.Object))
})

func ask(h http.Handler, ctx context.Context, authorization ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "https://kv1.vault.example.org/secrets", nil)
	for _, value := range authorization {
		r.Header.Add("Authorization", value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestARequestNeedsAGoodToken(t *testing.T) {
	i := newIssuer(t)
	good := i.sign("ec-1", i.claims(nil))
	ended := i.sign("ec-1", i.claims(claims{"exp": i.clock().Unix() - 3600}))
	h := i.verifier(nil).Require(whoami, func(_ *http.Request, err *bearer.Error) string {
		if err == nil {
			return "Bearer none"
		}
		return "Bearer " + err.Code
	})
	for _, c := range []struct {
		name          string
		authorization []string
		status        int
		challenge     string
	}{
		{"a good token", []string{"Bearer " + good}, 200, ""},
		{"the scheme in small letters", []string{"bearer  " + good + " "}, 200, ""},
		{"no header", nil, 401, "Bearer none"},
		{"an empty header", []string{""}, 401, "Bearer none"},
		{"a scheme and no more", []string{"Bearer"}, 401, "Bearer none"},
		{"another scheme", []string{"Basic eDp5"}, 401, "Bearer none"},
		{"a token without a scheme", []string{good}, 401, "Bearer none"},
		{"a token that ended", []string{"Bearer " + ended}, 401, "Bearer invalid_token"},
		{"two tokens in a header", []string{"Bearer " + good + ", Bearer " + good}, 401, "Bearer invalid_token"},
		{"two headers", []string{"Bearer " + good, "Bearer " + good}, 400, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := ask(h, t.Context(), c.authorization...)
			if w.Code != c.status || w.Header().Get("WWW-Authenticate") != c.challenge {
				t.Fatalf("answered %d, %q; want %d, %q: %s", w.Code, w.Header().Get("WWW-Authenticate"), c.status, c.challenge, w.Body)
			}
			if c.status == 200 {
				if w.Body.String() != object {
					t.Errorf("the handler saw %q", w.Body)
				}
				return
			}
			var body struct {
				Error struct{ Code, Message string }
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error.Code == "" || body.Error.Message == "" {
				t.Errorf("body %s: %v", w.Body, err)
			}
			if strings.Contains(w.Body.String(), good) {
				t.Error("the answer has the token in it")
			}
		})
	}
}

func TestTheErrorCodeOfA401IsTheServicesOwn(t *testing.T) {
	i := newIssuer(t)
	h := i.verifier(func(c *bearer.Config) { c.Code = "Unauthorized" }).Require(whoami, nil)
	if w := ask(h, t.Context()); !strings.Contains(w.Body.String(), `"code":"Unauthorized"`) {
		t.Errorf("body %s", w.Body)
	}
}

func TestTheDefaultChallengeNamesTheAuthority(t *testing.T) {
	i := newIssuer(t)
	h := i.verifier(nil).Require(whoami, nil)
	want := fmt.Sprintf(`Bearer authorization_uri="%s/%s"`, i.srv.URL, tenant)
	if got := ask(h, t.Context()).Header().Get("WWW-Authenticate"); got != want {
		t.Errorf("challenge %q, want %q", got, want)
	}
	other := i.sign("ec-1", i.claims(claims{"aud": "https://a\"b\r\nSet-Cookie: x"}))
	got := ask(h, t.Context(), "Bearer "+other).Header().Get("WWW-Authenticate")
	if !strings.HasPrefix(got, want+`, error="invalid_token", error_description="`) || strings.Count(got, `"`) != 6 || strings.ContainsAny(got, "\r\n") {
		t.Errorf("challenge %q", got)
	}
}

func TestWithoutKeysTheAnswerIsToTryAgain(t *testing.T) {
	i := newIssuer(t)
	i.broken = true
	w := ask(i.verifier(nil).Require(whoami, nil), t.Context(), "Bearer "+i.sign("ec-1", i.claims(nil)))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || w.Header().Get("WWW-Authenticate") != "" {
		t.Errorf("answered %d, headers %v", w.Code, w.Header())
	}
}

func TestSomebodyWhoIsProvedAlreadyNeedsNoToken(t *testing.T) {
	i := newIssuer(t)
	h := i.verifier(nil).Require(whoami, nil)
	w := ask(h, bearer.With(t.Context(), innate.Principal{Object: "admin"}))
	if w.Code != 200 || w.Body.String() != "admin" {
		t.Errorf("answered %d, %q", w.Code, w.Body)
	}
	if w := ask(h, bearer.With(t.Context(), innate.Principal{Name: "nobody"})); w.Code != 401 {
		t.Errorf("nobody was proved: answered %d", w.Code)
	}
}
