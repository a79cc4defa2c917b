package resources_test

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/resources"
	"innate/store"
)

func TestWhatClientsAskAboutThePlatformItself(t *testing.T) {
	w := newWorld(t)
	if a := w.must("GET", sub, ""); a.text("tenantId") != tenant || a.text("state") != "Enabled" || a.text("displayName") != "Innate" {
		t.Errorf("subscription: %s", a.Body)
	}
	if a := w.must("GET", "/tenants", ""); !strings.Contains(a.Body.String(), `"id":"/tenants/`+tenant+`"`) {
		t.Errorf("tenants: %s", a.Body)
	}
	if a := w.must("GET", sub+"/locations", ""); !slices.Equal(a.names(), []string{"local"}) {
		t.Errorf("locations: %s", a.Body)
	}
	for _, target := range []string{sub + "/providers/microsoft.keyvault", sub + "/providers/Microsoft.Unheard", "/providers/Microsoft.Web"} {
		if a := w.must("GET", target, ""); a.text("registrationState") != "Registered" {
			t.Errorf("%s: %s", target, a.Body)
		}
	}
	w.must("POST", sub+"/providers/Microsoft.Compute/register", "")
	if a := w.must("GET", sub+"/providers", ""); strings.Count(a.Body.String(), "registrationState") < 6 {
		t.Errorf("providers: %s", a.Body)
	}
}

func TestExists(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vault, `{}`)
	for at, want := range map[innate.Scope]bool{
		"/": true, sub: true, group: true, vault: true, vault + "/secrets/s1": true,
		innate.Scope(strings.ToUpper(vault)): true, vm: false, group + "x": false, vault + "x/secrets/s1": false,
		"/subscriptions/33333333-0000-0000-0000-000000000000": false, "/providers/Microsoft.Management/managementGroups/m": false,
	} {
		if err := w.db.View(t.Context(), func(r store.Reader) error {
			if got, err := resources.Exists(r, at); err != nil || got != want {
				t.Errorf("Exists(%s) = %t, %v, want %t", at, got, err, want)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutAPrincipalThereIsNoAnswer(t *testing.T) {
	w := newWorld(t)
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/subscriptions?api-version=2022-12-01", nil))
	if rec.Code != 401 {
		t.Errorf("got %d %s", rec.Code, rec.Body)
	}
}

func TestMetadataHasTheShapeOfItsVersion(t *testing.T) {
	w := newWorld(t)
	get := func(version string) string {
		rec := httptest.NewRecorder()
		w.Metadata().ServeHTTP(rec, httptest.NewRequest("GET", "/metadata/endpoints?api-version="+version, nil))
		if rec.Code != 200 {
			t.Fatalf("%s: %d %s", version, rec.Code, rec.Body)
		}
		return rec.Body.String()
	}
	var old struct {
		Graph          string `json:"graphEndpoint"`
		Authentication struct {
			Login     string   `json:"loginEndpoint"`
			Audiences []string `json:"audiences"`
		} `json:"authentication"`
	}
	if err := json.Unmarshal([]byte(get("2015-01-01")), &old); err != nil || old.Graph != "https://graph.example.org/" ||
		old.Authentication.Login != "https://login.example.org/" || len(old.Authentication.Audiences) != 1 {
		t.Errorf("2015-01-01: %+v (%v)", old, err)
	}
	var many []map[string]any
	if err := json.Unmarshal([]byte(get("2019-05-01")), &many); err != nil || len(many) != 1 {
		t.Fatalf("2019-05-01: %v (%v)", many, err)
	}
	var cloud map[string]any
	if err := json.Unmarshal([]byte(get("2022-09-01")), &cloud); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(many[0], cloud); diff != "" {
		t.Error(diff)
	}
	suffixes, _ := cloud["suffixes"].(map[string]any)
	if cloud["name"] == "AzureCloud" || cloud["resourceManager"] != "https://management.example.org/" ||
		cloud["microsoftGraphResourceId"] != "https://graph.example.org/" || suffixes["keyVaultDns"] != "vault.example.org:8443" {
		t.Errorf("got %v", cloud)
	}
}
