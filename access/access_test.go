package access_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

func TestWhoMayDoWhatWhere(t *testing.T) {
	w := newWorld(t)
	custom := "cccccccc-0000-0000-0000-000000000001"
	w.want(201, w.admin, "PUT", definition(sub, custom), map[string]any{"properties": map[string]any{
		"roleName": "Operator", "assignableScopes": []string{string(sub)},
		"permissions": []any{map[string]any{
			"actions": []string{"Microsoft.Compute/*/action", "Microsoft.Web/sites/read"}, "notActions": []string{"*/delete/action"},
			"dataActions": []string{"Microsoft.KeyVault/vaults/secrets/*"}, "notDataActions": []string{"Microsoft.KeyVault/*/setSecret/action"},
		}},
	}})
	for _, c := range []struct {
		why  string
		role string
		at   innate.Scope
		do   access.Action
		ask  innate.Scope
		want bool
	}{
		{"at the scope itself", access.Reader, kv, access.Control("Microsoft.KeyVault/vaults/read"), kv, true},
		{"inherited from the group", access.Reader, rg, access.Control("Microsoft.KeyVault/vaults/read"), kv, true},
		{"inherited from the subscription", access.Reader, sub, access.Control("Microsoft.KeyVault/vaults/read"), kv, true},
		{"inherited from the root", access.Reader, innate.Root, access.Control("Microsoft.KeyVault/vaults/read"), kv, true},
		{"not upward", access.Reader, kv, access.Control("Microsoft.Resources/subscriptions/resourceGroups/read"), rg, false},
		{"not sideways", access.Reader, kv, access.Control("Microsoft.KeyVault/vaults/read"), kv2, false},
		{"a shared prefix is not an ancestor", access.Reader, rg, access.Control("x/read"), rg + "2", false},
		{"nor is one of a resource", access.Reader, kv, access.Control("x/read"), kv + "0", false},
		{"another subscription", access.Owner, sub, access.Control("x/read"), other, false},
		{"scopes have no case", access.Reader, innate.Scope(strings.ToUpper(string(rg))), access.Control("x/read"), innate.Scope(strings.ToLower(string(kv))), true},
		{"actions have no case", access.Reader, kv, access.Control("MICROSOFT.KEYVAULT/VAULTS/READ"), kv, true},
		{"a wildcard spans slashes", access.Reader, kv, access.Control("a/b/c/d/read"), kv, true},
		{"a wildcard has an end", access.Reader, kv, access.Control("a/b/reader"), kv, false},
		{"and a beginning", access.Reader, kv, access.Control("read"), kv, false},
		{"an empty action is none", access.Reader, kv, access.Control(""), kv, false},
		{"a newline is no way around the end", access.Reader, kv, access.Control("x/write\n/read\nx"), kv, false},
		{"notActions take away", access.Contributor, rg, access.Control("Microsoft.Authorization/roleAssignments/write"), kv, false},
		{"but only what they name", access.Contributor, rg, access.Control("Microsoft.Compute/virtualMachines/write"), kv, true},
		{"contributors do not edit the directory", access.Contributor, innate.Root, access.Control("microsoft.directory/groups/members/update"), innate.Root, false},
		{"owners of the root do", access.Owner, innate.Root, access.Control("microsoft.directory/groups/members/update"), innate.Root, true},
		{"owning a vault is not reading its secrets", access.Owner, kv, access.Data(getSecret), kv, false},
		{"a data role is no control role", access.KeyVaultSecretsUser, kv, access.Control(getSecret), kv, false},
		{"a data role does what it says", access.KeyVaultSecretsUser, kv, access.Data(getSecret), kv, true},
		{"and no more", access.KeyVaultSecretsUser, kv, access.Data("Microsoft.KeyVault/vaults/secrets/setSecret/action"), kv, false},
		{"metadata is not the value", access.KeyVaultReader, kv, access.Data(getSecret), kv, false},
		{"a segment of * may be none", access.ManagedIdentityOperator, rg, access.Control("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"), rg, true},
		{"or one", access.ManagedIdentityOperator, rg, access.Control("Microsoft.ManagedIdentity/userAssignedIdentities/x/assign/action"), rg, true},
		{"but not part of one", access.ManagedIdentityOperator, rg, access.Control("Microsoft.ManagedIdentity/userAssignedIdentitiesassign/action"), rg, false},
		{"placing needs its own action", access.VirtualMachineContributor, rg, access.Control("Microsoft.HybridCompute/machines/place/action"), rg, false},
		{"which our role has", access.MachinePlacementOperator, rg, access.Control("Microsoft.HybridCompute/machines/place/action"), rg, true},
		{"owning an identity is not acting as it", access.Owner, rg, access.Data(access.ExchangeToken), rg, false},
		{"which is a role of ours", access.TokenExchanger, rg, access.Data(access.ExchangeToken), rg, true},
		{"joining a plan is a website right", access.WebsiteContributor, rg, access.Control("Microsoft.Web/serverfarms/join/action"), rg, true},
		{"a custom role", custom, rg, access.Control("Microsoft.Compute/virtualMachines/start/action"), rg, true},
		{"its notActions", custom, rg, access.Control("Microsoft.Compute/virtualMachines/delete/action"), rg, false},
		{"its dataActions", custom, rg, access.Data(getSecret), kv, true},
		{"its notDataActions", custom, rg, access.Data("Microsoft.KeyVault/vaults/secrets/setSecret/action"), kv, false},
		{"notDataActions take no control action", custom, rg, access.Control("Microsoft.Web/sites/read"), rg, true},
	} {
		who := w.principal("me")
		w.assign(who, c.role, c.at)
		d := w.allowed(who, c.do, c.ask)
		if d.Allowed != c.want {
			t.Errorf("%s: %s of %q at %s, having %s at %s: got %v (%s), want %v", c.why, "asked", c.do.Name, c.ask, c.role, c.at, d.Allowed, d.Why, c.want)
		}
		if d.Why == "" {
			t.Errorf("%s: the decision does not say why", c.why)
		}
	}
}

