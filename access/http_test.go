package access_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/bearer"
	"innate/store"
)

func TestAnAssignmentWorksAtOnceAndEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	id := innate.NewGUID()
	made := w.want(201, w.admin, "PUT", assignment(kv, strings.ToUpper(id)), granting(me.Object, strings.ToUpper(access.KeyVaultSecretsUser)))
	if !w.allowed(me, access.Data(getSecret), kv).Allowed {
		t.Error("the grant is not felt")
	}
	p := made["properties"].(map[string]any)
	for key, want := range map[string]any{
		"principalId": string(me.Object), "principalType": "ServicePrincipal", "scope": string(kv), "createdBy": string(w.admin.Object), "updatedBy": string(w.admin.Object),
		"roleDefinitionId": string(sub) + "/providers/Microsoft.Authorization/roleDefinitions/" + access.KeyVaultSecretsUser,
	} {
		if p[key] != want {
			t.Errorf("properties.%s is %v, want %v", key, p[key], want)
		}
	}
	if made["id"] != assignment(kv, id) || made["name"] != id || made["type"] != "Microsoft.Authorization/roleAssignments" || p["createdOn"] == "" {
		t.Errorf("the answer is %v", made)
	}
	if diff := cmp.Diff(made, w.want(200, w.admin, "GET", "/"+strings.ToLower(assignment(kv, id))+"/", nil)); diff != "" {
		t.Errorf("GET in other letters and slashes (-PUT +GET)\n%s", diff)
	}
	w.want(200, w.admin, "DELETE", assignment(kv, id), nil)
	w.want(204, w.admin, "DELETE", assignment(kv, id), nil)
	w.want(404, w.admin, "GET", assignment(kv, id), nil)
	if w.allowed(me, access.Data(getSecret), kv).Allowed {
		t.Error("the grant is still felt")
	}
}

func TestWhatAPutOfAnAssignmentIsAnswered(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	g := w.group("g")
	w.gone = rg + "/providers/a/b/gone"
	first := innate.NewGUID()
	w.want(201, w.admin, "PUT", assignment(rg, first), granting(me.Object, access.Reader))
	with := func(to innate.ObjectID, role, key, value string) map[string]any {
		body := granting(to, role)
		body["properties"].(map[string]any)[key] = value
		return body
	}
	const unknown = "99999999-9999-9999-9999-999999999999"
	for _, c := range []struct {
		why    string
		status int
		code   any
		target string
		body   any
	}{
		{"a replay", 200, nil, assignment(rg, first), granting(me.Object, access.Reader)},
		{"a replay in other letters", 200, nil, assignment(innate.Scope(strings.ToUpper(string(rg))), first), granting(innate.ObjectID(strings.ToUpper(string(me.Object))), access.Reader)},
		{"the same under another id", 409, "RoleAssignmentExists", assignment(rg, unknown), granting(me.Object, access.Reader)},
		{"another role under the same id", 409, "RoleAssignmentUpdateNotPermitted", assignment(rg, first), granting(me.Object, access.Owner)},
		{"an unknown principal", 400, "PrincipalNotFound", assignment(rg, unknown), granting(unknown, access.Reader)},
		{"one that is on its way", 201, nil, assignment(rg, innate.NewGUID()), with(unknown, access.Reader, "principalType", "ServicePrincipal")},
		{"the wrong type", 400, "UnmatchedPrincipalType", assignment(rg, unknown), with(g.Object, access.Reader, "principalType", "User")},
		{"an unknown type", 400, "InvalidPrincipalType", assignment(rg, unknown), with(me.Object, access.Reader, "principalType", "Robot")},
		{"a condition, which nobody would evaluate", 400, "UnsupportedCondition", assignment(rg, unknown), with(me.Object, access.Owner, "condition", "@Resource[…]")},
		{"an unknown role", 404, "RoleDefinitionDoesNotExist", assignment(rg, unknown), granting(me.Object, unknown)},
		{"a role's name instead of its id", 400, "InvalidRoleDefinitionId", assignment(rg, unknown), with(me.Object, "", "roleDefinitionId", "Reader")},
		{"no principal", 400, "InvalidPrincipalId", assignment(rg, unknown), granting("", access.Reader)},
		{"no GUID", 400, "InvalidResourceName", assignment(rg, "mine"), granting(me.Object, access.Reader)},
		{"a resource that is not there", 404, "ResourceNotFound", assignment(w.gone, unknown), granting(me.Object, access.Reader)},
		{"a path that is no scope", 400, "InvalidScope", assignment("/subscriptions/x", unknown), granting(me.Object, access.Reader)},
		{"a management group", 201, nil, assignment("/providers/Microsoft.Management/managementGroups/m", unknown), granting(me.Object, access.Reader)},
		{"no JSON", 400, "InvalidRequestContent", assignment(rg, unknown), "{"},
		{"no body", 400, "InvalidRequestContent", assignment(rg, unknown), nil},
	} {
		status, answer := w.ask(w.admin, "PUT", c.target, c.body)
		if status != c.status || code(answer) != c.code {
			t.Errorf("%s: got %d %v (%s), want %d %v", c.why, status, code(answer), message(answer), c.status, c.code)
		}
	}
}

