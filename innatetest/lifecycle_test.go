package innatetest_test

import (
	"net/http"
	"strings"
	"testing"

	"innate"
	"innate/innatetest"
)

func TestVaultAccessEndsWithTheApp(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.Grant(api, "Key Vault Secrets User", kv)
	tok := api.Token("https://vault.azure.net")
	if code, v := kv.GetWith(tok, "db-password"); code != http.StatusOK || v != "hunter2" {
		t.Fatalf("granted: got %d %s", code, v)
	}
	p.Delete(api)
	if code, _ := kv.GetWith(tok, "db-password"); code != http.StatusUnauthorized {
		t.Errorf("app deleted, token unexpired: got %d, want 401", code)
	}
}

// The token was issued before the role was: nothing about roles is in it.
func TestARoleJustGrantedOrTakenCountsAtOnce(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	kv := p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	api := p.App("api")
	tok := api.Token("https://vault.azure.net")
	for range 3 {
		if code, text := kv.GetWith(tok, "db-password"); code != http.StatusForbidden {
			t.Fatalf("without a role: got %d %s, want 403", code, text)
		}
		p.Grant(api, "Key Vault Secrets User", kv)
		if code, text := kv.GetWith(tok, "db-password"); code != http.StatusOK {
			t.Fatalf("just granted: got %d %s, want the secret", code, text)
		}
		ungrant(p, api, kv)
	}
}

// ungrant takes every role assignment of who at a resource.
func ungrant(p *innatetest.Platform, who innatetest.Holder, at innatetest.Resource) {
	var page struct {
		Value []struct {
			ID         string `json:"id"`
			Properties struct {
				Principal innate.ObjectID `json:"principalId"`
			} `json:"properties"`
		} `json:"value"`
	}
	p.ARM(http.MethodGet, string(at.ID())+"/providers/Microsoft.Authorization/roleAssignments", nil, &page)
	for _, a := range page.Value {
		if a.Properties.Principal == who.Principal() {
			p.ARM(http.MethodDelete, a.ID, nil, nil)
		}
	}
}

func TestADisabledIdentityGetsNoTokenAndWhatItHoldsOpensNothing(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	api, kv := p.App("api"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.Grant(api, "Key Vault Secrets User", kv)
	d := doorOf(t, api.Env())
	held := d.token(t, "https://vault.azure.net").Token
	if code, text := kv.GetWith(held, "db-password"); code != http.StatusOK {
		t.Fatalf("before: got %d %s", code, text)
	}

	enable := func(on bool) {
		t.Helper()
		if err := p.Admin.Graph(t.Context(), http.MethodPatch, "/v1.0/servicePrincipals/"+string(api.Principal()), map[string]bool{"accountEnabled": on}, nil); err != nil {
			t.Fatalf("accountEnabled %t: %v", on, err)
		}
	}
	enable(false)
	if code, _ := kv.GetWith(held, "db-password"); code != http.StatusUnauthorized {
		t.Errorf("disabled, token unexpired: got %d, want 401", code)
	}
	eventually(t, "the agent hears that the identity is disabled", func() bool {
		r := d.token(t, "https://vault.azure.net")
		if r.Token == "" {
			return true
		}
		if code, _ := kv.GetWith(r.Token, "db-password"); code != http.StatusUnauthorized {
			t.Fatalf("disabled: the agent handed out a token that opens the vault (%d)", code)
		}
		return false
	})
	if r := d.token(t, "https://management.azure.com/"); r.Token != "" {
		t.Error("disabled: a token for another audience")
	}

	enable(true)
	var again reply
	eventually(t, "an enabled identity gets a token", func() bool {
		again = d.token(t, "https://vault.azure.net")
		return again.Token != ""
	})
	if code, text := kv.GetWith(again.Token, "db-password"); code != http.StatusOK {
		t.Errorf("enabled again: got %d %s, want the secret", code, text)
	}
}

func TestADeletedSharedIdentityIsGoneFromEveryAppThatHadIt(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	shared, kv := p.Identity("shared"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.Grant(shared, "Key Vault Secrets User", kv)
	client := "client_id=" + string(shared.Client())
	type holder struct {
		door
		held string
	}
	var apps []holder
	for _, name := range []string{"a", "b"} {
		d := doorOf(t, p.App(name, shared).Env())
		apps = append(apps, holder{d, d.token(t, "https://vault.azure.net", client).Token})
	}
	p.Delete(shared)
	for _, app := range apps {
		if code, _ := kv.GetWith(app.held, "db-password"); code != http.StatusUnauthorized {
			t.Errorf("what the app held: got %d, want 401", code)
		}
		var r reply
		eventually(t, "the agent hears that the identity is gone", func() bool {
			r = app.token(t, "https://vault.azure.net", client)
			return r.Token == ""
		})
		if r.Status != http.StatusBadRequest || !strings.Contains(r.text(), "No User Assigned") {
			t.Errorf("asking for it: got %d %q, want 400", r.Status, r.text())
		}
		if r := app.token(t, "https://vault.azure.net"); r.Token == "" {
			t.Errorf("the app's own identity: got %d %s, want a token", r.Status, r.text())
		}
	}
}

func TestAVMThatMovedAwayIsNobodyOnItsOldHost(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	vm, kv := p.VM("web-1"), p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	p.Grant(vm, "Key Vault Secrets User", kv)
	d := doorOf(t, vm.Env())
	held := d.token(t, "https://vault.azure.net").Token
	if code, text := kv.GetWith(held, "db-password"); code != http.StatusOK {
		t.Fatalf("before: got %d %s", code, text)
	}

	elsewhere := p.Admin.Group(innatetest.Group) + "/providers/Microsoft.HybridCompute/machines/elsewhere"
	p.ARM(http.MethodPut, string(elsewhere), map[string]any{"location": "local"}, nil)
	p.ARM(http.MethodPatch, string(vm.ID()), map[string]any{"properties": map[string]any{"host": map[string]any{"id": elsewhere}}}, nil)

	if code, _ := kv.GetWith(held, "db-password"); code != http.StatusUnauthorized {
		t.Errorf("a token that the old host got: got %d, want 401", code)
	}
	eventually(t, "the old host's agent hears that the VM is gone", func() bool {
		for _, placed := range p.Agent.Status().Placements {
			if placed.Resource.Equal(vm.ID()) {
				return false
			}
		}
		return true
	})
	if _, err := p.Agent.Lend(t.Context(), vm.ID()); err == nil {
		t.Error("the old host still serves the VM")
	}
}