func TestAnotherAssignmentGrantsWhatNotActionsTookFromOne(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	write := access.Control("Microsoft.Authorization/roleAssignments/write")
	w.assign(me, access.Contributor, sub)
	if w.allowed(me, write, rg).Allowed {
		t.Error("a Contributor may grant")
	}
	w.assign(me, access.UserAccessAdministrator, rg)
	if d := w.allowed(me, write, rg); !d.Allowed || d.Role != "User Access Administrator" {
		t.Errorf("with a second role: got %+v", d)
	}
}

func TestGroupsGrantToTheirMembersHoweverDeep(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	inner := w.group("inner", me.Object)
	outer := w.group("outer", inner.Object)
	w.do(func(tx store.Tx) error { return w.dir.AddMember(tx, inner.Object, outer.Object) }) // a cycle
	w.assign(outer, access.KeyVaultSecretsUser, rg)
	d := w.allowed(me, access.Data(getSecret), kv)
	if !d.Allowed || !strings.Contains(d.Why, "outer") {
		t.Errorf("through two groups: got %+v", d)
	}
	w.do(func(tx store.Tx) error { return w.dir.RemoveMember(tx, inner.Object, me.Object) })
	if w.allowed(me, access.Data(getSecret), kv).Allowed {
		t.Error("it may still, after it left the group")
	}
}

