package tokens_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"innate/directory"
)

// What stands in a refusal of a request, and in its record, is short and of the
// characters of RFC 6749 §5.2, whatever the request says: it is shown to people,
// on terminals too, and kept.
func TestNothingIsEchoedThatIsLongOrNotPrintable(t *testing.T) {
	s := startStranger(t)
	r, _ := s.register(directory.Registration{})
	secret := s.secret(r.Client, s.now)
	bad := "\x1b[2J\r\nDate: now\"\\\x00é\u202e" + strings.Repeat("A", 9000)
	good := func(change ...string) []string {
		form := map[string]string{"grant_type": "client_credentials", "client_id": string(r.Client), "client_secret": secret, "scope": vault + "/.default"}
		for _, c := range change {
			name, value, _ := strings.Cut(c, "=")
			form[name] = value
		}
		var all []string
		for name, value := range form {
			if value != "" {
				all = append(all, name+"="+value)
			}
		}
		return all
	}
	signed := func(header, claims map[string]any) *http.Request {
		a := s.token(claims)
		changed(a.header, header)
		return request(tokenPath, assertionForm(s.client, a.compact(t))...)
	}
	own := func(header, claims map[string]any) *http.Request {
		return request(tokenPath, assertionForm(r.Client, assertion{s.key, "ES256", header, changed(s.valid(r.Client), claims)}.compact(t))...)
	}
	method := request(tokenPath, good()...)
	method.Method = bad
	basic := request(tokenPath, good("client_id=", "client_secret=")...)
	basic.SetBasicAuth(bad, bad)
	header := request(tokenPath, good("client_secret=x")...)
	for _, name := range []string{"client-request-id", "return-client-request-id", "Content-Type", "User-Agent", "Authorization"} {
		header.Header.Set(name, bad)
	}
	for name, q := range map[string]*http.Request{
		"method":          method,
		"tenant":          request("/"+url.PathEscape(bad)+"/oauth2/v2.0/token", good()...),
		"path":            request("/"+url.PathEscape(bad), good()...),
		"keys":            httptest.NewRequest(http.MethodGet, login+"/"+url.PathEscape(bad)+"/discovery/keys", nil),
		"instance":        httptest.NewRequest(http.MethodGet, login+"/common/discovery/instance?authorization_endpoint="+url.QueryEscape(bad), nil),
		"query":           request(tokenPath+"?client-request-id="+url.QueryEscape(bad), good("client_secret=x")...),
		"headers":         header,
		"name and secret": basic,
		"a parameter":     request(tokenPath, bad+"=1", bad+"=2"),
		"grant":           request(tokenPath, good("grant_type="+bad)...),
		"client":          request(tokenPath, good("client_id="+bad)...),
		"secret":          request(tokenPath, good("client_secret="+bad)...),
		"scope":           request(tokenPath, good("scope="+bad)...),
		"resource":        request(tokenPath, good("scope=", "resource="+bad)...),
		"claims":          request(tokenPath, good("claims="+bad)...),
		"assertion":       request(tokenPath, assertionForm(r.Client, bad)...),
		"assertion type":  request(tokenPath, good("client_secret=", "client_assertion=x", "client_assertion_type="+bad)...),
		"kid":             signed(map[string]any{"kid": bad}, nil),
		"iss":             signed(nil, map[string]any{"iss": bad}),
		"sub":             signed(nil, map[string]any{"sub": bad}),
		"aud":             signed(nil, map[string]any{"aud": bad}),
		"many aud":        signed(nil, map[string]any{"aud": strings.Split(strings.Repeat("\x1b,", 1000), ",")}),
		"x5t":             own(map[string]any{"x5t": bad}, nil),
		"own sub":         own(nil, map[string]any{"sub": bad}),
	} {
		recorded := len(s.events())
		a := s.send(s.world.tokens.Handler(), q)
		if a.status < 400 || a.status >= 500 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		const most = 2000
		if text := a.member("error_description"); len(a.body) > most || strings.ContainsFunc(a.body, notPrintable) || strings.ContainsFunc(text, notPrintable) {
			t.Errorf("%s: it answers %d characters: %.300q", name, len(a.body), a.body)
		}
		for header, values := range a.header {
			if text := strings.Join(values, ""); len(text) > 300 || strings.ContainsFunc(text, notPrintable) {
				t.Errorf("%s: it answers %s: %.300q", name, header, text)
			}
		}
		for _, ev := range s.events()[recorded:] {
			b, err := json.Marshal(ev)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 2*most || strings.Contains(string(b), `\u`) || strings.ContainsFunc(string(b), notPrintable) {
				t.Errorf("%s: the record has %d characters: %.600q", name, len(b), b)
			}
		}
	}
}

