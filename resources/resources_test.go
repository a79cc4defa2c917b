package resources_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/resources"
	"innate/store"
)

// Any other code is an error to the Go clients, even another 2xx (control-plane §3.4).
func TestStatusCodesAreThoseThatClientsAccept(t *testing.T) {
	w := newWorld(t)
	w.send("HEAD", group, "").is(404, "ResourceGroupNotFound")
	w.send("DELETE", group, "").is(404, "ResourceGroupNotFound")
	w.send("PUT", group, `{"location":"local"}`).is(201, "")
	w.send("PUT", group, `{"location":"local"}`).is(200, "")
	w.send("PATCH", group, `{"tags":{"a":"b"}}`).is(200, "")
	if a := w.send("HEAD", group, "").is(204, ""); a.Body.Len() > 0 {
		t.Errorf("HEAD has a body: %s", a.Body)
	}
	for _, c := range []struct {
		target  string
		created int
	}{{uai, 201}, {vm, 201}, {machine, 201}, {plan, 201}, {site, 200}, {vault, 200}} {
		w.send("PATCH", c.target, `{}`).is(404, "ResourceNotFound")
		w.send("PUT", c.target, `{"location":"local"}`).is(c.created, "")
		w.send("PUT", c.target, `{"location":"local"}`).is(200, "")
		w.send("PATCH", c.target, `{"tags":{}}`).is(200, "")
		if a := w.send("GET", c.target, "").is(200, ""); c.target != uai && a.text("properties", "provisioningState") != "Succeeded" {
			t.Errorf("%s: a poller would wait for %s", c.target, a.Body)
		}
	}
	w.send("PUT", site+"/config/appsettings", `{"properties":{"A":"b"}}`).is(200, "")
	w.send("POST", site+"/config/appsettings/list", "").is(200, "")
	w.send("GET", site+"/config/appsettings", "").is(405, "MethodNotAllowed")
	for _, target := range []string{uai, vm, machine, plan, site, vault} {
		w.send("DELETE", target, "").is(200, "")
		w.send("DELETE", target, "").is(204, "")
	}
	w.send("DELETE", group, "").is(200, "")
	w.send("PUT", vm, `{}`).is(404, "ResourceGroupNotFound")
	w.send("GET", vm, "").is(404, "ResourceGroupNotFound")
	w.send("PUT", strings.Replace(group, "2222", "3333", 1), `{}`).is(404, "SubscriptionNotFound")
}

func TestWhatRoundTripsIsWhatClientsSent(t *testing.T) {
	w := newWorld(t)
	if a := w.send("PUT", sub+"/resourcegroups/rg1", `{"location":"local"}`); true {
		delete(a.body, "systemData")
		want := map[string]any{
			"id": group, "name": "rg1", "type": "Microsoft.Resources/resourceGroups", "location": "local",
			"tags": map[string]any{}, "properties": map[string]any{"provisioningState": "Succeeded"},
		}
		if diff := cmp.Diff(want, a.body); diff != "" {
			t.Error(diff)
		}
	}
	a := w.must("PUT", vm, `{"location":"local","zones":["1"],"tags":{"env":"dev"},"properties":{
		"hardwareProfile":{"vmSize":"big","x":1},"vmId":"mine","VMID2":null,"provisioningState":"Failed"}}`)
	vmID := a.text("properties", "vmId")
	if vmID == "mine" || vmID == "" {
		t.Errorf("the client chose vmId %q", vmID)
	}
	sent := a.Body.String()
	b := w.must("PUT", vm, sent) // as az does: GET, then PUT of the same
	for _, m := range []map[string]any{a.body, b.body} {
		delete(m, "systemData")
	}
	if diff := cmp.Diff(a.body, b.body); diff != "" {
		t.Errorf("sending it back changed it: %s", diff)
	}
	if a.at("properties", "VMID2") != nil || fmt.Sprint(a.at("zones")) != "[1]" || a.text("tags", "env") != "dev" {
		t.Errorf("got %s", sent)
	}

	p := w.must("PATCH", vm, `{"tags":{"b":"c"},"properties":{"hardwareProfile":{"vmSize":null,"y":2},"more":true}}`)
	if diff := cmp.Diff(map[string]any{"b": "c"}, p.at("tags")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"x": 1.0, "y": 2.0}, p.at("properties", "hardwareProfile")); diff != "" {
		t.Error(diff)
	}
	if p.at("properties", "more") != true || p.text("properties", "vmId") != vmID {
		t.Errorf("got %s", p.Body)
	}
	if q := w.must("PUT", vm, `{}`); q.at("properties", "more") != nil || q.text("properties", "vmId") != vmID {
		t.Errorf("a PUT replaces all but what is kept for life: %s", q.Body)
	}
}

