package directory_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/store"
)

// The ids of app roles in these tests.
const (
	readRole  = "00000000-0000-0000-0000-00000000000a"
	writeRole = "00000000-0000-0000-0000-00000000000b"
	bossRole  = "00000000-0000-0000-0000-00000000000c"
)

// appRole is an app role as a client sends it.
func appRole(id, value string, members ...string) map[string]any {
	if members == nil {
		members = []string{"Application"}
	}
	return map[string]any{"id": id, "value": value, "displayName": "the " + value, "description": "may " + value, "allowedMemberTypes": members}
}

// service is an application with the roles orders.read and orders.write for
// programs, and orders.boss for people.
func (w *world) service() (directory.Registration, directory.Object) {
	w.t.Helper()
	app, sp := w.application("orders")
	w.want(204, admin, "PATCH", "/v1.0/applications/"+string(app.ID), map[string]any{"appRoles": []any{
		appRole(readRole, "orders.read", "Application", "User"), appRole(writeRole, "orders.write"), appRole(bossRole, "orders.boss", "User"),
	}})
	app, _ = w.Registration(app.Client)
	return app, sp
}

// roles lists what AppRoles says now.
func (w *world) roles(app directory.Registration, id innate.ObjectID) []string {
	w.t.Helper()
	app, _ = w.Registration(app.Client)
	values, _ := w.AppRoles(app, id)
	return values
}

func assign(principal, resource innate.ObjectID, role string) map[string]any {
	return map[string]any{"principalId": principal, "resourceId": resource, "appRoleId": role}
}