// notPrintable reports whether c may not stand in an error_description, once its JSON is read.
func notPrintable(c rune) bool { return c != '\n' && (c < ' ' || c > '~') }

func TestOnlyPOSTAsksForAToken(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "post"} {
		r := request(tokenPath, asking(client, secret)...)
		r.Method = method
		a := w.send(w.tokens.Handler(), r)
		a.refused(http.StatusMethodNotAllowed, "invalid_request", "900561")
		if allow := a.header.Get("Allow"); allow != http.MethodPost { // RFC 9110 §15.5.6
			t.Errorf("%s: Allow is %q", method, allow)
		}
	}
}

func TestDocumentsMayBeKeptForAnHourAndRefusalsNever(t *testing.T) {
	w := start(t)
	for path, want := range map[string]string{
		"/" + tenant + "/v2.0/.well-known/openid-configuration":                                   "max-age=3600",
		"/" + tenant + "/.well-known/openid-configuration":                                        "max-age=3600",
		"/adfs/.well-known/openid-configuration":                                                  "max-age=3600",
		"/common/discovery/keys":                                                                  "max-age=3600",
		"/" + tenant + "/discovery/v2.0/keys":                                                     "max-age=3600",
		"/common/discovery/instance?authorization_endpoint=" + login + "/common/oauth2/authorize": "max-age=3600",
		"/nobody/discovery/keys":                                                                  "no-store, no-cache",
		"/nobody/v2.0/.well-known/openid-configuration":                                           "no-store, no-cache",
		"/common/discovery/instance":                                                              "no-store, no-cache",
		"/nothing":                                                                                "no-store, no-cache",
	} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := w.send(w.tokens.Handler(), httptest.NewRequest(method, login+path, nil))
			if got := a.header.Get("Cache-Control"); got != want || (a.status == http.StatusOK) != (want == "max-age=3600") {
				t.Errorf("%s %s: %d, Cache-Control %q, want %q", method, path, a.status, got, want)
			}
			if kind := a.header.Get("Content-Type"); kind != "application/json; charset=utf-8" {
				t.Errorf("%s %s: Content-Type %q", method, path, kind)
			}
		}
	}
}

// Each proof is good at the place that is made for it, and alone.
func TestProofsAreNotMixed(t *testing.T) {
	s := startStranger(t)
	r, _ := s.register(directory.Registration{})
	secret := s.secret(r.Client, s.now)
	compact := s.token(nil).compact(t)
	s.claims(s.assert(s.client, compact))

	basic := request(tokenPath, assertionForm(s.client, compact)...)
	basic.SetBasicAuth(string(s.client), "x")
	s.send(s.world.tokens.Handler(), basic).refused(400, "invalid_request", "9002313")
	empty := request(tokenPath, assertionForm(s.client, compact)...)
	empty.SetBasicAuth(string(s.client), "")
	s.send(s.world.tokens.Handler(), empty).refused(400, "invalid_request", "9002313")
	twice := request(tokenPath, "grant_type=client_credentials", "scope="+vault+"/.default")
	twice.SetBasicAuth(string(r.Client), secret)
	twice.Header.Add("Authorization", "Basic eDp5")
	s.send(s.world.tokens.Handler(), twice).refused(400, "invalid_request", "9002313")

	// The mutual endpoint takes a certificate and nothing in its place.
	identity := s.identity(app, false)
	cert := s.certificate(identity.ID, app, machine)
	s.send(s.world.tokens.MutualHandler(), request(tokenPath, assertionForm(s.client, compact)...)).refused(401, "invalid_client", "7000218")
	s.world.present(cert, assertionForm(identity.Client, compact)...).refused(400, "invalid_request", "9002313")
	both := withCertificate(request(tokenPath, "grant_type=client_credentials", "scope="+vault+"/.default"), cert)
	both.SetBasicAuth(string(r.Client), secret)
	s.send(s.world.tokens.MutualHandler(), both).refused(400, "invalid_request", "9002313")
}

// However many parameters a body has, to look at them takes no time to speak of.
func TestAFormOfManyParametersIsRefused(t *testing.T) {
	w := start(t)
	r, _ := w.register(directory.Registration{})
	form := []string{"grant_type=client_credentials", "client_id=" + string(r.Client), "client_secret=" + w.secret(r.Client, w.now), "scope=" + vault + "/.default"}
	for i := len(form); i < 64; i++ {
		form = append(form, fmt.Sprintf("p%d=", i))
	}
	w.claims(w.send(w.tokens.Handler(), request(tokenPath, form...)))
	w.send(w.tokens.Handler(), request(tokenPath, append(form, "one=more")...)).refused(400, "invalid_request", "9002313")
}