func TestAGrantOnAResourceThatGoesMeanwhileDoesNotStay(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	w.vanish = true
	if status, _ := w.ask(w.admin, "PUT", assignment(kv, innate.NewGUID()), granting(me.Object, access.Reader)); status != 404 {
		t.Errorf("got %d, want 404", status)
	}
	if w.allowed(me, access.Control("x/read"), kv).Allowed {
		t.Error("the grant waits for the next resource of that name")
	}
}

func TestGrantingListingAndDefiningEachNeedTheirAction(t *testing.T) {
	w := newWorld(t)
	me, reader, granter := w.principal("me"), w.principal("reader"), w.principal("granter")
	w.assign(reader, access.Reader, sub)
	w.assign(granter, access.RBACAdministrator, rg)
	mine := w.assign(me, access.KeyVaultSecretsUser, kv)
	custom := map[string]any{"properties": map[string]any{
		"roleName": "x", "assignableScopes": []string{string(rg)}, "permissions": []any{map[string]any{"actions": []string{"*"}}},
	}}
	const id = "99999999-9999-9999-9999-999999999999"
	for _, c := range []struct {
		who            innate.Principal
		method, target string
		body           any
		status         int
	}{
		{me, "GET", assignment(kv, mine), nil, 403},
		{me, "GET", assignment(kv, ""), nil, 403},
		{me, "PUT", assignment(kv, id), granting(me.Object, access.Owner), 403},
		{me, "PUT", assignment("/subscriptions/"+id, id), granting(me.Object, access.Owner), 403},
		{me, "DELETE", assignment(kv, id), nil, 403}, // absent, but that is not for it to know
		{me, "GET", definition(kv, ""), nil, 403},
		{me, "POST", string(kv) + "/providers/Microsoft.Authorization/checkAccess", map[string]any{"principalId": reader.Object, "action": "x/read"}, 403},
		{me, "POST", string(kv) + "/providers/Microsoft.Authorization/checkAccess", map[string]any{"principalId": me.Object, "action": "x/read"}, 200},
		{me, "GET", string(kv) + "/providers/Microsoft.Authorization/permissions", nil, 200},
		{reader, "GET", assignment(kv, mine), nil, 200},
		{reader, "GET", definition(kv, ""), nil, 200},
		{reader, "PUT", assignment(kv, id), granting(reader.Object, access.Owner), 403},
		{reader, "DELETE", assignment(kv, mine), nil, 403},
		{granter, "PUT", assignment(sub, id), granting(granter.Object, access.Owner), 403}, // above its scope
		{granter, "PUT", definition(rg, id), custom, 403},                                  // RBAC Administrator defines no roles
		{granter, "PUT", assignment(kv, id), granting(reader.Object, access.KeyVaultSecretsUser), 201},
		{granter, "DELETE", assignment(kv, mine), nil, 200},
		{innate.Principal{}, "GET", assignment(kv, ""), nil, 401},
	} {
		w.want(c.status, c.who, c.method, c.target, c.body)
	}
}