func TestPasswordsInAVMAreNotKept(t *testing.T) {
	w := newWorld(t)
	w.group()
	a := w.must("PUT", vm, `{"properties":{"osProfile":{"computerName":"c","AdminPassword":"hunter2","linuxConfiguration":{"customData":"hunter2"}}}}`)
	if strings.Contains(a.Body.String(), "hunter2") || a.text("properties", "osProfile", "computerName") != "c" {
		t.Errorf("got %s", a.Body)
	}
	a = w.must("PATCH", vm, `{"properties":{"osProfile":{"adminPassword":"hunter2"}}}`)
	if strings.Contains(a.Body.String(), "hunter2") || a.text("properties", "osProfile", "computerName") != "c" {
		t.Errorf("got %s", a.Body)
	}
}

func TestIdsCompareWithoutCaseAndKeepTheirFirst(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", strings.Replace(vm, "vm1", "VM1", 1), `{}`)
	first := strings.Replace(vm, "vm1", "VM1", 1)
	for _, target := range []string{vm, strings.ToLower(vm), strings.ToUpper(vm) + "/", strings.Replace(vm, "/providers", "//providers", 1)} {
		if a := w.send("GET", target, "").is(200, ""); a.text("id") != first || a.text("name") != "VM1" {
			t.Errorf("GET %s: id %s", target, a.text("id"))
		}
		if a := w.send("PUT", target, `{}`).is(200, ""); a.text("id") != first {
			t.Errorf("PUT %s: id %s", target, a.text("id"))
		}
	}
	other := strings.ToUpper(group) + "/PROVIDERS/MICROSOFT.WEB/SITES/Fn1"
	if a := w.must("PUT", other, `{}`); a.text("id") != group+"/providers/Microsoft.Web/sites/Fn1" {
		t.Errorf("a new id in %s", a.text("id"))
	}
	if r, ok := w.Find(innate.ResourceID(strings.ToUpper(vm))); !ok || string(r.ID) != first {
		t.Errorf("Find: %v %t", r, ok)
	}
}

