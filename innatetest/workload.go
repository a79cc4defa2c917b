package innatetest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"innate"
)

// Env is the environment under which this process and its children are the
// app: IDENTITY_ENDPOINT and its companions, each NAME=VALUE. The endpoint ends
// with the test or the app.
func (a *App) Env() []string { return a.lend() }

// Env is the same for a VM: with it an SDK finds the VM's identity at an endpoint
// on loopback, where the VM itself would ask 169.254.169.254.
func (v *VM) Env() []string { return v.lend() }

func (r resource) lend() []string {
	r.p.t.Helper()
	env, err := r.p.Agent.Lend(r.p.t.Context(), r.id)
	if err != nil {
		r.p.t.Fatalf("%s: %v", r.id, err)
	}
	return env
}

// Token asks the app's endpoint for a token, as an SDK would; a non-empty client
// selects a shared identity.
func (a *App) Token(resource string, client ...innate.ClientID) string {
	a.p.t.Helper()
	return ask(a.p.t, a.lend(), resource, client)
}

// Token asks the VM's endpoint for a token, as an SDK would.
func (v *VM) Token(resource string, client ...innate.ClientID) string {
	v.p.t.Helper()
	return ask(v.p.t, v.lend(), resource, client)
}

func ask(t testing.TB, env []string, resource string, client []innate.ClientID) string {
	t.Helper()
	var endpoint, header string
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "IDENTITY_ENDPOINT="); ok {
			endpoint = value
		}
		if value, ok := strings.CutPrefix(v, "IDENTITY_HEADER="); ok {
			header = value
		}
	}
	q := url.Values{"api-version": {"2019-08-01"}, "resource": {resource}}
	for _, id := range client {
		q.Set("client_id", string(id))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-IDENTITY-HEADER", header)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" {
		t.Fatalf("asking for a token for %s: %s: %s", resource, resp.Status, body)
	}
	return answer.Token
}
