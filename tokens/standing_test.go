package tokens_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/store"
)

// The ids of the app roles of these tests.
const (
	reader    = "00000000-0000-0000-0000-00000000000a"
	writer    = "00000000-0000-0000-0000-00000000000b"
	retired   = "00000000-0000-0000-0000-00000000000c"
	valueless = "00000000-0000-0000-0000-00000000000d"
)

// orders is a service with app roles, under api://orders.
func (w *world) orders(change func(*directory.Registration)) directory.Registration {
	w.t.Helper()
	programs := []string{"Application"}
	r := directory.Registration{Name: "orders", IdentifierURIs: []string{"api://orders"}, AppRoles: []directory.AppRole{
		{ID: reader, Value: "orders.read", Name: "Reader", Members: programs, Enabled: true},
		{ID: writer, Value: "orders.write", Name: "Writer", Members: programs, Enabled: true},
		{ID: retired, Value: "orders.retired", Name: "Retired", Members: programs},
		{ID: valueless, Name: "No value", Members: programs, Enabled: true},
	}}
	if change != nil {
		change(&r)
	}
	r, _ = w.register(r)
	return r
}

// assign gives who an app role of r.
func (w *world) assign(r directory.Registration, who innate.ObjectID, role string) {
	w.t.Helper()
	w.update(func(tx store.Tx) error {
		_, err := directory.AssignAppRole(tx, directory.AppRoleAssignment{Resource: r.Principal, Principal: who, Role: role}, w.now)
		return err
	})
}

// in makes a group with a member.
func (w *world) in(member innate.ObjectID, name string) (group innate.ObjectID) {
	w.t.Helper()
	w.update(func(tx store.Tx) error {
		g, err := directory.CreateGroup(tx, name, w.now)
		if err != nil {
			return err
		}
		group = g.ID
		return w.directory.AddMember(tx, g.ID, member)
	})
	return group
}

// out takes a member out of a group.
func (w *world) out(group, member innate.ObjectID) {
	w.t.Helper()
	w.update(func(tx store.Tx) error { return w.directory.RemoveMember(tx, group, member) })
}

