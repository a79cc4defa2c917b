package resources_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"innate/access"
	"innate/resources"
	"innate/store"
)

const (
	deletedVaults = sub + "/providers/Microsoft.KeyVault/deletedVaults"
	deletedVault  = sub + "/providers/Microsoft.KeyVault/locations/local/deletedVaults/kv1"
	somebody      = "aaaaaaaa-0000-4000-8000-00000000000a"
)

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// purged notes what OnPurge is told.
func (w *world) purged(t *testing.T) *[]string {
	t.Helper()
	var all []string
	w.config.OnPurge = []func(store.Tx, *resources.Resource) error{func(_ store.Tx, gone *resources.Resource) error {
		all = append(all, string(gone.ID))
		return nil
	}}
	var err error
	if w.Resources, err = resources.New(w.config); err != nil {
		t.Fatal(err)
	}
	return &all
}

func TestADeletedVaultComesBackAsItWas(t *testing.T) {
	w := newWorld(t)
	purged := w.purged(t)
	w.group()
	before := w.must("PUT", vault, `{"tags":{"a":"b"},"properties":{"softDeleteRetentionInDays":30,"accessPolicies":[{"objectId":"`+somebody+`","permissions":{"Secrets":["Get"]}}]}}`)
	w.must("DELETE", vault, "")
	w.send("GET", vault, "").is(404, "ResourceNotFound")
	a := w.must("GET", deletedVault, "")
	if a.at("properties", "vaultId") != vault || a.at("properties", "tags", "a") != "b" || a.at("name") != "kv1" {
		t.Errorf("deleted: %s", a.Body)
	}
	if a := w.must("GET", deletedVaults, ""); !slices.Equal(a.names(), []string{"kv1"}) {
		t.Errorf("list: %s", a.Body)
	}
	elsewhere := strings.Replace(vault, "rg1", "rg2", 1)
	w.must("PUT", sub+"/resourceGroups/rg2", `{}`)
	w.send("PUT", elsewhere, `{"properties":{"createMode":"recover"}}`).is(404, "DeletedVaultNotFound")

	back := w.must("PUT", vault, `{"properties":{"createMode":"Recover"}}`)
	if back.at("properties", "softDeleteRetentionInDays") != 30.0 || back.at("tags", "a") != "b" || back.at("properties", "createMode") != nil ||
		back.at("systemData", "createdAt") != before.at("systemData", "createdAt") {
		t.Errorf("recovered: %s\nbefore: %s", back.Body, before.Body)
	}
	if policies, _ := back.at("properties", "accessPolicies").([]any); len(policies) != 1 {
		t.Errorf("recovered: %s", back.Body)
	}
	if _, ok := w.VaultByName("kv1"); !ok {
		t.Error("it does not answer to its name")
	}
	w.send("GET", deletedVault, "").is(404, "DeletedVaultNotFound")
	w.must("PUT", vault, `{"properties":{"createMode":"recover"}}`) // there is nothing to recover: an ordinary PUT

	w.must("DELETE", vault, "")
	w.must("POST", deletedVault+"/purge", "")
	if !slices.Equal(*purged, []string{vault}) {
		t.Errorf("OnPurge was told %v", *purged)
	}
	w.send("POST", deletedVault+"/purge", "").is(404, "DeletedVaultNotFound")
	w.send("PUT", vault, `{"properties":{"createMode":"recover"}}`).is(404, "DeletedVaultNotFound")
}

func TestADeletedVaultGoesWhenItIsDue(t *testing.T) {
	w := newWorld(t)
	purged := w.purged(t)
	w.group()
	w.must("PUT", vault, `{"properties":{"softDeleteRetentionInDays":7,"enablePurgeProtection":true}}`)
	w.must("DELETE", group, "") // and what is in it
	w.send("POST", deletedVault+"/purge", "").is(403, "Forbidden")
	w.pass(7*24*time.Hour - time.Hour)
	if err := w.Sweep(t.Context()); err != nil || len(*purged) > 0 {
		t.Errorf("an hour before: %v, purged %v", err, *purged)
	}
	w.pass(time.Hour)
	if err := w.Sweep(t.Context()); err != nil || !slices.Equal(*purged, []string{vault}) {
		t.Errorf("when it is due: %v, purged %v", err, *purged)
	}
	w.send("GET", deletedVault, "").is(404, "DeletedVaultNotFound")
}

func TestDeletedVaultsAreForThoseWhoMayReadOrPurgeThem(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vault, `{}`)
	w.must("DELETE", vault, "")
	w.owner = w.user("officer")
	w.send("GET", deletedVault, "").is(403, "AuthorizationFailed")
	w.send("GET", strings.Replace(deletedVault, "kv1", "kv9", 1), "").is(403, "AuthorizationFailed") // absent or not
	w.grant(w.owner, access.KeyVaultSecretsOfficer, sub)
	w.must("GET", deletedVault, "")
	w.send("POST", deletedVault+"/purge", "").is(403, "AuthorizationFailed")
	w.send("PUT", vault, `{"properties":{"createMode":"recover"}}`).is(403, "AuthorizationFailed")
}