func TestAnAppRoleFromItsAssignmentToItsEnd(t *testing.T) {
	w := newWorld(t)
	app, sp := w.service()
	vm := w.identity("vm1", vm1, false)
	made := w.want(201, admin, "POST", "/v1.0/servicePrincipals/"+string(sp.ID)+"/appRoleAssignedTo", assign(vm.ID, sp.ID, readRole))
	want := map[string]any{
		"@odata.context": "https://graph.example.org/v1.0/$metadata#appRoleAssignments/$entity",
		"id":             made["id"], "appRoleId": readRole, "createdDateTime": "2026-11-23T12:00:00Z",
		"principalId": string(vm.ID), "principalType": "ServicePrincipal", "principalDisplayName": "vm1",
		"resourceId": string(sp.ID), "resourceDisplayName": "orders",
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("made (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"orders.read"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("its roles (-want +got)\n%s", diff)
	}
	id := made["id"].(string)
	assignedTo := "/v1.0/servicePrincipals(appId='" + string(sp.Client) + "')/appRoleAssignedTo"
	held := "/beta/servicePrincipals/" + string(vm.ID) + "/appRoleAssignments"
	delete(want, "@odata.context")
	for _, set := range []string{assignedTo, held} {
		listed := w.want(200, admin, "GET", set, nil)
		if diff := cmp.Diff([]any{want}, listed["value"]); diff != "" {
			t.Errorf("GET %s (-want +got)\n%s", set, diff)
		}
		got := w.want(200, admin, "GET", set+"/"+id, nil)
		delete(got, "@odata.context")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("GET %s/%s (-want +got)\n%s", set, id, diff)
		}
	}
	// What names one end names it alone: the same id is nobody's at another.
	w.want(404, admin, "GET", "/v1.0/servicePrincipals/"+string(sp.ID)+"/appRoleAssignments/"+id, nil)
	w.want(404, admin, "DELETE", "/v1.0/servicePrincipals/"+string(vm.ID)+"/appRoleAssignedTo/"+id, nil)

	w.want(400, admin, "POST", held, assign(vm.ID, sp.ID, readRole)) // it is there already
	w.want(201, admin, "POST", held, map[string]any{"resourceId": strings.ToUpper(string(sp.ID)), "appRoleId": strings.ToUpper(writeRole)})
	if diff := cmp.Diff([]string{"orders.read", "orders.write"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("its roles (-want +got)\n%s", diff)
	}
	filtered := w.want(200, admin, "GET", assignedTo+"?$filter=appRoleId%20eq%20"+writeRole, nil)
	if got := filtered["value"].([]any); len(got) != 1 || got[0].(map[string]any)["appRoleId"] != writeRole {
		t.Errorf("filtered by role: %v", got)
	}

	w.want(204, admin, "DELETE", held+"/"+id, nil)
	w.want(404, admin, "DELETE", assignedTo+"/"+id, nil)
	w.want(404, admin, "GET", assignedTo+"/"+id, nil)
	if diff := cmp.Diff([]string{"orders.write"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("its roles (-want +got)\n%s", diff)
	}
	var left []string
	for _, ev := range w.events() {
		if action, ok := strings.CutPrefix(ev.Action, "microsoft.directory/servicePrincipals/appRoleAssignedTo/"); ok {
			left = append(left, action+" "+strings.TrimPrefix(ev.Target, string(sp.ID)+"/"+string(vm.ID)+"/"))
		}
	}
	if diff := cmp.Diff([]string{"add " + readRole, "add " + writeRole, "remove " + readRole}, left); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestAnAssignmentThatSaysNothingIsRefused(t *testing.T) {
	w := newWorld(t)
	_, sp := w.service()
	vm := w.identity("vm1", vm1, false)
	user := innate.ObjectID(w.want(201, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Ann", "userPrincipalName": "ann@example.org"})["id"].(string))
	const nowhere = "11111111-1111-1111-1111-111111111111"
	for _, c := range []struct {
		status   int
		of, says string
		body     any
	}{
		{404, string(vm.ID), "does not exist", assign(vm.ID, nowhere, readRole)},
		{404, nowhere, "does not exist", assign(nowhere, sp.ID, readRole)},
		{400, string(vm.ID), "have no such id", assign(vm.ID, sp.ID, nowhere)},
		{400, string(vm.ID), "not the service principal of an application", assign(vm.ID, vm.ID, readRole)},
		{400, string(vm.ID), "members of type User: 'vm1' is a ServicePrincipal", assign(vm.ID, sp.ID, bossRole)},
		{400, string(vm.ID), "not the id in the path", assign(user, sp.ID, readRole)},
		{400, string(vm.ID), "appRoleId must be", map[string]any{"resourceId": sp.ID}},
		{400, string(vm.ID), "must be object ids", map[string]any{"appRoleId": readRole}},
		{400, string(vm.ID), "must be object ids", assign(vm.ID, "orders", readRole)},
		{404, string(user), "does not exist", assign(user, sp.ID, bossRole)}, // users have a set of their own
	} {
		answer := w.want(c.status, admin, "POST", "/v1.0/servicePrincipals/"+c.of+"/appRoleAssignments", c.body)
		if message := fmt.Sprint(answer["error"].(map[string]any)["message"]); !strings.Contains(message, c.says) {
			t.Errorf("%v: the refusal does not say %q: %s", c.body, c.says, message)
		}
	}
	set := "/v1.0/users/ann@example.org/appRoleAssignments"
	w.want(400, admin, "POST", set, assign(user, sp.ID, writeRole)) // for programs alone
	made := w.want(201, admin, "POST", set, assign(user, sp.ID, bossRole))
	if made["principalType"] != "User" || made["principalDisplayName"] != "Ann" {
		t.Errorf("made %v", made)
	}
	for _, id := range []string{"x", "x.y", "a.b.c", "a.b.c.d", made["id"].(string) + "0"} {
		w.want(404, admin, "GET", set+"/"+id, nil)
		w.want(404, admin, "DELETE", set+"/"+id, nil)
	}
}

func TestAGroupsRolesAreItsMembersIfTheyAreForThem(t *testing.T) {
	w := newWorld(t)
	app, sp := w.service()
	vm := w.identity("vm1", vm1, false)
	inner := w.group("inner", vm.ID)
	outer := w.group("outer", inner.ID)
	set := "/v1.0/groups/" + string(outer.ID) + "/appRoleAssignments"
	w.want(201, admin, "POST", set, assign(outer.ID, sp.ID, bossRole))
	if values, assigned := w.AppRoles(app, vm.ID); len(values) != 0 || assigned {
		t.Errorf("a workload has %v, assigned %v, by a role for people that its group has", values, assigned)
	}
	made := w.want(201, admin, "POST", set, assign(outer.ID, sp.ID, writeRole))
	if made["principalType"] != "Group" {
		t.Errorf("made %v", made)
	}
	w.want(201, admin, "POST", "/v1.0/servicePrincipals/"+string(vm.ID)+"/appRoleAssignments", assign(vm.ID, sp.ID, writeRole))
	if diff := cmp.Diff([]string{"orders.write"}, w.roles(app, vm.ID)); diff != "" { // once, though it has it twice
		t.Errorf("its roles (-want +got)\n%s", diff)
	}
	w.do(func(tx store.Tx) error { return w.RemoveMember(tx, inner.ID, vm.ID) })
	w.want(204, admin, "DELETE", set+"/"+made["id"].(string), nil)
	if diff := cmp.Diff([]string{"orders.write"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("its own role (-want +got)\n%s", diff)
	}
}

func TestWhoIsAssignedToNoRoleIsAssignedStill(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders")
	vm := w.identity("vm1", vm1, false)
	if values, assigned := w.AppRoles(app, vm.ID); values != nil || assigned {
		t.Errorf("nobody assigned anything: %v, %v", values, assigned)
	}
	w.want(201, admin, "POST", "/v1.0/servicePrincipals/"+string(sp.ID)+"/appRoleAssignedTo", assign(vm.ID, sp.ID, directory.NoAppRole))
	if values, assigned := w.AppRoles(app, vm.ID); values != nil || !assigned {
		t.Errorf("got %v, %v, want no role and assigned", values, assigned)
	}
	// That the application gets roles afterwards takes nothing away.
	w.want(204, admin, "PATCH", "/v1.0/applications/"+string(app.ID), map[string]any{"appRoles": []any{appRole(readRole, "orders.read")}})
	w.want(204, admin, "PATCH", "/v1.0/applications/"+string(app.ID), map[string]any{"appRoles": []any{}})
	if _, assigned := w.AppRoles(app, vm.ID); !assigned {
		t.Error("it is assigned no more")
	}
}

func TestARoleThatIsDisabledOrRemovedGivesNothing(t *testing.T) {
	w := newWorld(t)
	app, sp := w.service()
	vm := w.identity("vm1", vm1, false)
	for _, role := range []string{readRole, writeRole} {
		w.want(201, admin, "POST", "/v1.0/servicePrincipals/"+string(sp.ID)+"/appRoleAssignedTo", assign(vm.ID, sp.ID, role))
	}
	patch := func(roles ...any) {
		t.Helper()
		w.want(204, admin, "PATCH", "/v1.0/applications/"+string(app.ID), map[string]any{"appRoles": roles})
	}
	read, write := appRole(readRole, "orders.read"), appRole(writeRole, "orders.write")
	patch(read, with(write, map[string]any{"isEnabled": false}))
	if diff := cmp.Diff([]string{"orders.read"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("one is disabled (-want +got)\n%s", diff)
	}
	patch(read, write)
	if diff := cmp.Diff([]string{"orders.read", "orders.write"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("and enabled again (-want +got)\n%s", diff)
	}
	patch(write)
	patch(read, write) // the same id is there again, its assignments are not
	if diff := cmp.Diff([]string{"orders.write"}, w.roles(app, vm.ID)); diff != "" {
		t.Errorf("one was removed and made again (-want +got)\n%s", diff)
	}
	held := w.want(200, admin, "GET", "/v1.0/servicePrincipals/"+string(vm.ID)+"/appRoleAssignments", nil)
	if n := len(held["value"].([]any)); n != 1 {
		t.Errorf("%d assignments are listed, want 1", n)
	}
	renamed := with(write, map[string]any{"value": "orders.change"})
	patch(renamed)
	if diff := cmp.Diff([]string{"orders.change"}, w.roles(app, vm.ID)); diff != "" { // an assignment is of the id
		t.Errorf("its value changed (-want +got)\n%s", diff)
	}
}

func TestAppRolesAreShownAsTheyWereGiven(t *testing.T) {
	w := newWorld(t)
	app, sp := w.service()
	want := []any{
		with(appRole(readRole, "orders.read"), map[string]any{"allowedMemberTypes": []any{"Application", "User"}, "isEnabled": true, "origin": "Application"}),
		with(appRole(writeRole, "orders.write"), map[string]any{"allowedMemberTypes": []any{"Application"}, "isEnabled": true, "origin": "Application"}),
		with(appRole(bossRole, "orders.boss"), map[string]any{"allowedMemberTypes": []any{"User"}, "isEnabled": true, "origin": "Application"}),
	}
	for _, target := range []string{"/v1.0/applications/" + string(app.ID), "/v1.0/servicePrincipals/" + string(sp.ID)} {
		got := w.want(200, admin, "GET", target, nil)["appRoles"]
		if diff := cmp.Diff(any(want), got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", target, diff)
		}
		// What was read can be written back, as azuread does.
		w.want(204, admin, "PATCH", "/v1.0/applications/"+string(app.ID), map[string]any{"appRoles": got})
	}
}

func TestAppRolesThatWouldConfuseAreRefused(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	read := appRole(readRole, "orders.read")
	change := func(name string, value any) []any { return []any{with(read, map[string]any{name: value})} }
	for _, c := range []struct {
		says  string
		roles []any
	}{
		{"must be a GUID", change("id", "orders")},
		{"must be a GUID", change("id", absent)},
		{"must be a GUID", change("id", directory.NoAppRole)},
		{"must be unique", []any{read, appRole(readRole, "orders.write")}},
		{"must be unique", []any{read, appRole(strings.ToUpper(readRole), "orders.write")}},
		{"must be unique", []any{read, appRole(writeRole, "orders.read")}},
		{"must be unique", []any{read, appRole(writeRole, "Orders.Read")}},
		{"without spaces", change("value", "orders read")},
		{"without spaces", change("value", "orders\tread")},
		{"without spaces", change("value", `orders"read`)},
		{"without spaces", change("value", "orders.lesen.für.alle")},
		{"without spaces", change("value", ".read")},
		{"at most 120", change("value", strings.Repeat("x", 121))},
		{"displayName", change("displayName", "")},
		{"at most 1024", change("description", strings.Repeat("x", 1025))},
		{"allowedMemberTypes", change("allowedMemberTypes", []string{})},
		{"allowedMemberTypes", change("allowedMemberTypes", absent)},
		{"allowedMemberTypes", change("allowedMemberTypes", []string{"Group"})},
		{"at most 1200", slices.Repeat([]any{read}, 1201)},
	} {
		for method, target := range map[string]string{"PATCH": "/v1.0/applications/" + string(app.ID), "POST": "/v1.0/applications"} {
			answer := w.want(400, admin, method, target, map[string]any{"displayName": "x", "appRoles": c.roles})
			if message := fmt.Sprint(answer["error"].(map[string]any)["message"]); !strings.Contains(message, c.says) {
				t.Errorf("%s: the refusal does not say %q: %s", method, c.says, message)
			}
		}
	}
	// Two roles without a value, a value of 120 characters, and null for none are fine.
	w.want(201, admin, "POST", "/v1.0/applications", map[string]any{"displayName": "x", "appRoles": []any{
		with(read, map[string]any{"value": nil}), with(appRole(writeRole, ""), nil), appRole(bossRole, strings.Repeat("~", 120)),
	}})
}

func TestAssigningRolesIsForThoseWhoMayEdit(t *testing.T) {
	w := newWorld(t)
	_, sp := w.service()
	vm, other := w.identity("vm1", vm1, false), w.identity("vm2", vm1, false)
	id := w.want(201, admin, "POST", "/v1.0/servicePrincipals/"+string(sp.ID)+"/appRoleAssignedTo", assign(vm.ID, sp.ID, readRole))["id"].(string)
	me := innate.Principal{Object: vm.ID, Client: vm.Client, Name: "vm1"}
	own, its, others := "/v1.0/servicePrincipals/"+string(vm.ID)+"/appRoleAssignments", "/v1.0/servicePrincipals/"+string(sp.ID)+"/appRoleAssignedTo",
		"/v1.0/servicePrincipals/"+string(other.ID)+"/appRoleAssignments"
	for _, c := range []struct {
		status         int
		method, target string
	}{
		{200, "GET", own}, {200, "GET", own + "/" + id}, // what one has, one may know
		{403, "POST", own}, {403, "DELETE", own + "/" + id},
		{403, "GET", others}, {403, "GET", others + "/" + id}, {403, "POST", others},
		{403, "GET", its}, {403, "GET", its + "/" + id}, {403, "POST", its}, {403, "DELETE", its + "/" + id},
	} {
		w.want(c.status, me, c.method, c.target, assign(vm.ID, sp.ID, writeRole))
	}
	// A service does not learn by itself who else may call it.
	w.want(403, innate.Principal{Object: sp.ID, Client: sp.Client, Name: "orders"}, "GET", its, nil)
}

func TestManyAssignmentsArePaged(t *testing.T) {
	w := newWorld(t)
	_, sp := w.service()
	const n = 230
	w.do(func(tx store.Tx) error {
		for range n {
			vm, err := directory.CreateIdentity(tx, "vm", vm1, false, start)
			if err != nil {
				return err
			}
			if _, err := directory.AssignAppRole(tx, directory.AppRoleAssignment{Resource: sp.ID, Principal: vm.ID, Role: readRole}, start); err != nil {
				return err
			}
		}
		return nil
	})
	seen, pages := map[any]bool{}, 0
	for target := "https://graph.example.org/v1.0/servicePrincipals/" + string(sp.ID) + "/appRoleAssignedTo"; target != ""; pages++ {
		answer := w.want(200, admin, "GET", target, nil)
		for _, v := range answer["value"].([]any) {
			seen[v.(map[string]any)["principalId"]] = true
		}
		target, _ = answer["@odata.nextLink"].(string)
	}
	if len(seen) != n || pages != 3 {
		t.Errorf("%d holders on %d pages, want %d on 3", len(seen), pages, n)
	}
}

func TestNothingOfADeletedPrincipalIsLeft(t *testing.T) {
	w := newWorld(t)
	app, sp := w.service()
	caller, callerSP := w.application("caller")
	vm := w.identity("vm1", vm1, false)
	g := w.group("g", vm.ID, callerSP.ID)
	outer := w.group("outer", g.ID)
	set := "/v1.0/servicePrincipals/" + string(sp.ID) + "/appRoleAssignedTo"
	for _, holder := range []innate.ObjectID{vm.ID, g.ID, callerSP.ID, sp.ID, outer.ID} { // a service may hold its own role
		w.want(201, admin, "POST", set, assign(holder, sp.ID, readRole))
	}
	for _, id := range []innate.ObjectID{app.ID, caller.ID} {
		w.want(201, admin, "POST", "/v1.0/applications/"+string(id)+"/federatedIdentityCredentials", github("main", "contoso/orders"))
	}
	w.want(204, admin, "DELETE", "/v1.0/applications/"+string(caller.ID), nil)
	w.nothingNames(callerSP.ID, caller.ID, innate.ObjectID(caller.Client))
	w.want(204, admin, "DELETE", "/v1.0/groups/"+string(g.ID), nil)
	w.nothingNames(g.ID)
	w.do(func(tx store.Tx) error { return w.DeleteObject(tx, vm.ID) })
	w.nothingNames(vm.ID)
	if got := w.want(200, admin, "GET", set, nil)["value"].([]any); len(got) != 2 {
		t.Errorf("%d assignments are left, want the service's own and that of the other group", len(got))
	}
	w.want(204, admin, "DELETE", "/v1.0/servicePrincipals/"+string(sp.ID), nil)
	w.nothingNames(sp.ID, app.ID, innate.ObjectID(app.Client))
	if _, ok := w.Object(outer.ID); !ok {
		t.Error("a group that nobody deleted is gone")
	}
}