func TestAssignmentListsAndTheirFilters(t *testing.T) {
	w := newWorld(t)
	me, you := w.principal("me"), w.principal("you")
	g := w.group("g", me.Object)
	names := map[string]string{string(w.admin.Object) + "/": "admin@/"}
	for _, grant := range []struct {
		name string
		to   innate.Principal
		at   innate.Scope
	}{
		{"me@sub", me, sub}, {"me@kv", me, kv}, {"g@rg", g, rg}, {"you@rg", you, rg}, {"you@kv2", you, kv2}, {"me@other", me, other},
	} {
		w.assign(grant.to, access.Reader, grant.at)
		names[string(grant.to.Object)+string(grant.at)] = grant.name
	}
	for _, c := range []struct {
		at     innate.Scope
		filter string // as it arrives: raw spaces and quotes, or encoded
		want   string
	}{
		{rg, "", "admin@/ g@rg me@kv me@sub you@rg"},
		{rg, "atScope()", "admin@/ g@rg me@sub you@rg"},
		{rg, "principalId eq '" + string(me.Object) + "'", "me@kv me@sub"},
		{rg, "principalId eq '" + strings.ToUpper(string(me.Object)) + "'", "me@kv me@sub"},
		{rg, url.QueryEscape("principalId eq '" + string(me.Object) + "'"), "me@kv me@sub"},
		{rg, "assignedTo('" + string(me.Object) + "')", "g@rg me@kv me@sub"},
		{rg, "atScope() and assignedTo('" + string(me.Object) + "')", "g@rg me@sub"},
		{rg, "atScope()+and+principalId+eq+'" + string(you.Object) + "'", "you@rg"},
		{kv2, "", "admin@/ me@sub you@kv2"},
		{innate.Root, "", "admin@/ g@rg me@kv me@other me@sub you@kv2 you@rg"},
		{innate.Root, "atScope()", "admin@/"},
	} {
		answer := w.want(200, w.admin, "GET", assignment(c.at, "")+"?$filter="+c.filter, nil)
		got := []string{}
		for _, v := range answer["value"].([]any) {
			p := v.(map[string]any)["properties"].(map[string]any)
			got = append(got, names[p["principalId"].(string)+p["scope"].(string)])
		}
		slices.Sort(got)
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("at %s, %s: got %s, want %s", c.at, c.filter, text, c.want)
		}
	}
	for _, bad := range []string{"principalName eq 'x'", "assignedTo()", "principalId eq", "nonsense()"} {
		w.want(400, w.admin, "GET", assignment(rg, "")+"?$filter="+bad, nil)
	}
}

func TestLongListsOfAssignmentsHavePages(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	for i := range 7 {
		w.assign(me, access.Reader, rg+innate.Scope(fmt.Sprint("/providers/a/b/c", i)))
	}
	seen, pages := map[string]bool{}, 0
	for target := assignment(rg, "") + "?$top=3"; target != ""; pages++ {
		answer := w.want(200, w.admin, "GET", target, nil)
		for _, v := range answer["value"].([]any) {
			seen[v.(map[string]any)["name"].(string)] = true
		}
		target = ""
		if next, ok := answer["nextLink"].(string); ok {
			u, err := url.Parse(next)
			if err != nil || u.Host != "management.example.org" || !u.Query().Has("api-version") {
				t.Fatalf("nextLink %s: want it absolute and with its api-version", next)
			}
			q := u.Query()
			q.Del("api-version")
			target = u.Path + "?" + q.Encode()
		}
	}
	if len(seen) != 8 || pages != 3 {
		t.Errorf("%d assignments on %d pages, want 8 on 3", len(seen), pages)
	}
}

func TestRoleDefinitionsAreFoundByNameAndKeepAzuresIDs(t *testing.T) {
	w := newWorld(t)
	answer := w.want(200, w.admin, "GET", definition(sub, "")+"?$filter=roleName eq 'Key Vault Secrets User'", nil)
	want := map[string]any{"value": []any{map[string]any{
		"id": definition(sub, access.KeyVaultSecretsUser), "name": access.KeyVaultSecretsUser, "type": "Microsoft.Authorization/roleDefinitions",
		"properties": map[string]any{
			"roleName": "Key Vault Secrets User", "type": "BuiltInRole", "description": "Read secret contents.", "assignableScopes": []any{"/"},
			"permissions": []any{map[string]any{
				"actions": []any{}, "notActions": []any{}, "notDataActions": []any{},
				"dataActions": []any{getSecret, "Microsoft.KeyVault/vaults/secrets/readMetadata/action"},
			}},
		},
	}}}
	if diff := cmp.Diff(want, answer); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	all := w.want(200, w.admin, "GET", definition(innate.Root, "")+"?$filter=type eq 'BuiltInRole'", nil)["value"].([]any)
	if len(all) != 16 {
		t.Errorf("%d built-in roles, want 16", len(all))
	}
	w.want(404, w.admin, "GET", definition(sub, "99999999-9999-9999-9999-999999999999"), nil)
	w.want(400, w.admin, "GET", definition(sub, "")+"?$filter=colour eq 'red'", nil)
}

// role is the body that asks for a custom role.
func role(name string, actions []string, at ...innate.Scope) map[string]any {
	return map[string]any{"properties": map[string]any{
		"roleName": name, "type": "CustomRole", "assignableScopes": at, "permissions": []any{map[string]any{"actions": actions}},
	}}
}

