package resources_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/resources"
	"innate/store"
)

// Whoever may do everything at a resource may still not put it on a machine or
// plan, or give it an identity, that is somebody else's (design §5).
func TestPlacingJoiningAndAttachingTakeTheirOwnRights(t *testing.T) {
	const (
		theirs = sub + "/resourceGroups/theirs"
		vm     = theirs + "/providers/Microsoft.Compute/virtualMachines/vm1"
		site   = theirs + "/providers/Microsoft.Web/sites/fn1"
		farm   = theirs + "/providers/Microsoft.Web/serverfarms/plan1"
	)
	for _, c := range []struct{ name, target, body, action, at, role string }{
		{"placing a VM", vm, `{"properties":{"host":{"id":"` + machine + `"}}}`,
			"Microsoft.HybridCompute/machines/place/action", machine, access.MachinePlacementOperator},
		{"placing a plan", farm, `{"properties":{"workers":["` + machine + `"]}}`,
			"Microsoft.HybridCompute/machines/place/action", machine, access.MachinePlacementOperator},
		{"joining a plan", site, `{"properties":{"serverFarmId":"` + plan + `"}}`,
			"Microsoft.Web/serverfarms/join/action", plan, access.Contributor},
		{"joining a plan, in other case", site, `{"properties":{"SERVERFARMID":"` + strings.ToLower(plan) + `"}}`,
			"Microsoft.Web/serverfarms/join/action", plan, access.Contributor},
		{"attaching an identity", vm, `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{}}}}`,
			"Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", uai, access.ManagedIdentityOperator},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.group()
			w.must("PUT", plan, `{}`)
			w.must("PUT", uai, `{}`)
			w.must("PUT", theirs, `{}`)
			mallory := w.user("mallory")
			w.grant(mallory, access.Contributor, theirs)

			refused := func(method, body string) {
				t.Helper()
				a := w.as(mallory, method, c.target, body).is(403, "AuthorizationFailed")
				if m := a.text("error", "message"); !strings.Contains(m, c.action) || !strings.Contains(strings.ToLower(m), strings.ToLower(c.at)) {
					t.Errorf("the refusal names neither right nor place: %s", m)
				}
			}
			refused("PUT", c.body)
			if _, ok := w.Find(innate.ResourceID(c.target)); ok {
				t.Error("the refused PUT left the resource")
			}
			if a := w.as(mallory, "PUT", c.target, `{}`); a.Code >= 300 {
				t.Fatalf("without it: %d %s", a.Code, a.Body)
			}
			refused("PATCH", c.body)

			w.must("PATCH", c.target, c.body) // by the owner
			for _, method := range []string{"PATCH", "PUT"} {
				if a := w.as(mallory, method, c.target, c.body); a.Code != 200 {
					t.Errorf("%s of what is there already: %d %s", method, a.Code, a.Body)
				}
			}
			w.must("DELETE", c.target, "")
			w.grant(mallory, c.role, c.at)
			if a := w.as(mallory, "PUT", c.target, c.body); a.Code >= 300 {
				t.Errorf("with the right: %d %s", a.Code, a.Body)
			}
		})
	}
}

func TestAMachineOrPlanThatIsNotThereIsRefused(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.send("PUT", vm, `{"properties":{"host":{"id":"`+machine+`x"}}}`).is(400, "InvalidParameter")
	w.send("PUT", plan, `{"properties":{"workers":["`+machine+`","`+machine+`x"]}}`).is(400, "InvalidParameter")
	w.send("PUT", site, `{"properties":{"serverFarmId":"`+plan+`"}}`).is(400, "InvalidParameter")
	mallory := w.user("mallory")
	w.grant(mallory, access.VirtualMachineContributor, group)
	w.as(mallory, "PUT", vm, `{"properties":{"host":{"id":"`+machine+`x"}}}`).is(403, "AuthorizationFailed") // before existence
}

