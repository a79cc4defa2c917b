package resources_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/directory"
	"innate/resources"
	"innate/store"
)

func TestAnIdentityLivesAndDiesWithItsResource(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vault, `{}`)
	a := w.must("PUT", vm, `{"location":"local","identity":{"type":"SystemAssigned"}}`)
	id := a.text("identity", "principalId")
	o, ok := w.directory.Object(innate.ObjectID(id))
	if !ok || o.Kind != directory.ManagedIdentity || string(o.Owner) != vm || o.Shared {
		t.Fatalf("the directory has %+v (%t) under %q", o, ok, id)
	}
	before := w.assignments()
	w.grantTo(innate.ObjectID(id), access.KeyVaultSecretsUser, vault)
	w.grant(w.owner, access.Reader, vm)
	if n := w.assignments(); n != before+2 {
		t.Fatalf("%d assignments, want %d", n, before+2)
	}

	w.must("DELETE", vm, "")
	if w.object(id) {
		t.Error("the principal outlived its VM")
	}
	if n := w.assignments(); n != before {
		t.Errorf("%d assignments, want the %d from before the VM", n, before)
	}
	w.send("GET", vm, "").is(404, "ResourceNotFound")
	w.send("DELETE", vm, "").is(204, "")
}

func TestAFailedChangeLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	w.group()
	principals := func() (n int) {
		if err := w.db.View(t.Context(), func(r store.Reader) error {
			for range r.Scan("directory/objects/", "") {
				n++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := principals()
	w.send("PUT", vm, `{"identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"`+uai+`":{}}}}`).
		is(400, "FailedIdentityOperation")
	if n := principals(); n != before {
		t.Errorf("%d principals, want %d", n, before)
	}
	if _, ok := w.Find(vm); ok {
		t.Error("the VM is there")
	}
}

// The sub-protocol of control-plane §3.6: each step acts on what the one before left.
func TestTheIdentityProtocol(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", uai, `{"location":"local"}`)
	other := strings.Replace(uai, "id1", "id2", 1)
	w.must("PUT", other, `{"location":"local"}`)
	for _, target := range []string{vm, site} {
		w.must("PUT", target, `{"location":"local"}`)
		last := ""
		for i, c := range []struct {
			method, identity string // identity is the member as sent; empty sends none
			system           string // what becomes of the system-assigned one: "", same or new
			user             []string
		}{
			{"PATCH", `{"type":"SystemAssigned"}`, "new", nil},
			{"PUT", ``, "same", nil},                            // a PUT without the block leaves it
			{"PUT", `null`, "same", nil},                        // and so does a null one
			{"PATCH", `{"type":"SystemAssigned"}`, "same", nil}, // turning on what is on
			{"PATCH", `{"type":"None"}`, "", nil},
			{"PATCH", `{"type":"SystemAssigned"}`, "new", nil}, // a new principal, not the old one
			{"PATCH", `{"type":"systemassigned,userassigned","userAssignedIdentities":{"` + strings.ToUpper(uai) + `":{}}}`, "same", []string{uai}},
			{"PATCH", `{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"` + other + `":{}}}`, "same", []string{uai, other}},
			{"PATCH", `{"type":"UserAssigned"}`, "", []string{uai, other}},
			{"PATCH", `{"userAssignedIdentities":{"` + strings.ToLower(uai) + `":null}}`, "", []string{other}},
			{"PUT", `{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{}}}`, "", []string{uai}}, // exactly these
			{"PUT", ``, "", []string{uai}},
			{"PATCH", `{"type":"SystemAssigned"}`, "new", nil}, // how az removes the last one
			{"PATCH", `null`, "", nil},
			{"PATCH", `{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{}}}`, "", []string{uai}},
			{"PATCH", `{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":null}}`, "", nil},
		} {
			body := `{}`
			if c.identity != "" {
				body = `{"identity":` + c.identity + `}`
			}
			w.must(c.method, target, body)
			a := w.must("GET", target, "")
			now := a.text("identity", "principalId")
			switch {
			case c.system == "" && now != "", c.system == "same" && now != last, c.system == "new" && (now == "" || now == last):
				t.Errorf("%s step %d (%s %s): principal %q after %q, want it %q", target, i, c.method, body, now, last, c.system)
			}
			if last != "" && last != now && w.object(last) {
				t.Errorf("%s step %d: principal %s is not used any more and is still there", target, i, last)
			}
			last = now
			user, _ := a.at("identity", "userAssignedIdentities").(map[string]any)
			var keys []string
			for _, id := range []string{uai, other} {
				if shared, ok := user[id]; ok {
					keys = append(keys, id)
					own := w.must("GET", id, "").at("properties").(map[string]any)
					want := map[string]any{"principalId": own["principalId"], "clientId": own["clientId"]}
					if diff := cmp.Diff(want, shared); diff != "" {
						t.Errorf("%s step %d: %s", target, i, diff)
					}
				}
			}
			if diff := cmp.Diff(c.user, keys); diff != "" || len(user) != len(keys) {
				t.Errorf("%s step %d (%s %s): attached %v: %s", target, i, c.method, body, user, diff)
			}
			want := map[[2]bool]string{{true, false}: "SystemAssigned", {false, true}: "UserAssigned", {true, true}: "SystemAssigned, UserAssigned"}[[2]bool{now != "", len(keys) > 0}]
			if got := a.text("identity", "type"); got != want {
				t.Errorf("%s step %d: type %q, want %q", target, i, got, want)
			}
		}
	}
}

func TestBadIdentityBlocksAreRefused(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", uai, `{}`)
	for _, c := range []struct{ target, identity, code string }{
		{vm, `{"type":"Sometimes"}`, "InvalidIdentity"},
		{vm, `{"type":""}`, "InvalidIdentity"},
		{vm, `{}`, "InvalidIdentity"},
		{vm, `{"type":"None, SystemAssigned"}`, "InvalidIdentity"},
		{vm, `{"type":"UserAssigned"}`, "InvalidIdentity"},
		{vm, `{"type":"UserAssigned","userAssignedIdentities":{}}`, "InvalidIdentity"},
		{vm, `{"type":"SystemAssigned","userAssignedIdentities":{"` + uai + `":{}}}`, "InvalidIdentity"},
		{vm, `{"type":"UserAssigned","userAssignedIdentities":{"id1":{}}}`, "InvalidIdentity"},
		{vm, `{"type":"UserAssigned","userAssignedIdentities":{"` + machine + `":{}}}`, "InvalidIdentity"},
		{vm, `{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{},"` + strings.ToLower(uai) + `":null}}`, "InvalidIdentity"},
		{vm, `{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":7}}`, "InvalidRequestContent"},
		{vm, `"SystemAssigned"`, "InvalidRequestContent"},
		{vm, `{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `x":{}}}`, "FailedIdentityOperation"},
		{vault, `{"type":"SystemAssigned"}`, "InvalidIdentity"},
		{uai, `{"type":"SystemAssigned"}`, "InvalidIdentity"},
	} {
		w.send("PUT", c.target, `{"identity":`+c.identity+`}`).is(400, c.code)
	}
	w.must("PUT", vault, `{"identity":{"type":"None"}}`)
}

func TestAUserAssignedIdentityKeepsItsPrincipalAndIsTakenFromItsUsersWhenDeleted(t *testing.T) {
	w := newWorld(t)
	w.group()
	first := w.send("PUT", uai, `{"location":"local"}`).is(201, "")
	again := w.send("PUT", uai, `{"location":"local","tags":{"a":"b"}}`).is(200, "")
	if diff := cmp.Diff(first.at("properties"), again.at("properties")); diff != "" {
		t.Errorf("the second PUT changed it: %s", diff)
	}
	if first.text("properties", "tenantId") != tenant || first.at("identity") != nil {
		t.Errorf("got %s", first.Body)
	}
	attach := `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{}}}}`
	w.must("PUT", vm, attach)
	w.must("PUT", site, attach)
	w.written = nil

	w.must("DELETE", uai, "")
	if w.object(first.text("properties", "principalId")) {
		t.Error("its principal is still there")
	}
	for _, id := range []innate.ResourceID{vm, site} {
		if r, ok := w.Find(id); !ok || len(r.Identity.User) != 0 {
			t.Errorf("%s: still has %v", id, r.Identity.User)
		}
	}
	if diff := cmp.Diff([]string{vm, site}, w.written); diff != "" {
		t.Errorf("OnWrite: %s", diff)
	}
	w.do(func(tx store.Tx) error {
		if left := resources.UsersOf(tx, uai); len(left) != 0 {
			t.Errorf("users of what is gone: %v", left)
		}
		return nil
	})
	w.must("PUT", uai, `{}`)
	if a := w.must("GET", vm, ""); a.at("identity") != nil {
		t.Errorf("a new identity of the same name is attached: %s", a.Body)
	}
}

func TestAMachineHasItsOwnIdentityFromBirth(t *testing.T) {
	w := newWorld(t)
	w.group()
	if a := w.must("GET", machine, ""); a.text("identity", "type") != "SystemAssigned" || a.text("properties", "vmId") == "" {
		t.Errorf("got %s", a.Body)
	}
	other := strings.Replace(machine, "host1", "host2", 1)
	if a := w.must("PUT", other, `{"identity":{"type":"None"}}`); a.at("identity") != nil {
		t.Errorf("it was told to have none: %s", a.Body)
	}
}