func TestACustomRoleFromDefinitionToRemoval(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	const id = "cccccccc-0000-0000-0000-000000000001"
	start := access.Control("Microsoft.Compute/virtualMachines/start/action")
	w.want(201, w.admin, "PUT", definition(rg, id), role("Starter", []string{"Microsoft.Compute/*/read"}, rg))
	w.want(409, w.admin, "PUT", definition(rg, innate.NewGUID()), role("starter", nil, rg))
	w.want(409, w.admin, "PUT", definition(rg, innate.NewGUID()), role("OWNER", nil, rg))
	w.want(404, w.admin, "PUT", assignment(sub, innate.NewGUID()), granting(me.Object, id)) // not assignable there
	granted := innate.NewGUID()
	w.want(201, w.admin, "PUT", assignment(rg, granted), granting(me.Object, id))
	if w.allowed(me, start, kv).Allowed {
		t.Error("the role allows what it does not say")
	}
	w.want(201, w.admin, "PUT", definition(rg, id), role("Starter", []string{"Microsoft.Compute/virtualMachines/start/action"}, rg))
	if !w.allowed(me, start, kv).Allowed {
		t.Error("the changed role is not felt")
	}
	if got := w.want(200, w.admin, "GET", definition(sub, "")+"?$filter=type eq 'CustomRole'", nil); len(got["value"].([]any)) != 0 {
		t.Errorf("above its scope the role is listed: %v", got)
	}
	if got := w.want(200, w.admin, "GET", definition(sub, "")+"?$filter=atScopeAndBelow() and type eq 'CustomRole'", nil); len(got["value"].([]any)) != 1 {
		t.Errorf("with atScopeAndBelow() the role is not listed: %v", got)
	}
	w.want(409, w.admin, "PUT", definition(rg, id), role("Starter", nil, kv)) // its assignment would be outside
	w.want(409, w.admin, "DELETE", definition(rg, id), nil)
	w.want(200, w.admin, "DELETE", assignment(rg, granted), nil)
	w.want(200, w.admin, "DELETE", definition(rg, id), nil)
	w.want(204, w.admin, "DELETE", definition(rg, id), nil)
	w.want(400, w.admin, "DELETE", definition(sub, access.Owner), nil)
	w.want(400, w.admin, "PUT", definition(sub, access.Owner), role("Mine", []string{"*"}, sub))
}

func TestWhoEditsARoleNeedsTheRightWhereverItIsAssignable(t *testing.T) {
	w := newWorld(t)
	local := w.principal("local")
	w.assign(local, access.UserAccessAdministrator, rg)
	const id = "cccccccc-0000-0000-0000-000000000001"
	w.want(201, local, "PUT", definition(rg, innate.NewGUID()), role("Local", []string{"*"}, rg))
	w.want(403, local, "PUT", definition(rg, innate.NewGUID()), role("Wide", []string{"*"}, rg, sub))
	w.want(201, w.admin, "PUT", definition(sub, id), role("Shared", []string{"*/read"}, rg, other))
	// Narrowing it to rg would still change what its holders in other may do.
	w.want(403, local, "PUT", definition(rg, id), role("Shared", []string{"*"}, rg))
	w.want(403, local, "DELETE", definition(rg, id), nil)
}

func TestBadRoleDefinitionsAreRefused(t *testing.T) {
	w := newWorld(t)
	for why, body := range map[string]any{
		"no name":              role(" ", nil, rg),
		"a long name":          role(strings.Repeat("x", 600), nil, rg),
		"nowhere assignable":   role("x", nil),
		"no scope":             role("x", nil, "rg"),
		"an odd action":        role("x", []string{"a b"}, rg),
		"a regular expression": role("x", []string{"(a+)+$"}, rg),
		"a long action":        role("x", []string{strings.Repeat("x", 300)}, rg),
		"too many actions":     role("x", slices.Repeat([]string{"a/read"}, 201), rg),
		"an empty action":      role("x", []string{""}, rg),
		"no permissions":       map[string]any{"properties": map[string]any{"roleName": "x", "assignableScopes": []any{rg}}},
		"no body":              nil,
	} {
		if status, answer := w.ask(w.admin, "PUT", definition(rg, innate.NewGUID()), body); status != 400 {
			t.Errorf("%s: got %d %v, want 400", why, status, answer)
		}
	}
}

