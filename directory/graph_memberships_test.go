package directory_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
)

func TestWhichGroupsSomebodyIsIn(t *testing.T) {
	w := newWorld(t)
	vm := w.identity("vm1", vm1, false)
	user := innate.ObjectID(w.want(201, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Ann", "userPrincipalName": "ann@example.org"})["id"].(string))
	inner := w.group("inner", vm.ID, user)
	outer := w.group("outer", inner.ID)
	w.group("beside")
	both := []any{string(inner.ID), string(outer.ID)}
	slices.SortFunc(both, func(a, b any) int { return map[bool]int{true: -1, false: 1}[a.(string) < b.(string)] })
	for _, c := range []struct {
		of              string
		direct, through []string
		ids             []any
	}{
		{"servicePrincipals/" + string(vm.ID), []string{"inner"}, []string{"inner", "outer"}, both},
		{"servicePrincipals(appId='" + string(vm.Client) + "')", []string{"inner"}, []string{"inner", "outer"}, both},
		{"users/ann@example.org", []string{"inner"}, []string{"inner", "outer"}, both},
		{"groups/" + string(inner.ID), []string{"outer"}, []string{"outer"}, []any{string(outer.ID)}},
		{"groups/" + string(outer.ID), []string{}, []string{}, []any{}},
	} {
		direct := w.want(200, admin, "GET", "/v1.0/"+c.of+"/memberOf", nil)
		if diff := cmp.Diff(c.direct, names(direct)); diff != "" {
			t.Errorf("memberOf of %s (-want +got)\n%s", c.of, diff)
		}
		for _, v := range direct["value"].([]any) {
			if kind := v.(map[string]any)["@odata.type"]; kind != "#microsoft.graph.group" {
				t.Errorf("memberOf of %s has a %v", c.of, kind)
			}
		}
		through := names(w.want(200, admin, "GET", "/beta/"+c.of+"/transitiveMemberOf", nil))
		slices.Sort(through)
		if diff := cmp.Diff(c.through, through); diff != "" {
			t.Errorf("transitiveMemberOf of %s (-want +got)\n%s", c.of, diff)
		}
		for _, action := range []string{"getMemberGroups", "getMemberObjects"} {
			got := w.want(200, admin, "POST", "/v1.0/"+c.of+"/"+action, map[string]any{"securityEnabledOnly": true})["value"]
			if diff := cmp.Diff(any(c.ids), got); diff != "" {
				t.Errorf("%s of %s (-want +got)\n%s", action, c.of, diff)
			}
		}
	}
	filtered := w.want(200, admin, "GET", "/v1.0/users/ann@example.org/transitiveMemberOf?$filter=displayName%20eq%20'outer'", nil)
	if diff := cmp.Diff([]string{"outer"}, names(filtered)); diff != "" {
		t.Errorf("filtered (-want +got)\n%s", diff)
	}
	w.want(404, admin, "GET", "/v1.0/users/"+string(vm.ID)+"/memberOf", nil)
}

func TestOneKnowsOnesOwnGroups(t *testing.T) {
	w := newWorld(t)
	vm := w.identity("vm1", vm1, false)
	user := innate.ObjectID(w.want(201, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Ann", "userPrincipalName": "Ann@example.org"})["id"].(string))
	g := w.group("g", vm.ID, user)
	program := innate.Principal{Object: vm.ID, Client: vm.Client, Name: "vm1"}
	person := innate.Principal{Object: user, Name: "Ann"}
	for _, c := range []struct {
		status int
		who    innate.Principal
		of     string
	}{
		{200, program, "servicePrincipals/" + string(vm.ID)},
		{200, program, "servicePrincipals(appId='" + string(vm.Client) + "')"},
		{200, person, "users/" + string(user)},
		{200, person, "users/ann@EXAMPLE.org"},
		{403, person, "servicePrincipals/" + string(vm.ID)},
		{403, person, "servicePrincipals(appId='')"}, // who has no client id is not the one without
		{403, program, "users/ann@example.org"},
		{403, program, "users/none@example.org"},
		{403, program, "groups/" + string(g.ID)}, // nor are one's groups oneself
	} {
		w.want(c.status, c.who, "GET", "/v1.0/"+c.of+"/memberOf", nil)
		w.want(c.status, c.who, "GET", "/v1.0/"+c.of+"/transitiveMemberOf", nil)
		w.want(c.status, c.who, "POST", "/v1.0/"+c.of+"/getMemberGroups", map[string]any{})
	}
}

func TestAGroupIsRenamed(t *testing.T) {
	w := newWorld(t)
	g := w.group("ops")
	target := "/beta/groups/" + string(g.ID)
	w.want(403, nobody, "PATCH", target, map[string]any{"displayName": "x"})
	w.want(204, admin, "PATCH", target, map[string]any{"displayName": "operations", "description": "not kept"})
	w.want(204, admin, "PATCH", target, map[string]any{"description": "not kept"})
	w.want(400, admin, "PATCH", target, map[string]any{"displayName": ""})
	w.want(404, admin, "PATCH", "/beta/groups/"+string(admin.Object), map[string]any{"displayName": "x"})
	if got := w.want(200, admin, "GET", target, nil); got["displayName"] != "operations" {
		t.Errorf("it is called %v", got["displayName"])
	}
	if got := w.events(); len(got) != 1 || got[0].Action != "microsoft.directory/groups/update" || got[0].Target != string(g.ID) {
		t.Errorf("events are %v, want one of the change", got)
	}
}