func TestBadInputIsAnsweredClearly(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", vm, `{"location":"local"}`)
	big := `{"properties":{"x":"` + strings.Repeat("a", 300<<10) + `"}}`
	tags := strings.Builder{}
	for i := range 51 {
		fmt.Fprintf(&tags, `,"t%d":""`, i)
	}
	for _, c := range []struct {
		method, target, body string
		status               int
		code                 string
	}{
		{"GET", vm + "?", "", 400, "MissingApiVersionParameter"},
		{"GET", vm + "?api-version=now", "", 400, "InvalidApiVersionParameter"},
		{"PUT", vm, ``, 400, "InvalidRequestContent"},
		{"PUT", vm, `null`, 400, "InvalidRequestContent"},
		{"PUT", vm, `[]`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"tags":{"a":1}}`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"tags":{` + tags.String()[1:] + `}}`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"tags":{"":"x"}}`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"location":7}`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"location":"a\nb"}`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"properties":[]}`, 400, "InvalidRequestContent"},
		{"PUT", vm, `{"properties":{"host":{},"Host":{}}}`, 400, "InvalidRequestContent"}, // one known, two spellings
		{"PUT", vm, `{"identity":{"type":"None"},"Identity":{"type":"SystemAssigned"}}`, 400, "InvalidRequestContent"},
		{"PUT", vm, big, 413, "ResourceTooLarge"},
		{"PUT", vm, `{"location":"elsewhere"}`, 409, "InvalidResourceLocation"},
		{"PUT", vm, `{"properties":{"host":"h"}}`, 400, "InvalidParameter"},
		{"PUT", vm, `{"properties":{"host":{"id":"h"}}}`, 400, "InvalidParameter"},
		{"PUT", vm, `{"properties":{"host":{"id":"` + vm + `"}}}`, 400, "InvalidParameter"},
		{"PUT", vm, `{"properties":{"minimumAssurance":"total"}}`, 400, "InvalidParameter"},
		{"PUT", vm, `{"properties":{"minimumAssurance":3}}`, 400, "InvalidParameter"},
		{"PUT", plan, `{"properties":{"workers":"h"}}`, 400, "InvalidParameter"},
		{"PUT", plan, `{"properties":{"workers":[""]}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"serverFarmId":"` + machine + `"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"runAs":["root"]}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"runAs":[-1]}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"keyVaultReferenceIdentity":"api"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"keyVaultReferenceIdentity":["SystemAssigned"]}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"runAs":[4294967295]}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"consoleFor":"root"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"siteConfig":{"healthCheckPath":"x"}}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"siteConfig":{"healthCheckPath":"/x HTTP/1.1"}}}`, 400, "InvalidParameter"}, // another request
		{"PUT", site, `{"properties":{"siteConfig":[]}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"maxGenerationAge":8}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"maxGenerationAge":"8h"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"maxGenerationAge":"PT"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"maxGenerationAge":"PT4M59S"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"maxGenerationAge":"PT721H"}}`, 400, "InvalidParameter"},
		{"PUT", site, `{"properties":{"enabled":"yes"}}`, 400, "InvalidParameter"},
		{"PUT", vault, `{"properties":{"tenantId":"` + innate.NewGUID() + `"}}`, 400, "InvalidParameter"},
		{"PUT", vault, `{"properties":{"softDeleteRetentionInDays":6}}`, 400, "InvalidParameter"},
		{"PUT", vault, `{"properties":{"accessPolicies":{}}}`, 400, "InvalidParameter"},
		{"PUT", group + "/providers/Microsoft.KeyVault/vaults/k", `{}`, 400, "VaultNameNotValid"},
		{"PUT", group + "/providers/Microsoft.KeyVault/vaults/1kv", `{}`, 400, "VaultNameNotValid"},
		{"PUT", group + "/providers/Microsoft.KeyVault/vaults/kv-", `{}`, 400, "VaultNameNotValid"},
		{"PUT", group + "/providers/Microsoft.KeyVault/vaults/k.v.x", `{}`, 400, "VaultNameNotValid"},
		{"PUT", vm + "%20x", `{}`, 400, "InvalidResourceName"},
		{"PUT", vm + ".", `{}`, 400, "InvalidResourceName"},
		{"PUT", vm + strings.Repeat("x", 90), `{}`, 400, "InvalidResourceName"},
		{"PUT", vm + "%2Fx", `{}`, 405, "MethodNotAllowed"},                          // a slash is a slash: POST {vm}/{action}
		{"PUT", sub + "/resourceGroups/%E2%84%AA", `{}`, 400, "InvalidResourceName"}, // K of Kelvin folds to k
		{"GET", "/subscriptions/x/resourceGroups", "", 400, "InvalidSubscriptionId"},
		{"PUT", group + "/providers/Microsoft.Storage/storageAccounts/s1", `{}`, 404, "InvalidResourceType"},
		{"POST", vm + "/start", "", 404, "NotFound"},
		{"GET", sub + "/nothing", "", 404, "NotFound"},
		{"DELETE", sub, "", 405, "MethodNotAllowed"},
		{"GET", sub + "/resources?api-version=2024-11-01&$filter=name", "", 400, "InvalidFilterInQueryString"},
		{"GET", sub + "/resources?api-version=2024-11-01&$filter=sideways()", "", 400, "InvalidFilterInQueryString"},
		{"GET", sub + "/resources?api-version=2024-11-01&$skiptoken=*", "", 400, "InvalidQueryParameterValue"},
		{"PUT", site + "x/config/appsettings", `{"properties":{}}`, 404, "ResourceNotFound"},
	} {
		a := w.send(c.method, c.target, c.body)
		if a.Code != c.status || a.text("error", "code") != c.code || a.text("error", "message") == "" {
			t.Errorf("%s %s %.80s: got %d %s, want %d %s", c.method, c.target, c.body, a.Code, a.Body, c.status, c.code)
		}
	}
	if a := w.must("GET", vm, ""); a.text("location") != "local" {
		t.Errorf("a refused request changed the VM: %s", a.Body)
	}
}

func TestAPropertyInOtherCaseIsTheSameProperty(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", site, `{"Kind":"functionapp","Properties":{"RunAs":[1000],"siteconfig":{"HealthCheckPath":"/ok"},"MinimumAssurance":"netns","ConsoleFor":[1001],"MAXGenerationAge":"PT1H30M"}}`)
	r, _ := w.Find(site)
	if r.Kind != "functionapp" || !slices.Equal(r.RunAs(), []uint32{1000}) || r.HealthCheck() != "/ok" || r.MinimumAssurance() != innate.NetNS ||
		!slices.Equal(r.ConsoleFor(), []uint32{1001}) || r.MaxGenerationAge() == nil || *r.MaxGenerationAge() != 90*time.Minute {
		t.Errorf("got %+v", r)
	}
}