// If the reference stayed, a later machine of the same name would have on it
// what nobody put there.
func TestADeletedMachineOrPlanIsForgottenByWhatWasOnIt(t *testing.T) {
	w := newWorld(t)
	w.group()
	second := strings.Replace(machine, "host1", "host2", 1)
	w.must("PUT", second, `{}`)
	w.must("PUT", vm, `{"properties":{"host":{"id":"`+strings.ToUpper(machine)+`"}}}`)
	w.must("PUT", plan, `{"properties":{"workers":["`+machine+`","`+second+`","`+strings.ToLower(machine)+`"]}}`)
	w.must("PUT", site, `{"properties":{"serverFarmId":"`+plan+`"}}`)
	w.do(func(tx store.Tx) error {
		if diff := cmp.Diff([]innate.ResourceID{site}, resources.SitesOn(tx, plan)); diff != "" {
			t.Errorf("sites on the plan: %s", diff)
		}
		return nil
	})

	w.must("DELETE", machine, "")
	if r, _ := w.Find(vm); r.Host() != "" {
		t.Errorf("the VM is on %s", r.Host())
	}
	if r, _ := w.Find(plan); !cmp.Equal(r.Workers(), []innate.ResourceID{innate.ResourceID(second)}) {
		t.Errorf("the plan's machines: %v", r.Workers())
	}
	w.must("DELETE", plan, "")
	if r, _ := w.Find(site); r.Plan() != "" {
		t.Errorf("the site is on %s", r.Plan())
	}
}

func TestWithoutTheRightToReadNobodyLearnsWhatExists(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vm, `{}`)
	stranger := w.user("stranger")
	w.config.Actions["microsoft.compute/virtualmachines/start"] = nil
	for _, target := range []string{vm, vm + "x", group, group + "x", sub, sub[:len(sub)-1] + "1", vault} {
		for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
			if strings.Count(target, "/") == 2 && method != "GET" {
				continue // subscriptions are not written
			}
			w.as(stranger, method, target, `{}`).is(403, "AuthorizationFailed")
		}
	}
	w.as(stranger, "POST", vm+"x/start", "").is(403, "AuthorizationFailed")
	w.as(stranger, "POST", site+"/config/appsettings/list", "").is(403, "AuthorizationFailed")
	w.as(stranger, "PUT", site+"/config/appsettings", "{}").is(403, "AuthorizationFailed")
	w.as(stranger, "GET", group+"x/resources", "").is(403, "AuthorizationFailed")
}

func TestListsShowOnlyWhatTheCallerSees(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vm, `{}`)
	w.must("PUT", vault, `{}`)
	w.must("PUT", sub+"/resourceGroups/rg2", `{}`)
	identity := w.must("PUT", site, `{"identity":{"type":"SystemAssigned"}}`).text("identity", "principalId")
	app := innate.Principal{Object: innate.ObjectID(identity)}

	if a := w.as(app, "GET", "/subscriptions", ""); len(a.at("value").([]any)) != 0 {
		t.Errorf("no role, and it sees %s", a.Body)
	}
	w.grantTo(app.Object, access.KeyVaultSecretsUser, vault)
	if a := w.as(app, "GET", "/subscriptions", ""); len(a.at("value").([]any)) != 1 {
		t.Errorf("one role at a vault, and it sees %s", a.Body) // az login needs it
	}
	w.as(app, "GET", sub, "").is(200, "")
	for target, want := range map[string][]string{
		sub + "/resourceGroups":                                   {"rg1"},
		sub + "/resources":                                        {"kv1"},
		group + "/resources":                                      {"kv1"},
		sub + "/providers/microsoft.keyvault/VAULTS":              {"kv1"},
		sub + "/providers/Microsoft.Compute/virtualMachines":      {},
		group + "/providers/Microsoft.Compute/virtualMachines":    {},
		sub + "/resourceGroups/rg2/providers/Microsoft.Web/sites": {},
	} {
		if diff := cmp.Diff(want, w.as(app, "GET", target, "").names()); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
	}
	for target, want := range map[string][]string{
		sub + "/resourcegroups": {"rg1", "rg2"},
		sub + "/resources":      {"vm1", "host1", "kv1", "fn1"},
		sub + "/resources?api-version=2024-11-01&$filter=resourceType+eq+'Microsoft.KeyVault/vaults'+and+name+eq+'KV1'": {"kv1"},
		group + "/providers/Microsoft.Web/sites": {"fn1"},
	} {
		if diff := cmp.Diff(want, w.send("GET", target, "").names()); diff != "" {
			t.Errorf("%s: %s", target, diff)
		}
	}
}
