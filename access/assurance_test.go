package access_test

import (
	"strings"
	"testing"

	"innate"
	"innate/access"
)

// demanding is granting with a minimum.
func demanding(to innate.ObjectID, role, minimum string) map[string]any {
	body := granting(to, role)
	body["properties"].(map[string]any)["minimumAssurance"] = minimum
	return body
}

// proved is who, with a token that says how surely it was recognised.
func proved(who innate.Principal, by innate.Assurance) innate.Principal {
	who.Assurance = by
	return who
}

func TestARoleCountsOnlyForWhoIsProvedAsSurelyAsItDemands(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	team := w.group("team", me.Object)
	read := access.Data(getSecret)
	w.want(201, w.admin, "PUT", assignment(kv, innate.NewGUID()), demanding(team.Object, access.KeyVaultSecretsUser, "netns"))
	for _, c := range []struct {
		by   innate.Assurance
		want bool
	}{
		{innate.Unproved, false}, // a client secret, for instance: it has no host
		{innate.SecretOnly, false}, {innate.CgroupUID, false}, {innate.NetNS, true}, {innate.Device, true},
	} {
		d := w.allowed(proved(me, c.by), read, kv)
		if d.Allowed != c.want {
			t.Errorf("proved by %s: %v (%s), want %v", c.by, d.Allowed, d.Why, c.want)
		}
		if !c.want && (!strings.Contains(d.Why, "Key Vault Secrets User") || !strings.Contains(d.Why, "netns") ||
			!strings.Contains(d.Why, "proof is "+c.by.String()) || d.Smallest != "") {
			t.Errorf("proved by %s: the refusal is %q (smallest role %q): want the role, what it demands and what there is, and no other role to ask for", c.by, d.Why, d.Smallest)
		}
		if sees := w.Sees(proved(me, c.by), innate.ResourceID(kv)); sees != c.want {
			t.Errorf("proved by %s: it sees the vault: %v, want %v", c.by, sees, c.want)
		}
		answer := w.want(200, proved(me, c.by), "GET", string(kv)+"/providers/Microsoft.Authorization/permissions", nil)
		if has := len(answer["value"].([]any)) > 0; has != c.want {
			t.Errorf("proved by %s: it has permissions: %v, want %v", c.by, has, c.want)
		}
	}
	// A role without a minimum beside it decides by itself, below its own scope only.
	w.assign(me, access.KeyVaultReader, kv)
	if d := w.allowed(proved(me, innate.SecretOnly), read, kv); d.Allowed {
		t.Errorf("a role that does not include it made up for the proof: %s", d.Why)
	}
	w.assign(me, access.KeyVaultSecretsUser, kv+"/secrets/one")
	if d := w.allowed(proved(me, innate.SecretOnly), read, kv+"/secrets/one"); !d.Allowed {
		t.Errorf("refused at the one secret that asks for no proof: %s", d.Why)
	}
}

func TestOfManyAssignmentsEachDemandsItsOwnProof(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	for i := range 20 { // more than are gone through one by one
		at := kv + innate.Scope("/secrets/s"+string(rune('a'+i)))
		w.want(201, w.admin, "PUT", assignment(at, innate.NewGUID()), demanding(me.Object, access.KeyVaultSecretsUser, "cgroup+uid"))
	}
	read := access.Data(getSecret)
	if w.allowed(proved(me, innate.UID), read, kv+"/secrets/sc").Allowed || !w.allowed(proved(me, innate.CgroupUID), read, kv+"/secrets/sc").Allowed {
		t.Error("the minimum of one among many does not decide")
	}
	if w.Sees(proved(me, innate.UID), innate.ResourceID(kv)) || !w.Sees(proved(me, innate.CgroupUID), innate.ResourceID(kv)) {
		t.Error("the minimum of many does not decide what is seen")
	}
}

func TestAMinimumIsSaidOnceAndReadBack(t *testing.T) {
	w := newWorld(t)
	me, id := w.principal("me"), innate.NewGUID()
	made := w.want(201, w.admin, "PUT", assignment(kv, id), demanding(me.Object, access.Reader, "device"))
	w.want(200, w.admin, "PUT", assignment(kv, id), demanding(me.Object, access.Reader, "device"))
	read := w.want(200, w.admin, "GET", assignment(kv, id), nil)
	for _, answer := range []map[string]any{made, read} {
		if got := answer["properties"].(map[string]any)["minimumAssurance"]; got != "device" {
			t.Errorf("minimumAssurance %v, want device", got)
		}
	}
	person := w.user("ann")
	for _, c := range []struct {
		why    string
		status int
		code   string
		path   string
		body   any
	}{
		{"changed in place", 409, "RoleAssignmentUpdateNotPermitted", assignment(kv, id), demanding(me.Object, access.Reader, "uid")},
		{"beside itself, without one", 409, "RoleAssignmentUpdateNotPermitted", assignment(kv, innate.NewGUID()), granting(me.Object, access.Reader)},
		{"the same beside itself", 409, "RoleAssignmentExists", assignment(kv, innate.NewGUID()), demanding(me.Object, access.Reader, "device")},
		{"no such proof", 400, "InvalidMinimumAssurance", assignment(kv2, innate.NewGUID()), demanding(me.Object, access.Reader, "tpm")},
		{"of a person", 400, "InvalidMinimumAssurance", assignment(kv, innate.NewGUID()), demanding(person.Object, access.Reader, "uid")},
	} {
		if answer := w.want(c.status, w.admin, "PUT", c.path, c.body); code(answer) != c.code {
			t.Errorf("%s: %v, want %s", c.why, answer, c.code)
		}
	}
}

func TestCheckAccessTellsWhatASurerProofWouldDo(t *testing.T) {
	w := newWorld(t)
	me := w.principal("me")
	w.want(201, w.admin, "PUT", assignment(kv, innate.NewGUID()), demanding(me.Object, access.Reader, "netns"))
	path := string(kv) + "/providers/Microsoft.Authorization/checkAccess"
	for _, c := range []struct {
		who       innate.Principal
		assurance string
		want      bool
	}{
		{w.admin, "", true}, {w.admin, "netns", true}, {w.admin, "uid", false}, // about another
		{proved(me, innate.UID), "", false}, {proved(me, innate.Device), "", true}, {proved(me, innate.UID), "device", true}, // about itself
	} {
		body := map[string]any{"principalId": me.Object, "action": "Microsoft.KeyVault/vaults/read", "assurance": c.assurance}
		if answer := w.want(200, c.who, "POST", path, body); answer["allowed"] != c.want {
			t.Errorf("%s, proved by %s, asks about %q: %v, want %v", c.who.Name, c.who.Assurance, c.assurance, answer, c.want)
		}
	}
	w.want(400, w.admin, "POST", path, map[string]any{"principalId": me.Object, "action": "x/read", "assurance": "very"})
}
