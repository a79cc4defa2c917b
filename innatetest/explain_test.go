package innatetest_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"innate/innatetest"
	"innate/tokens"
)

func TestWhoMayReadTheDirectoryMayTestAnAssertion(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	id, api := p.Identity("id1"), p.App("api")
	const path = "/federation/test"
	b64 := base64.RawURLEncoding.EncodeToString
	assertion := b64([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + b64([]byte(`{"iss":"https://example.org","sub":"s","aud":"a","exp":1}`)) + ".c2ln"

	var x tokens.Explanation
	p.ARM(http.MethodPost, path, map[string]any{"clientId": id.Client(), "assertion": assertion}, &x)
	if x.Verdict != tokens.Refused || !strings.Contains(x.Why, "AADSTS700211") {
		t.Errorf("%+v", x)
	}
	found := false
	for _, ev := range recorded(t, p, "control") {
		found = found || ev.Action == "test-federation" && ev.Target == string(id.Client()) && ev.Name == "local administrator"
		if line := fmt.Sprintf("%+v", ev); strings.Contains(line, assertion[:40]) {
			t.Errorf("the log has the assertion: %s", line)
		}
	}
	if !found {
		t.Error("nothing in the log says who tested an assertion")
	}

	for _, body := range []map[string]any{
		{"assertion": assertion}, {"clientId": "orders", "assertion": assertion}, {"clientId": id.Client()}, {"clientId": 7, "assertion": assertion},
	} {
		if err := p.Admin.ARM(t.Context(), http.MethodPost, path, body, nil); err == nil || !strings.Contains(err.Error(), "InvalidRequestContent") {
			t.Errorf("%v: %v", body, err)
		}
	}
	for token, want := range map[string]int{"": 401, api.Token(p.Admin.Info.Management): 403} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Admin.Info.Management+path,
			strings.NewReader(`{"clientId":"`+string(id.Client())+`","assertion":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := p.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("got %d %s, want %d", resp.StatusCode, body, want)
		}
	}
}
