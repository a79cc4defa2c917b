package innatetest_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"innate/innatetest"
)

// A door is a token endpoint as a program finds it in its environment.
type door struct{ host, path, secret string }

func doorOf(t *testing.T, env []string) door {
	t.Helper()
	var d door
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		switch name {
		case "IDENTITY_ENDPOINT":
			u, err := url.Parse(value)
			if err != nil {
				t.Fatal(err)
			}
			d.host, d.path = u.Host, u.Path
		case "IDENTITY_HEADER":
			d.secret = value
		}
	}
	if d.host == "" || d.secret == "" {
		t.Fatal("the environment names no endpoint, or no secret")
	}
	return d
}

// A reply is an answer of either token endpoint.
type reply struct {
	Status      int             `json:"-"`
	Token       string          `json:"access_token"`
	Type        string          `json:"token_type"`
	Resource    string          `json:"resource"`
	ExpiresOn   json.RawMessage `json:"expires_on"`
	Message     string          `json:"message"`           // of a refusal at the app endpoint
	Description string          `json:"error_description"` // of one at the metadata service
}

func (r reply) text() string { return r.Message + r.Description }

// exchange sends a request line and headers byte for byte, and reads the answer.
func exchange(t *testing.T, c net.Conn, host, target string, headers ...string) (r reply) {
	t.Helper()
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", target, host)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("GET %s: %v", target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	r.Status = resp.StatusCode
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("GET %s: %s: %v in %q", target, resp.Status, err, body)
	}
	return r
}

// ask sends a request to the endpoint; query is what follows its path.
func (d door) ask(t *testing.T, query string, headers ...string) reply {
	t.Helper()
	c, err := net.Dial("tcp", d.host)
	if err != nil {
		t.Fatal(err)
	}
	return exchange(t, c, d.host, d.path+query, headers...)
}

// token asks for one as an SDK does.
func (d door) token(t *testing.T, resource string, more ...string) reply {
	t.Helper()
	q := "?api-version=2019-08-01&resource=" + url.QueryEscape(resource)
	for _, p := range more {
		q += "&" + p
	}
	return d.ask(t, q, "X-IDENTITY-HEADER: "+d.secret)
}

// payload is what a token says; the signature is the business of other tests.
func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("a token of %d parts", len(parts))
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// eventually asks again until ok, for what the platform promises soon rather than at once.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// The conversations of Microsoft.Azure.Services.AppAuthentication
// (AzureServiceTokenProvider), which percent-encodes nothing
// (managed-identity-endpoints §7).
func TestTheOlderDotNetLibraryGetsItsTokenFromTheAppEndpoint(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	shared := p.Identity("shared")
	api := p.App("api", shared)
	d := doorOf(t, api.Env())
	for _, c := range []struct {
		name, query, header string
		want                innatetest.Holder
	}{
		{"1.4, RunAs=App", "?resource=https://database.windows.net/&api-version=2019-08-01", "X-IDENTITY-HEADER", api},
		{"1.4, RunAs=App;AppId=…", "?resource=https://vault.azure.net&client_id=" + string(shared.Client()) + "&api-version=2019-08-01", "X-IDENTITY-HEADER", shared},
		{"1.0, RunAs=App", "?resource=https://database.windows.net/&api-version=2017-09-01", "secret", api},
		{"1.0, RunAs=App;AppId=…", "?resource=https://vault.azure.net&clientid=" + string(shared.Client()) + "&api-version=2017-09-01", "secret", shared},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := d.ask(t, c.query, c.header+": "+d.secret)
			checkForAppAuthentication(t, p, r, c.want)
		})
	}
}

// checkForAppAuthentication looks at what the library looks at.
func checkForAppAuthentication(t *testing.T, p *innatetest.Platform, r reply, want innatetest.Holder) {
	t.Helper()
	if r.Status != http.StatusOK || r.Token == "" {
		t.Fatalf("got %d %s, want a token", r.Status, r.text())
	}
	if r.Type != "Bearer" || r.Resource == "" {
		t.Errorf("token_type %q, resource %q", r.Type, r.Resource)
	}
	var seconds float64
	var text string
	if json.Unmarshal(r.ExpiresOn, &text) != nil {
		t.Errorf("expires_on is %s, want a string", r.ExpiresOn)
	} else if err := json.Unmarshal([]byte(text), &seconds); err != nil || seconds < float64(time.Now().Unix()) {
		t.Errorf("expires_on %q: the library reads it as a number of seconds since 1970, in the future", text)
	}
	claims := payload(t, r.Token)
	if claims["oid"] != string(want.Principal()) || claims["tid"] != string(p.Admin.Info.Tenant) || claims["appid"] == nil {
		t.Errorf("the token is for %v in tenant %v (appid %v)", claims["oid"], claims["tid"], claims["appid"])
	}
	if claims["aud"] != r.Resource {
		t.Errorf("the token is for %v, the answer says %s", claims["aud"], r.Resource)
	}
}

func TestTheArticlesMistypedRequestIsToldWhatIsWrong(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	d := doorOf(t, p.App("api").Env())
	r := d.ask(t, "??resource=https://database.windows.net/&api-version=2019-08-01", "X-IDENTITY-HEADER: "+d.secret)
	checkMistyped(t, r)
}

func checkMistyped(t *testing.T, r reply) {
	t.Helper()
	const want = `resource is missing; found "?resource": is there one question mark too many?`
	if r.Status != http.StatusBadRequest || !strings.Contains(r.text(), want) {
		t.Errorf("token??resource=: got %d %q, want 400 that says %s", r.Status, r.text(), want)
	}
	if r.Token != "" {
		t.Error("there is a token in the refusal")
	}
}