func TestCheckAccessSaysWhy(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	target := string(kv) + "/providers/Microsoft.Authorization/checkAccess"
	ask := map[string]any{"principalId": me.Object, "action": getSecret, "data": true}
	no := w.want(200, w.admin, "POST", target, ask)
	if no["allowed"] != false || no["smallest"] != "Key Vault Secrets User" {
		t.Errorf("before the grant: %v", no)
	}
	id := w.assign(me, access.KeyVaultSecretsUser, rg)
	want := map[string]any{"allowed": true, "why": "Key Vault Secrets User at " + string(rg), "assignment": id, "role": "Key Vault Secrets User"}
	if diff := cmp.Diff(want, w.want(200, w.admin, "POST", target, ask)); diff != "" {
		t.Errorf("after it (-want +got)\n%s", diff)
	}
	for _, action := range []string{"", "*", "a b", "Microsoft.KeyVault/*"} {
		w.want(400, w.admin, "POST", target, map[string]any{"principalId": me.Object, "action": action})
	}
	w.want(400, w.admin, "POST", target, map[string]any{"principalId": "me", "action": getSecret})
	mine := w.want(200, me, "GET", string(kv)+"/providers/Microsoft.Authorization/permissions", nil)
	if got := mine["value"].([]any); len(got) != 1 || len(got[0].(map[string]any)["dataActions"].([]any)) != 2 {
		t.Errorf("its own permissions are %v", mine)
	}
}

func TestWhichPathsAreServed(t *testing.T) {
	for path, want := range map[string]bool{
		"/providers/Microsoft.Authorization/roleDefinitions":                  true,
		"//Providers//MICROSOFT.authorization/RoleAssignments/":               true,
		string(kv) + "/providers/Microsoft.Authorization/roleAssignments/x":   true,
		string(kv) + "/providers/Microsoft.Authorization/roleAssignments/x/y": false,
		string(kv) + "/providers/Microsoft.Authorization/checkAccess":         true,
		string(kv) + "/providers/Microsoft.Authorization/checkAccess/x":       false,
		string(kv) + "/providers/Microsoft.Authorization/locks":               false,
		string(kv) + "/providers/Microsoft.Authorization":                     false,
		string(kv): false,
		"/":        false,
		"":         false,
		"/providers/Microsoft.Authorization/roleAssignments/providers/Microsoft.Authorization/permissions": true, // the last one counts
	} {
		if got := access.Serves(path); got != want {
			t.Errorf("Serves(%q) is %v, want %v", path, got, want)
		}
	}
	w := newWorld(t)
	w.want(405, w.admin, "PATCH", assignment(kv, innate.NewGUID()), nil)
	w.want(405, w.admin, "POST", assignment(kv, ""), nil)
	w.want(404, w.admin, "GET", string(kv)+"/providers/Microsoft.Authorization/locks", nil)
	w.want(400, w.admin, "GET", assignment(kv, "")+"?api-version=2", nil)
}

func TestASecondAssignmentOfTheSameIsRefusedInATransactionToo(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	w.assign(me, access.Reader, rg)
	_, err := w.db.Update(t.Context(), func(tx store.Tx) error {
		return access.Assign(tx, access.Assignment{ID: innate.NewGUID(), Scope: innate.Scope(strings.ToLower(string(rg))), Role: access.Reader, Principal: me.Object})
	})
	if err == nil {
		t.Error("it was accepted")
	}
}

func FuzzHandler(f *testing.F) {
	f.Add("GET", assignment(rg, ""), "$filter=principalId eq 'x'", "")
	f.Add("PUT", assignment(kv, access.Owner), "", `{"properties":{"roleDefinitionId":"x/y","principalId":"z"}}`)
	f.Add("PUT", definition(kv, "99999999-9999-9999-9999-999999999999"), "", `{"properties":{"roleName":"x","assignableScopes":["/"],"permissions":[{"actions":["*/*/*"]}]}}`)
	f.Add("POST", "/providers/microsoft.authorization/checkaccess", "", `{"principalId":"99999999-9999-9999-9999-999999999999","action":"a"}`)
	w := newWorld(f)
	h := w.Handler()
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		r := httptest.NewRequest(http.MethodGet, "https://management.example.org/", strings.NewReader(body))
		r.Method, r.URL = method, &url.URL{Path: path, RawQuery: "api-version=2022-04-01&" + query}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r.WithContext(bearer.With(r.Context(), w.admin)))
		if rec.Code >= 500 {
			t.Errorf("%s %q?%q %q: %d %s", method, path, query, body, rec.Code, rec.Body)
		}
	})
}