// stringsOf is a claim that is an array of strings; nil when the token has none.
func stringsOf(claim any) (all []string) {
	array, _ := claim.([]any)
	for _, v := range array {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

func TestATokenHasTheAppRolesOfItsBearerAtItsAudience(t *testing.T) {
	w := start(t)
	r := w.orders(nil)
	other := w.orders(func(r *directory.Registration) { r.IdentifierURIs = []string{"api://other"} })
	client, secret := w.application()
	who, _ := w.directory.ByClient(client)

	if roles, ok := w.claims(w.ask(client, secret, "api://orders"))["roles"]; ok {
		t.Errorf("nothing is assigned, and the token has the roles %v", roles)
	}
	w.assign(r, who.ID, retired)   // not enabled: it is not to be told
	w.assign(r, who.ID, valueless) // there is nothing to tell
	w.assign(other, who.ID, reader)
	inner := w.in(who.ID, "inner")
	outer := w.in(inner, "outer")
	w.assign(r, outer, reader)
	w.assign(r, inner, reader) // twice in two ways is once
	w.assign(r, inner, writer)

	for audience, want := range map[string][]string{
		"api://orders":              {"orders.read", "orders.write"},
		"api://orders/":             {"orders.read", "orders.write"},
		string(r.Client):            {"orders.read", "orders.write"},
		"api://other":               {"orders.read"},
		"https://vault.azure.net":   nil, // the platform's own services have no app roles
		"https://graph.windows.net": nil,
	} {
		claims := w.claims(w.ask(client, secret, audience))
		if diff := cmp.Diff(want, stringsOf(claims["roles"])); diff != "" {
			t.Errorf("%s: roles (-want +got)\n%s", audience, diff)
		}
	}

	w.out(inner, who.ID)
	if roles, ok := w.claims(w.ask(client, secret, "api://orders"))["roles"]; ok {
		t.Errorf("it has left its groups, and the token has the roles %v", roles)
	}
}

func TestAManagedIdentityAndAV2TokenHaveAppRolesToo(t *testing.T) {
	w := start(t)
	r := w.orders(func(r *directory.Registration) { r.TokenVersion = 2; r.SigningAlg = "ES256" })
	object := w.identity(app, false)
	w.assign(r, object.ID, reader)
	claims := w.claims(w.present(w.certificate(object.ID, app, machine), "grant_type=client_credentials",
		"client_id="+string(object.Client), "scope=api://orders/.default"))
	if got := stringsOf(claims["roles"]); !slices.Equal(got, []string{"orders.read"}) || claims["ver"] != "2.0" {
		t.Errorf("roles %q, ver %v", got, claims["ver"])
	}
}

func TestAServiceThatRequiresAnAppRoleAdmitsNobodyElse(t *testing.T) {
	w := start(t)
	r := w.orders(func(r *directory.Registration) { r.RoleRequired = true })
	client, secret := w.application()
	who, _ := w.directory.ByClient(client)

	a := w.ask(client, secret, "api://orders")
	a.refused(400, "invalid_grant", "501051")
	text := a.member("error_description")
	for _, want := range []string{
		"'" + string(client) + "' (orders)", "'" + string(r.Client) + "' (orders)", // who, and for what
		"POST https://graph.innate.test/v1.0/servicePrincipals/" + string(r.Principal) + "/appRoleAssignedTo",
		"principalId " + string(who.ID), "resourceId " + string(r.Principal), directory.NoAppRole,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the refusal does not say %s:\n%s", want, text)
		}
	}
	if ev := w.last(); ev.Allowed || ev.Target != "api://orders" || !strings.HasPrefix(ev.Why, "AADSTS501051") {
		t.Errorf("event %+v", ev)
	}
	w.ask(client, "wrong", "api://orders").refused(401, "invalid_client", "7000215") // who has not proved itself learns nothing of it
	w.claims(w.ask(client, secret, vault))                                           // others do not mind

	for name, role := range map[string]string{"a role": reader, "none in particular": directory.NoAppRole, "one without a value": valueless} {
		group := w.in(who.ID, name)
		w.assign(r, group, role)
		if a := w.ask(client, secret, "api://orders"); a.status != http.StatusOK {
			t.Errorf("assigned to %s by a group: %d %s", name, a.status, a.body)
		}
		w.out(group, who.ID)
		w.ask(client, secret, "api://orders").refused(400, "invalid_grant", "501051")
	}
	w.assign(r, who.ID, directory.NoAppRole)
	if roles, ok := w.claims(w.ask(client, secret, "api://orders"))["roles"]; ok {
		t.Errorf("assigned to none in particular: roles %v", roles)
	}
}

func TestATokenHasGroupsOnlyForAServiceThatWantsThem(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	who, _ := w.directory.ByClient(client)
	inner := w.in(who.ID, "inner")
	outer := w.in(inner, "outer")
	w.in(outer, "outermost")
	w.update(func(tx store.Tx) error { return w.directory.AddMember(tx, inner, outer) }) // a ring
	var want []string
	for _, g := range w.directory.Groups(who.ID) {
		want = append(want, string(g))
	}
	slices.Sort(want)
	if len(want) != 3 {
		t.Fatalf("groups %q", want)
	}
	for setting, want := range map[string][]string{"": nil, "None": nil, "SecurityGroup": want, "All": want} {
		uri := "api://orders" + setting
		w.orders(func(r *directory.Registration) { r.IdentifierURIs, r.GroupClaims = []string{uri}, setting })
		claims := w.claims(w.ask(client, secret, uri))
		if diff := cmp.Diff(want, stringsOf(claims["groups"])); diff != "" {
			t.Errorf("%q: groups (-want +got)\n%s", setting, diff)
		}
		if _, ok := claims["groups"]; ok != (want != nil) {
			t.Errorf("%q: the token has groups %v", setting, claims["groups"])
		}
	}
	if claims := w.claims(w.ask(client, secret, vault)); claims["groups"] != nil {
		t.Errorf("vault: groups %v", claims["groups"])
	}
}

func TestMoreThanTwoHundredGroupsAreAskedForElsewhere(t *testing.T) {
	w := start(t)
	w.orders(func(r *directory.Registration) { r.GroupClaims = "SecurityGroup" })
	client, secret := w.application()
	who, _ := w.directory.ByClient(client)
	w.update(func(tx store.Tx) error {
		for i := range 200 {
			g, err := directory.CreateGroup(tx, fmt.Sprint("g", i), w.now)
			if err != nil {
				return err
			}
			if err := w.directory.AddMember(tx, g.ID, who.ID); err != nil {
				return err
			}
		}
		return nil
	})
	claims := w.claims(w.ask(client, secret, "api://orders"))
	if n := len(stringsOf(claims["groups"])); n != 200 || claims["_claim_names"] != nil {
		t.Errorf("200 groups: %d in the token, _claim_names %v", n, claims["_claim_names"])
	}
	w.in(who.ID, "one more")
	claims = w.claims(w.ask(client, secret, "api://orders"))
	if claims["groups"] != nil || claims["hasgroups"] != nil {
		t.Errorf("201 groups: groups %v, hasgroups %v", claims["groups"], claims["hasgroups"])
	}
	want := map[string]any{"src1": map[string]any{
		"endpoint": "https://graph.innate.test/v1.0/servicePrincipals/" + string(who.ID) + "/getMemberObjects",
	}}
	if diff := cmp.Diff(map[string]any{"groups": "src1"}, claims["_claim_names"]); diff != "" {
		t.Errorf("_claim_names (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff(want, claims["_claim_sources"]); diff != "" {
		t.Errorf("_claim_sources (-want +got)\n%s", diff)
	}
}
