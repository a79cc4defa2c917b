package innatetest_test

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/innatetest"
	"innate/rest"
	"innate/tokens"
)

// manage sends a request to the management surface with a token, not as the administrator.
func manage(t *testing.T, p *innatetest.Platform, token, method, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.Admin.Info.Management+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := p.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// lifetimes is what GET /lifetimes says to the administrator.
func lifetimes(t *testing.T, p *innatetest.Platform) (all []tokens.Lifetime) {
	t.Helper()
	var page struct {
		Value []tokens.Lifetime `json:"value"`
		Usual string            `json:"usual"`
	}
	if err := p.Admin.Get(t.Context(), "/lifetimes", &page); err != nil {
		t.Fatal(err)
	}
	if page.Usual != "PT1H" {
		t.Errorf("usual %s, want PT1H", page.Usual)
	}
	return page.Value
}

func TestALifetimeHoldsForAManagedIdentityAndGoesWithIt(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api := p.App("api")
	const vaults = "https://vault.azure.net"
	p.ARM(http.MethodPut, "/lifetimes/audience?of="+url.QueryEscape(vaults), map[string]string{"lifetime": "PT8H"}, nil)
	p.ARM(http.MethodPut, "/lifetimes/identity?of="+string(api.Principal()), map[string]string{"lifetime": "PT20M"}, nil)
	for resource, want := range map[string]time.Duration{vaults: 20 * time.Minute, "https://graph.microsoft.com": 20 * time.Minute} {
		if got := lifeOf(t, api.Token(resource)); got != want {
			t.Errorf("%s: a token for %s, want %s", resource, got, want)
		}
	}
	if got := lifeOf(t, p.App("other").Token(vaults)); got != 8*time.Hour {
		t.Errorf("another identity: a token for %s, want 8h", got)
	}
	if n := len(lifetimes(t, p)); n != 2 {
		t.Fatalf("%d lifetimes, want 2", n)
	}
	p.Delete(api)
	if left := lifetimes(t, p); len(left) != 1 || left[0].Of != tokens.OfAudience || left[0].Name != "Azure Key Vault" {
		t.Errorf("the identity is gone, left are %+v", left)
	}
}

// lifeOf is how long a token says that it is good, from its issue.
func lifeOf(t *testing.T, token string) time.Duration {
	t.Helper()
	c := payload(t, token)
	return time.Duration(c["exp"].(float64)-c["iat"].(float64)) * time.Second
}

func TestLifetimesAreForThoseWhoMayAdministerThem(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api := p.App("api")
	token := api.Token("https://management.azure.com")
	refused := func(method, path, action string) {
		t.Helper()
		if code, text := manage(t, p, token, method, path, `{"lifetime":"PT30M"}`); code != http.StatusForbidden || !strings.Contains(text, action) {
			t.Errorf("%s %s: got %d %s, want 403 that names %s", method, path, code, text, action)
		}
	}
	refused(http.MethodGet, "/lifetimes", tokens.ReadLifetimes)
	refused(http.MethodPut, "/lifetimes/tenant", tokens.WriteLifetimes)
	refused(http.MethodDelete, "/lifetimes/tenant", tokens.DeleteLifetimes)

	grantAtRoot(p, api.Principal(), "acdd72a7-3385-48ef-bd42-f606fba81ae7") // Reader
	if code, text := manage(t, p, token, http.MethodGet, "/lifetimes", ""); code != http.StatusOK || text != `{"usual":"PT1H","value":[]}`+"\n" {
		t.Errorf("a reader: got %d %s", code, text)
	}
	refused(http.MethodPut, "/lifetimes/tenant", tokens.WriteLifetimes)

	grantAtRoot(p, api.Principal(), "8e3af657-a8ff-443c-a75c-2fe8c4bcb635") // Owner
	if code, text := manage(t, p, token, http.MethodPut, "/lifetimes/tenant", `{"lifetime":"PT90M"}`); code != http.StatusOK || !strings.Contains(text, `"lifetime":"PT1H30M"`) {
		t.Errorf("an owner: got %d %s", code, text)
	}
	if code, text := manage(t, p, token, http.MethodDelete, "/lifetimes/tenant", ""); code != http.StatusNoContent {
		t.Errorf("an owner: got %d %s", code, text)
	}
}

func grantAtRoot(p *innatetest.Platform, who innate.ObjectID, role string) {
	p.ARM(http.MethodPut, "/providers/Microsoft.Authorization/roleAssignments/"+innate.NewGUID(), map[string]any{"properties": map[string]any{
		"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + role, "principalId": who,
	}}, nil)
}

func TestABadLifetimeIsRefusedInWords(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	for name, c := range map[string]struct {
		method, path string
		body         any
		status       int
		says         string
	}{
		"no duration":     {http.MethodPut, "/lifetimes/tenant", map[string]string{"lifetime": "30m"}, 400, "want one such as PT30M"},
		"too short":       {http.MethodPut, "/lifetimes/tenant", map[string]string{"lifetime": "PT5M"}, 400, "10m0s to 24h0m0s"},
		"none":            {http.MethodPut, "/lifetimes/tenant", map[string]string{}, 400, "10m0s to 24h0m0s"},
		"a number":        {http.MethodPut, "/lifetimes/tenant", map[string]int{"lifetime": 3600}, 400, "lifetime may not be"},
		"of nobody":       {http.MethodPut, "/lifetimes/identity?of=nobody", map[string]string{"lifetime": "PT1H"}, 404, "object id"},
		"clear of nobody": {http.MethodDelete, "/lifetimes/audience?of=api://nobody", nil, 404, "innate services"},
		"of what":         {http.MethodPut, "/lifetimes/key?of=x", map[string]string{"lifetime": "PT1H"}, 400, "tenant, an audience or an identity"},
		"another method":  {http.MethodPost, "/lifetimes/tenant", nil, 404, "PUT or DELETE"},
	} {
		err := p.Admin.ARM(t.Context(), c.method, c.path, c.body, nil)
		var e *rest.Error
		if !errors.As(err, &e) || e.Status != c.status || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: got %v, want %d that says %q", name, err, c.status, c.says)
		}
	}
}
