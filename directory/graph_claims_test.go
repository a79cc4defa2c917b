package directory_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatAnApplicationAsksOfItsTokensIsKeptAndShown(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	target := "/v1.0/applications/" + string(app.ID)
	access := func(claims ...any) map[string]any { return map[string]any{"accessToken": claims} }
	cc := map[string]any{"name": "xms_cc", "source": nil, "essential": false, "additionalProperties": []any{}}
	oneTime := func(v bool) map[string]any { return map[string]any{"oneTimeAssertions": v} }
	for _, c := range []struct {
		property    string
		sent, shown any // sent again, shown must come out the same
	}{
		{"groupMembershipClaims", "SecurityGroup", "SecurityGroup"},
		{"groupMembershipClaims", "All", "All"},
		{"groupMembershipClaims", "None", nil},
		{"groupMembershipClaims", nil, nil},
		{"optionalClaims", access(map[string]any{"name": "xms_cc"}), map[string]any{"accessToken": []any{cc}, "idToken": []any{}, "saml2Token": []any{}}},
		// Tokens that are not issued here may be said to have anything.
		{"optionalClaims", map[string]any{"accessToken": []any{cc, cc}, "idToken": []any{map[string]any{"name": "email"}}}, map[string]any{"accessToken": []any{cc}, "idToken": []any{}, "saml2Token": []any{}}},
		{"optionalClaims", access(), nil},
		{"optionalClaims", nil, nil},
		{"api", oneTime(true), map[string]any{"requestedAccessTokenVersion": nil, "oneTimeAssertions": true}},
		{"api", oneTime(false), map[string]any{"requestedAccessTokenVersion": nil}},
	} {
		w.want(204, admin, "PATCH", target, map[string]any{c.property: c.sent})
		w.want(204, admin, "PATCH", target, map[string]any{"displayName": "orders"}) // what is left out stays
		got := w.want(200, admin, "GET", target, nil)[c.property]
		if diff := cmp.Diff(c.shown, got); diff != "" {
			t.Errorf("%s of %v (-want +got)\n%s", c.property, c.sent, diff)
		}
		w.want(204, admin, "PATCH", target, map[string]any{c.property: got})
		if diff := cmp.Diff(got, w.want(200, admin, "GET", target, nil)[c.property]); diff != "" {
			t.Errorf("%s written back as it was read (-before +after)\n%s", c.property, diff)
		}
	}
	made := w.want(201, admin, "POST", "/v1.0/applications", map[string]any{
		"displayName": "all", "groupMembershipClaims": "All", "optionalClaims": access(cc), "api": oneTime(true),
	})
	found, ok := w.Registration(app.Client)
	if !ok || found.GroupClaims != "" || found.OptionalClaims != nil || found.OneTime {
		t.Errorf("orders ends with %+v", found)
	}
	if made["groupMembershipClaims"] != "All" || made["optionalClaims"] == nil {
		t.Errorf("made %v", made)
	}
}

func TestAClaimThatNoTokenWouldHaveIsRefused(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	claim := func(changes map[string]any) map[string]any {
		return map[string]any{"optionalClaims": map[string]any{"accessToken": []any{with(map[string]any{"name": "xms_cc"}, changes)}}}
	}
	for _, c := range []struct {
		says string
		body map[string]any
	}{
		{"want null, None, SecurityGroup or All", map[string]any{"groupMembershipClaims": "DirectoryRole"}},
		{"want null, None, SecurityGroup or All", map[string]any{"groupMembershipClaims": "SecurityGroup, ApplicationGroup"}},
		{"want null, None, SecurityGroup or All", map[string]any{"groupMembershipClaims": "securitygroup"}},
		{"groupMembershipClaims", map[string]any{"groupMembershipClaims": 1}},
		{"'ipaddr': this service puts only xms_cc", claim(map[string]any{"name": "ipaddr"})},
		{"'': this service", claim(map[string]any{"name": absent})},
		{"only plain", claim(map[string]any{"source": "user"})},
		{"only plain", claim(map[string]any{"name": "groups", "additionalProperties": []string{"emit_as_roles"}})},
		{"optionalClaims", map[string]any{"optionalClaims": []any{}}},
	} {
		answer := w.want(400, admin, "PATCH", "/v1.0/applications/"+string(app.ID), c.body)
		if message := fmt.Sprint(answer["error"].(map[string]any)["message"]); !strings.Contains(message, c.says) {
			t.Errorf("%v: the refusal does not say %q: %s", c.body, c.says, message)
		}
	}
}

func TestAnApplicationMayRequireAnAssignment(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders")
	vm := w.identity("vm1", vm1, false)
	target := "/v1.0/servicePrincipals/" + string(sp.ID)
	for range 2 { // the second changes nothing
		w.want(204, admin, "PATCH", target, map[string]any{"appRoleAssignmentRequired": true})
	}
	if r, _ := w.Registration(app.Client); !r.RoleRequired {
		t.Error("it is not required")
	}
	if got := w.want(200, admin, "GET", target, nil)["appRoleAssignmentRequired"]; got != true {
		t.Errorf("it is shown as %v", got)
	}
	w.want(204, admin, "PATCH", target, map[string]any{"appRoleAssignmentRequired": false, "accountEnabled": false})
	if r, _ := w.Registration(app.Client); r.RoleRequired {
		t.Error("it is still required")
	}
	if o, _ := w.Object(sp.ID); o.Enabled {
		t.Error("of two changes in one request only one was made")
	}
	if got := len(w.events()); got != 3 {
		t.Errorf("%d events for 3 changes", got)
	}
	its := "/v1.0/servicePrincipals/" + string(vm.ID)
	w.want(204, admin, "PATCH", its, map[string]any{"appRoleAssignmentRequired": false}) // so it is
	w.want(400, admin, "PATCH", its, map[string]any{"appRoleAssignmentRequired": true})  // no token is for it
	// Of two changes of which one is refused, none is made.
	w.want(400, admin, "PATCH", its, map[string]any{"appRoleAssignmentRequired": true, "accountEnabled": false})
	if o, _ := w.Object(vm.ID); !o.Enabled {
		t.Error("half of a refused change was made")
	}
	w.want(403, nobody, "PATCH", target, map[string]any{"appRoleAssignmentRequired": false})
}