func TestAnOldETagIsRefused(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.send("PUT", vm, `{}`, "If-Match", "*").is(412, "PreconditionFailed")
	first := w.send("PUT", vm, `{}`, "If-None-Match", "*").is(201, "").Header().Get("ETag")
	w.send("PUT", vm, `{}`, "If-None-Match", "*").is(412, "PreconditionFailed")
	second := w.send("PATCH", vm, `{"tags":{"a":"b"}}`, "If-Match", first).is(200, "").Header().Get("ETag")
	if got := w.must("GET", vm, "").Header().Get("ETag"); got != second || second == first || second == "" {
		t.Errorf("ETags %s, %s, then %s", first, second, got)
	}
	w.send("PATCH", vm, `{}`, "If-Match", first).is(412, "PreconditionFailed")
	w.send("DELETE", vm, "", "If-Match", first).is(412, "PreconditionFailed")
	w.send("DELETE", vm, "", "If-Match", `"x", `+second).is(200, "")
	if again := w.must("PUT", vm, `{}`).Header().Get("ETag"); again == first {
		t.Error("a new VM of the same name has the old one's ETag")
	}
}

func TestAGroupGoesWithAllThatIsInIt(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", sub+"/resourceGroups/rg10", `{}`) // a shared prefix is not a parent
	w.must("PUT", sub+"/resourceGroups/rg10/providers/Microsoft.Compute/virtualMachines/vm1", `{"properties":{"host":{"id":"`+machine+`"}}}`)
	w.must("PUT", uai, `{}`)
	w.must("PUT", vm, `{"identity":{"type":"UserAssigned","userAssignedIdentities":{"`+uai+`":{}}},"properties":{"host":{"id":"`+machine+`"}}}`)
	own := w.must("PUT", site, `{"identity":{"type":"SystemAssigned"}}`).text("identity", "principalId")
	w.must("PUT", vault, `{}`)
	before := w.assignments()
	w.grantTo(innate.ObjectID(own), access.Reader, group)

	w.must("DELETE", group, "")
	want := []string{vm, machine, vault, uai, site, group}
	slices.Sort(want)
	got := slices.Sorted(slices.Values(w.gone))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("OnDelete: %s", diff)
	}
	if w.object(own) || w.assignments() != before {
		t.Error("the site's principal or its assignment is still there")
	}
	if _, taken := w.VaultByName("kv1"); taken {
		t.Error("the vault's name is still taken")
	}
	if r, ok := w.Find(innate.ResourceID(sub + "/resourceGroups/rg10/providers/Microsoft.Compute/virtualMachines/vm1")); !ok || r.Host() != "" {
		t.Errorf("the VM of the other group: %+v", r)
	}
	if a := w.send("GET", sub+"/resources", ""); !slices.Equal(a.names(), []string{"vm1"}) {
		t.Errorf("left: %v", a.names())
	}
}