func TestARefusalNamesWhatIsMissingAndTheSmallestRole(t *testing.T) {
	w := newWorld(t)
	me := w.principal("web-1")
	w.assign(me, access.KeyVaultReader, rg)
	for _, c := range []struct {
		do       access.Action
		smallest string
	}{
		{access.Data(getSecret), "Key Vault Secrets User"},
		{access.Data("Microsoft.KeyVault/vaults/secrets/readMetadata/action"), ""}, // it has that
		{access.Data("Microsoft.KeyVault/vaults/secrets/setSecret/action"), "Key Vault Secrets Officer"},
		{access.Data("Microsoft.KeyVault/vaults/keys/sign/action"), "Key Vault Administrator"},
		{access.Control("Microsoft.Compute/virtualMachines/read"), "Reader"},
		{access.Control("Microsoft.Compute/virtualMachines/write"), "Virtual Machine Contributor"},
		{access.Control("Microsoft.Web/sites/write"), "Website Contributor"},
		{access.Control("Microsoft.HybridCompute/machines/place/action"), "Machine Placement Operator"},
		{access.Data(access.ExchangeToken), "Token Exchanger"},
		{access.Control("Microsoft.HybridCompute/machines/join/action"), "Contributor"},
		{access.Control("Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"), "Managed Identity Operator"},
		{access.Control("Microsoft.Authorization/roleAssignments/write"), "Role Based Access Control Administrator"},
		{access.Control("Microsoft.Authorization/roleDefinitions/write"), "User Access Administrator"},
		{access.Control("microsoft.directory/groups/create"), "Owner"},
		{access.Data("Nobody.Grants/this"), ""},
	} {
		if d := w.allowed(me, c.do, kv); d.Smallest != c.smallest {
			t.Errorf("%s: the smallest role is %q, want %q", c.do.Name, d.Smallest, c.smallest)
		}
	}
	err := w.Require(t.Context(), me, access.Data(getSecret), kv)
	var e *rest.Error
	if !errors.As(err, &e) || e.Status != 403 || e.Code != "AuthorizationFailed" {
		t.Fatalf("got %v, want a 403 AuthorizationFailed", err)
	}
	for _, part := range []string{"web-1", getSecret, string(kv), "it has Key Vault Reader there", "innate role assign --to " + string(me.Object) + " --role 'Key Vault Secrets User' --at " + string(kv)} {
		if !strings.Contains(e.Message, part) {
			t.Errorf("%q is not in the refusal: %s", part, e.Message)
		}
	}
}

func TestACheckSaysWhatARequirementSaysAndRecordsNothing(t *testing.T) {
	w := newWorld(t)
	me := w.principal("web-1")
	check := func() error { return w.Check(t.Context(), me, access.Data(access.ExchangeToken), kv) }
	var e *rest.Error
	if err := check(); !errors.As(err, &e) || e.Status != 403 || !strings.Contains(e.Message, "--role 'Token Exchanger' --at "+string(kv)) {
		t.Errorf("got %v, want a 403 that says what to grant", err)
	}
	w.assign(me, access.TokenExchanger, kv)
	if err := check(); err != nil {
		t.Errorf("granted: %v", err)
	}
	for ev := range audit.Read(w.journal) {
		t.Errorf("recorded: %+v", ev)
	}
}

func TestNobodyAndStrangersAreRefused(t *testing.T) {
	w := newWorld(t)
	stranger := w.admin
	stranger.Tenant = "elsewhere"
	for _, who := range []innate.Principal{{}, stranger, {Object: "no-such"}} {
		if d := w.allowed(who, access.Control("x/read"), sub); d.Allowed {
			t.Errorf("%+v was allowed: %s", who, d.Why)
		}
	}
}

func TestTheFileHasTheDecisionBeforeTheCallerHasTheAnswer(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	me.Hosting, me.Host, me.Token, me.Assurance = "/vm", "/host", "uti", innate.CgroupUID
	if err := w.Require(t.Context(), me, access.Control("x/read"), kv); err == nil {
		t.Fatal("allowed")
	}
	if err := w.Require(t.Context(), w.admin, access.Control("x/read"), kv); err != nil {
		t.Fatal(err)
	}
	var events []audit.Event
	for ev, err := range audit.Read(w.journal) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, ev)
	}
	if len(events) != 2 {
		t.Fatalf("%d events are in the file, want 2", len(events))
	}
	no, yes := events[0], events[1]
	if no.Allowed || no.Principal != me.Object || no.Hosting != "/vm" || no.Host != "/host" || no.Token != "uti" || no.Assurance != innate.CgroupUID || no.Target != string(kv) || no.Why == "" {
		t.Errorf("the refusal is recorded as %+v", no)
	}
	if !yes.Allowed || yes.Principal != w.admin.Object || !strings.Contains(yes.Why, "Owner at /") {
		t.Errorf("the grant is recorded as %+v", yes)
	}
}