func TestWhatAVaultWasMadeWithStays(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vault, `{"properties":{"softDeleteRetentionInDays":30,"enablePurgeProtection":true}}`)
	for _, c := range []struct{ method, body string }{
		{"PATCH", `{"properties":{"softDeleteRetentionInDays":31}}`},
		{"PUT", `{"properties":{"softDeleteRetentionInDays":90}}`}, // the default is another too
		{"PATCH", `{"properties":{"enablePurgeProtection":false}}`},
		{"PUT", `{"properties":{"enablePurgeProtection":false}}`},
		{"PUT", `{"properties":{"enableSoftDelete":false}}`},
		{"PUT", `{"properties":{"enforceSecretsInTime":"yes"}}`},
	} {
		w.send(c.method, vault, c.body).is(400, "InvalidParameter")
	}
	for _, c := range []struct{ method, body string }{
		{"PUT", `{}`}, {"PATCH", `{"properties":{"softDeleteRetentionInDays":30}}`},
		{"PATCH", `{"properties":{"softDeleteRetentionInDays":null,"enablePurgeProtection":null}}`},
	} {
		if a := w.must(c.method, vault, c.body); a.at("properties", "softDeleteRetentionInDays") != 30.0 || a.at("properties", "enablePurgeProtection") != true {
			t.Errorf("%s %s: %s", c.method, c.body, a.Body)
		}
	}
}

func TestAccessPoliciesAreChangedOneByOne(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vault, `{}`)
	policy := func(words string) string {
		return `{"properties":{"accessPolicies":[{"tenantId":"` + tenant + `","objectId":"` + strings.ToUpper(somebody) + `","permissions":{"secrets":[` + words + `],"keys":[]}}]}}`
	}
	for _, c := range []struct{ operation, words, want string }{
		{"add", `"get"`, "get"},
		{"Add", `"GET","list"`, "get list"},
		{"replace", `"set"`, "set"},
		{"add", `"get"`, "set get"},
		{"remove", `"SET"`, "get"},
		{"remove", `"purge"`, "get"},
		{"remove", `"get"`, ""},
	} {
		a := w.must("PUT", vault+"/accessPolicies/"+c.operation, policy(c.words))
		got := ""
		if r, _ := w.Find(vault); len(r.Vault().Policies) > 0 {
			p := r.Vault().Policies[0]
			if got = strings.Join(p.Secrets, " "); string(p.Object) != somebody {
				t.Errorf("%s %s: of %s", c.operation, c.words, p.Object)
			}
		}
		if got != c.want || a.at("type") != "Microsoft.KeyVault/vaults/accessPolicies" {
			t.Errorf("%s %s: %q, want %q: %s", c.operation, c.words, got, c.want, a.Body)
		}
	}
	w.send("PUT", vault+"/accessPolicies/add", policy(`"read"`)).is(400, "InvalidParameter")
	w.send("PUT", vault+"/accessPolicies/add", strings.Replace(policy(`"get"`), tenant, somebody, 1)).is(400, "InvalidParameter")
	w.send("PUT", vault+"/accessPolicies/merge", policy(`"get"`)).is(404, "NotFound")
	w.send("PUT", vault+"x/accessPolicies/add", policy(`"get"`)).is(404, "ResourceNotFound")
	w.owner = w.user("reader")
	w.grant(w.owner, access.Reader, "/")
	w.send("PUT", vault+"/accessPolicies/add", policy(`"get"`)).is(403, "AuthorizationFailed")
}

// Whoever may write a vault but not grant roles must not get into it by turning
// it to policies, in which it then stands itself.
func TestTurningAVaultToPoliciesIsForThoseWhoMayGrant(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vault, `{}`)
	owner := w.owner
	w.owner = w.user("contributor")
	w.grant(w.owner, access.Contributor, "/")
	w.send("PATCH", vault, `{"properties":{"enableRbacAuthorization":false}}`).is(403, "AuthorizationFailed")
	w.must("PATCH", vault, `{"tags":{"a":"b"}}`)
	w.owner = owner
	w.must("PATCH", vault, `{"properties":{"enableRbacAuthorization":false}}`)
	w.owner = w.user("contributor2")
	w.grant(w.owner, access.Contributor, "/")
	w.send("PUT", vault, `{}`).is(403, "AuthorizationFailed") // back to roles
	w.must("PUT", vault, `{"properties":{"enableRbacAuthorization":false}}`)
}