func TestAGroupDeletedWhileThingsAreMadeInItLeavesNoOrphan(t *testing.T) {
	w := newWorld(t)
	w.group()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			a := w.send("PUT", fmt.Sprintf("%s%d", vm, i), `{"identity":{"type":"SystemAssigned"}}`)
			if a.Code != 201 && a.Code != 404 {
				t.Errorf("%s: %d %s", a.what, a.Code, a.Body)
			}
		})
	}
	all.Go(func() { w.send("DELETE", group, "").is(200, "") })
	all.Wait()
	if err := w.db.View(t.Context(), func(r store.Reader) error {
		for _, prefix := range []string{"resources/rows/", "resources/referrers/"} {
			for key := range r.Scan(prefix, "") {
				t.Errorf("%s is left", key)
			}
		}
		for key, row := range r.Scan("directory/objects/", "") {
			if strings.Contains(string(row), "ManagedIdentity") {
				t.Errorf("%s is left: %s", key, row)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestOneOfManyTakesAVaultName(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	var won atomic.Int32
	for i := range 6 {
		g := fmt.Sprintf("%s/resourceGroups/g%d", sub, i)
		w.must("PUT", g, `{}`)
		all.Go(func() {
			switch a := w.send("PUT", g+"/providers/Microsoft.KeyVault/vaults/kv1", `{}`); a.Code {
			case 200:
				won.Add(1)
			case 409:
			default:
				t.Errorf("%s: %d %s", a.what, a.Code, a.Body)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d vaults have the name", won.Load())
	}
}

func TestVaultNamesAreUniqueOnThePlatform(t *testing.T) {
	w := newWorld(t)
	w.group()
	var told []string
	w.OnVault(func(name string) { told = append(told, name) })
	a := w.must("PUT", vault, `{"properties":{"accessPolicies":[{"tenantId":"`+tenant+`","objectId":"`+innate.NewGUID()+`","permissions":{"secrets":["get"]}}]}}`)
	for name, want := range map[string]any{
		"vaultUri": "https://kv1.vault.example.org:8443/", "enableRbacAuthorization": true, "enableSoftDelete": true,
		"softDeleteRetentionInDays": 90.0, "tenantId": tenant, "publicNetworkAccess": "Enabled",
	} {
		if got := a.at("properties", name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	if !strings.Contains(a.text("properties", "note"), "count once enableRbacAuthorization is false") {
		t.Errorf("nothing says that the access policy does not count: %s", a.Body)
	}
	w.must("PUT", sub+"/resourceGroups/rg2", `{}`)
	w.send("PUT", sub+"/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/KV1", `{}`).is(409, "VaultAlreadyExists")
	if id, ok := w.VaultByName("Kv1"); !ok || string(id) != vault {
		t.Errorf("VaultByName: %s %t", id, ok)
	}
	if !slices.Equal(told, []string{"kv1"}) {
		t.Errorf("OnVault was told %v", told)
	}
	check := sub + "/providers/Microsoft.KeyVault/checkNameAvailability"
	for name, want := range map[string]any{"KV1": "AlreadyExists", "1": "AccountNameInvalid", "kv2": nil} {
		if a := w.must("POST", check, `{"name":"`+name+`","type":"Microsoft.KeyVault/vaults"}`); a.at("reason") != want || a.at("nameAvailable") != (want == nil) {
			t.Errorf("%s: %s", name, a.Body)
		}
	}
	w.must("DELETE", vault, "")
	again := sub + "/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/KV1"
	w.send("PUT", again, `{}`).is(409, "ConflictError")
	if a := w.must("POST", check, `{"name":"kv1"}`); a.at("reason") != "AlreadyExists" {
		t.Errorf("a deleted vault's name: %s", a.Body)
	}
	w.must("POST", sub+"/providers/Microsoft.KeyVault/locations/local/deletedVaults/kv1/purge", "")
	w.send("PUT", again, `{}`).is(200, "")
}

func TestAppSettingsAreReadOnlyByThoseWhoMayListThem(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", site, `{}`)
	const secret = "Server=db;Password=hunter2"
	w.must("PUT", site+"/config/appsettings", `{"properties":{"DB":"`+secret+`"}}`)
	reader := w.user("reader")
	w.grant(reader, access.Reader, site)
	if a := w.as(reader, "GET", site, "").is(200, ""); strings.Contains(a.Body.String(), "hunter2") {
		t.Errorf("the site shows its settings: %s", a.Body)
	}
	w.as(reader, "POST", site+"/config/appsettings/list", "").is(403, "AuthorizationFailed")
	w.as(reader, "PUT", site+"/config/appsettings", `{}`).is(403, "AuthorizationFailed")
	w.must("PUT", site, `{"tags":{"a":"b"}}`)
	a := w.must("POST", site+"/config/appsettings/list", "")
	if a.text("properties", "DB") != secret || a.text("id") != site+"/config/appsettings" || a.text("type") != "Microsoft.Web/sites/config" {
		t.Errorf("got %s", a.Body)
	}
	for _, name := range []string{"IDENTITY_ENDPOINT", "identity_header", "MSI_SECRET", "", "A=B", "1A", "A B"} {
		w.send("PUT", site+"/config/appsettings", `{"properties":{"`+name+`":"x"}}`).is(400, "InvalidParameter")
	}
	w.send("PUT", site+"/config/appsettings", `{"properties":{"A":"x\u0000"}}`).is(400, "InvalidParameter")
	events, err := json.Marshal(w.changes())
	if err != nil || strings.Contains(string(events), "hunter2") {
		t.Errorf("a setting is in the audit log (%v)", err)
	}
}

func TestEveryChangeLeavesItsEvent(t *testing.T) {
	w := newWorld(t)
	w.group()
	before := len(w.changes())
	own := w.must("PUT", vm, `{"identity":{"type":"SystemAssigned"},"properties":{"host":{"id":"`+machine+`"}}}`).text("identity", "principalId")
	w.must("PATCH", vm, `{"tags":{}}`)
	w.must("DELETE", vm, "")
	w.send("PUT", vm, `{"location":"x\n"}`).is(400, "InvalidRequestContent")
	type event struct {
		Action, Target, Name string
		Detail               map[string]string
	}
	var got []event
	for _, ev := range w.changes()[before:] {
		if !ev.Allowed || ev.Trace == "" {
			t.Errorf("event %+v", ev)
		}
		got = append(got, event{ev.Action, ev.Target, ev.Name, ev.Detail})
	}
	want := []event{
		{"Microsoft.Compute/virtualMachines/write", vm, "owner", map[string]string{"change": "created", "identityOn": own, "placedOn": machine}},
		{"Microsoft.Compute/virtualMachines/write", vm, "owner", map[string]string{"change": "updated"}},
		{"Microsoft.Compute/virtualMachines/delete", vm, "owner", map[string]string{"identityOff": own}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAListOfManyPagesLinksToTheNext(t *testing.T) {
	w := newWorld(t)
	w.group()
	for i := range 7 {
		w.must("PUT", fmt.Sprintf("%s%d", plan, i), `{}`)
	}
	target := sub + "/providers/Microsoft.Web/serverfarms?api-version=2024-11-01&$top=3"
	var got []string
	pages := 0
	for target != "" {
		a := w.must("GET", target, "")
		got = append(got, a.names()...)
		pages++
		target = ""
		if next := a.text("nextLink"); next != "" {
			u, err := url.Parse(next)
			if err != nil || u.Host != "management.example.org" || u.Query().Get("api-version") == "" {
				t.Fatalf("nextLink %s (%v)", next, err)
			}
			target = u.RequestURI()
		}
	}
	want := []string{"plan10", "plan11", "plan12", "plan13", "plan14", "plan15", "plan16"}
	if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
		t.Errorf("%d pages, want 3: %s", pages, diff)
	}
}

func TestActionsReachTheNounThatServesThem(t *testing.T) {
	w := newWorld(t)
	w.group()
	var on innate.ResourceID
	w.config.Actions["microsoft.hybridcompute/machines/join"] = func(rw http.ResponseWriter, r *http.Request, who innate.Principal, r2 *resources.Resource) {
		on = r2.ID
		rw.WriteHeader(http.StatusOK)
	}
	w.send("POST", strings.ToUpper(machine)+"/JOIN", "").is(200, "")
	if string(on) != machine {
		t.Errorf("the action ran on %q", on)
	}
	w.send("POST", machine+"x/join", "").is(404, "ResourceNotFound")
	w.send("POST", machine+"/leave", "").is(404, "NotFound")
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	c := w.config
	c.Access = nil
	if _, err := resources.New(c); err == nil || !strings.Contains(err.Error(), "Access") {
		t.Errorf("got %v", err)
	}
}

// Whatever a client sends, the answer is one that it can read, and what is kept can be read again.
func FuzzPut(f *testing.F) {
	for _, s := range []string{
		`{"location":"local","identity":{"type":"SystemAssigned"},"properties":{"host":{"id":"` + machine + `"}}}`,
		`{"properties":{"runAs":[1],"serverFarmId":null,"workers":[]}}`, `{"tags":null,"sku":null,"identity":null}`, `{"Tags":{"a":"b"}}`,
		`{"identity":{"type":"UserAssigned","userAssignedIdentities":{"` + uai + `":{}}}}`, `{"properties":{"a":{"b":null}}}`, `[`, `null`,
	} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, put, patch string) {
		w := newWorld(t)
		w.group()
		for _, target := range []string{vm, site, plan, vault} {
			for method, body := range map[string]string{"PUT": put, "PATCH": patch} {
				a := w.as(w.owner, method, target, body)
				if a.Code >= 500 || a.Code >= 300 && a.text("error", "code") == "" {
					t.Fatalf("%s %s %q: %d %s", method, target, body, a.Code, a.Body)
				}
			}
			if a := w.send("GET", target, ""); a.Code != 200 && a.Code != 404 {
				t.Fatalf("GET %s after %q, %q: %d %s", target, put, patch, a.Code, a.Body)
			}
		}
	})
}