func TestAssignmentsGoWithTheirScopeAndTheirPrincipal(t *testing.T) {
	w := newWorld(t)
	me, you := w.principal("me"), w.principal("you")
	read := access.Control("x/read")
	for _, at := range []innate.Scope{rg, kv, kv + "0"} {
		w.assign(me, access.Reader, at)
		w.assign(you, access.Reader, at)
	}
	may := func(who innate.Principal) (got []innate.Scope) {
		for _, at := range []innate.Scope{rg, kv, kv + "0"} {
			if w.allowed(who, read, at).Allowed {
				got = append(got, at)
			}
		}
		return got
	}
	w.do(func(tx store.Tx) error { return w.dir.DeleteObject(tx, you.Object) })
	if got := may(you); got != nil {
		t.Errorf("a deleted principal may still read %v", got)
	}
	w.do(func(tx store.Tx) error { return access.DeleteAt(tx, rg) }) // and all below
	if got := may(me); got != nil {
		t.Errorf("with the group deleted, me may still read %v", got)
	}
	w.assign(me, access.Reader, kv)
	w.assign(me, access.Reader, kv+"0")
	w.do(func(tx store.Tx) error { return access.DeleteAt(tx, innate.Scope(strings.ToUpper(string(kv)))) })
	if got := may(me); !slices.Equal(got, []innate.Scope{kv + "0"}) {
		t.Errorf("with kv1 deleted, me may read %v, want kv10 alone: a shared prefix is not an ancestor", got)
	}
	w.assign(me, access.Reader, kv) // the name is free again
	w.do(func(tx store.Tx) error { return access.DeleteAt(tx, innate.Root) })
	if w.allowed(w.admin, read, innate.Root).Allowed {
		t.Error("an assignment at the root outlived DeleteAt of the root")
	}
}

func TestOneSeesWhatOneHasARoleAtAboveOrBelow(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	g := w.group("g", me.Object)
	w.assign(me, access.KeyVaultSecretsUser, kv)
	w.assign(g, access.Reader, sub+"/resourceGroups/shared")
	for id, want := range map[innate.Scope]bool{
		kv: true, rg: true, sub: true, kv + "/secrets/s": true, kv + "0": false, kv2: false, other: false,
		sub + "/resourceGroups/shared/providers/a/b/c": true, sub + "/resourceGroups/shared2": false,
	} {
		if got := w.Sees(me, innate.ResourceID(id)); got != want {
			t.Errorf("Sees(%s) is %v, want %v", id, got, want)
		}
	}
	if w.Sees(innate.Principal{}, innate.ResourceID(sub)) {
		t.Error("nobody sees something")
	}
}

func TestAPrincipalWithManyAssignmentsIsDecidedTheSame(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	read := access.Control("x/read")
	var scopes []innate.Scope
	for i := range 40 {
		at := rg + innate.Scope("/providers/a/b/c"+string(rune('a'+i%26))+string(rune('a'+i/26)))
		scopes = append(scopes, at)
		w.assign(me, access.Reader, at)
	}
	for _, at := range scopes {
		if !w.allowed(me, read, at+"/d/e").Allowed {
			t.Errorf("not allowed below %s", at)
		}
	}
	if w.allowed(me, read, rg).Allowed || !w.Sees(me, innate.ResourceID(rg)) || w.Sees(me, innate.ResourceID(kv)) {
		t.Error("many assignments are not decided as few are")
	}
	w.do(func(tx store.Tx) error { return access.DeleteOf(tx, me.Object) })
	for _, at := range scopes {
		if w.allowed(me, read, at).Allowed {
			t.Errorf("still allowed at %s", at)
		}
	}
}
