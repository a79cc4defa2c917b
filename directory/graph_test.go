package directory_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/store"
)

func TestAManagedIdentityShowsWhereItLivesAndWhatItHolds(t *testing.T) {
	w := newWorld(t)
	o := w.identity("vm1", vm1, false)
	w.do(func(tx store.Tx) error {
		return directory.AddKey(tx, directory.Key{
			Thumbprint: strings.Repeat("ab", 32), Principal: o.ID, Hosting: vm1, Host: h1,
			NotBefore: start, NotAfter: start.Add(24 * time.Hour),
		}, start)
	})
	got := w.want(200, admin, "GET", "/v1.0/servicePrincipals/"+string(o.ID), nil)
	want := map[string]any{
		"@odata.context": "https://graph.example.org/v1.0/$metadata#servicePrincipals/$entity",
		"id":             string(o.ID), "appId": string(o.Client), "displayName": "vm1",
		"servicePrincipalType":  "ManagedIdentity",
		"alternativeNames":      []any{"isExplicit=False", string(vm1)},
		"servicePrincipalNames": []any{string(o.Client)},
		"accountEnabled":        true, "appOwnerOrganizationId": "tttttttt", "createdDateTime": "2026-11-23T12:00:00Z",
		"keyCredentials": []any{map[string]any{
			"type": "AsymmetricX509Cert", "usage": "Verify", "customKeyIdentifier": strings.Repeat("ab", 32),
			"displayName": fmt.Sprintf("%s on %s", vm1, h1), "startDateTime": "2026-11-23T12:00:00Z", "endDateTime": "2026-11-24T12:00:00Z",
		}},
		"passwordCredentials": []any{}, "tags": []any{}, "appRoles": []any{}, "appRoleAssignmentRequired": false, "oauth2PermissionScopes": []any{},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	shared := w.identity("shared", vm1, true)
	got = w.want(200, admin, "GET", "/v1.0/servicePrincipals/"+string(shared.ID), nil)
	if names := got["alternativeNames"].([]any); names[0] != "isExplicit=True" {
		t.Errorf("a user-assigned identity has alternativeNames %v", names)
	}
}

func TestAManagedIdentityGoesOnlyWithItsResource(t *testing.T) {
	w := newWorld(t)
	o := w.identity("vm1", vm1, false)
	answer := w.want(400, admin, "DELETE", "/v1.0/servicePrincipals/"+string(o.ID), nil)
	if message := answer["error"].(map[string]any)["message"].(string); !strings.Contains(message, string(vm1)) {
		t.Errorf("the refusal does not name the resource: %s", message)
	}
	if _, ok := w.Object(o.ID); !ok {
		t.Error("it is gone")
	}
}

func TestOneReadsOneselfAndEditorsReadAndWriteAll(t *testing.T) {
	w := newWorld(t)
	me, other := w.identity("me", vm1, false), w.identity("other", vm1, false)
	app, _ := w.application("orders")
	g := w.group("g", me.ID)
	who := innate.Principal{Object: me.ID, Client: me.Client, Name: "me"}
	for _, c := range []struct {
		status         int
		method, target string
		body           any
	}{
		{200, "GET", "/v1.0/me", nil},
		{200, "GET", "/v1.0/servicePrincipals/" + string(me.ID), nil},
		{200, "GET", "/beta/ServicePrincipals(appId='" + string(me.Client) + "')", nil},
		{200, "POST", "/v1.0/directoryObjects/getByIds", map[string]any{"ids": []any{me.ID}}},
		{403, "POST", "/v1.0/directoryObjects/getByIds", map[string]any{"ids": []any{me.ID, other.ID}}},
		{403, "GET", "/v1.0/servicePrincipals/" + string(other.ID), nil},
		{403, "GET", "/v1.0/servicePrincipals(appId='" + string(other.Client) + "')", nil},
		{403, "GET", "/v1.0/servicePrincipals", nil},
		{403, "GET", "/v1.0/servicePrincipals/11111111-1111-1111-1111-111111111111", nil}, // existing or not: one answer
		{403, "PATCH", "/v1.0/servicePrincipals/" + string(me.ID), map[string]any{"accountEnabled": false}},
		{403, "DELETE", "/v1.0/servicePrincipals/" + string(other.ID), nil},
		{403, "POST", "/v1.0/servicePrincipals", map[string]any{"appId": app.Client}},
		{403, "GET", "/v1.0/applications", nil},
		{403, "GET", "/v1.0/applications/" + string(app.ID), nil},
		{403, "POST", "/v1.0/applications", map[string]any{"displayName": "x"}},
		{403, "PATCH", "/v1.0/applications/" + string(app.ID), map[string]any{"displayName": "x"}},
		{403, "POST", "/v1.0/applications/" + string(app.ID) + "/addPassword", map[string]any{}},
		{403, "POST", "/v1.0/applications/" + string(app.ID) + "/addKey", map[string]any{}},
		{403, "POST", "/v1.0/applications/" + string(app.ID) + "/removeKey", map[string]any{}},
		{403, "POST", "/v1.0/applications/" + string(app.ID) + "/removePassword", map[string]any{"keyId": "x"}},
		{403, "DELETE", "/v1.0/applications/" + string(app.ID), nil},
		{403, "GET", "/v1.0/users", nil},
		{403, "GET", "/v1.0/users/a@example.org", nil},
		{403, "POST", "/v1.0/users", map[string]any{"displayName": "x", "userPrincipalName": "x@y"}},
		{403, "DELETE", "/v1.0/users/a@example.org", nil},
		{403, "GET", "/v1.0/groups/" + string(g.ID), nil},
		{403, "GET", "/v1.0/groups/" + string(g.ID) + "/members", nil},
		{403, "POST", "/v1.0/groups", map[string]any{"displayName": "x"}},
		{403, "DELETE", "/v1.0/groups/" + string(g.ID), nil},
		{403, "POST", "/v1.0/groups/" + string(g.ID) + "/members/$ref", map[string]any{"@odata.id": "x/" + string(other.ID)}},
		{403, "DELETE", "/v1.0/groups/" + string(g.ID) + "/members/" + string(me.ID) + "/$ref", nil},
	} {
		answer := w.want(c.status, who, c.method, c.target, c.body)
		if c.status == 403 && code(answer) != "Authorization_RequestDenied" {
			t.Errorf("%s %s: code %v", c.method, c.target, code(answer))
		}
	}
	if len(w.events()) != 0 {
		t.Errorf("something was changed: %v", w.events())
	}
	w.want(401, innate.Principal{}, "GET", "/v1.0/nowhere", nil)
}

func TestAnApplicationFromRegistrationToRemoval(t *testing.T) {
	w := newWorld(t)
	app := w.want(201, admin, "POST", "/v1.0/applications", map[string]any{
		"displayName": "orders", "identifierUris": []string{"api://orders"}, "api": map[string]any{"requestedAccessTokenVersion": 2},
		"owners@odata.bind": []string{"https://graph.example.org/v1.0/directoryObjects/x"}, "signInAudience": "AzureADMyOrg",
	})
	id, client := app["id"].(string), app["appId"].(string)
	r, ok := w.Audience("api://orders")
	if !ok || string(r.Client) != client || r.TokenVersion != 2 {
		t.Fatalf("the registration is %+v, %v", r, ok)
	}
	sp := w.want(200, admin, "GET", "/v1.0/servicePrincipals(appId='"+client+"')", nil)
	if sp["servicePrincipalType"] != "Application" || !slices.Contains(sp["servicePrincipalNames"].([]any), "api://orders") {
		t.Errorf("its service principal is %v", sp)
	}
	if answer := w.want(409, admin, "POST", "/v1.0/servicePrincipals", map[string]any{"appId": client}); code(answer) != "Request_MultipleObjectsWithSameKeyValue" {
		t.Errorf("a second service principal: %v", answer)
	}
	w.want(400, admin, "POST", "/v1.0/servicePrincipals", map[string]any{"appId": "no-such"})

	secret := w.want(200, admin, "POST", "/v1.0/applications/"+id+"/addPassword", map[string]any{"passwordCredential": map[string]any{"displayName": "ci"}})
	text := secret["secretText"].(string)
	r, _ = w.Registration(innate.ClientID(client))
	if ok, _ := r.Secrets[0].Matches(r.Client, text, start); !ok {
		t.Error("the secret that was shown does not match the one that is kept")
	}
	shown := w.want(200, admin, "GET", "/v1.0/applications/"+id, nil)
	listed := shown["passwordCredentials"].([]any)[0].(map[string]any)
	if listed["secretText"] != nil || listed["hint"] != text[:3] || listed["keyId"] != secret["keyId"] {
		t.Errorf("the secret is listed as %v", listed)
	}
	w.want(204, admin, "POST", "/v1.0/applications/"+id+"/removePassword", map[string]any{"keyId": secret["keyId"]})
	w.want(400, admin, "POST", "/v1.0/applications/"+id+"/removePassword", map[string]any{"keyId": secret["keyId"]})

	w.want(204, admin, "PATCH", "/v1.0/applications/"+id, map[string]any{"displayName": "orders-2", "identifierUris": []string{"api://orders2"}})
	if o, _ := w.ByClient(innate.ClientID(client)); o.Name != "orders-2" {
		t.Errorf("its service principal is still called %s", o.Name)
	}
	if _, ok := w.Audience("api://orders"); ok {
		t.Error("the URI that was taken away still names it")
	}
	w.want(204, admin, "DELETE", "/v1.0/applications/"+id, nil)
	w.want(404, admin, "GET", "/v1.0/applications/"+id, nil)
	w.want(404, admin, "GET", "/v1.0/servicePrincipals/"+sp["id"].(string), nil)

	for _, ev := range w.events() {
		if strings.Contains(fmt.Sprint(ev), text) {
			t.Errorf("the secret is in the audit event %v", ev)
		}
		if ev.Principal != admin.Object || !ev.Allowed {
			t.Errorf("the event does not say who did it: %+v", ev)
		}
	}
	if got := len(w.events()); got != 5 {
		t.Errorf("%d events were left for 5 changes", got)
	}
}

// selfSigned is a certificate (DER) with that key.
func selfSigned(t *testing.T, public, private any) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader,
		&x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: start, NotAfter: start.Add(time.Hour)},
		&x509.Certificate{SerialNumber: big.NewInt(1)}, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCertificatesOfAnApplication(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := selfSigned(t, ec.Public(), ec)
	other := selfSigned(t, ec.Public(), ec)
	target := "/v1.0/applications/" + string(app.ID)
	certificates := func() (ids []string) {
		r, _ := w.Registration(app.Client)
		for _, c := range r.Certificates {
			ids = append(ids, c.KeyID)
		}
		return ids
	}
	keys := func(entries ...map[string]any) map[string]any { return map[string]any{"keyCredentials": entries} }
	key := func(der []byte) map[string]any {
		return map[string]any{"key": base64.StdEncoding.EncodeToString(der), "type": "AsymmetricX509Cert", "usage": "Verify"}
	}
	w.want(204, admin, "PATCH", target, keys(key(good)))
	listed := w.want(200, admin, "GET", target, nil)["keyCredentials"].([]any)[0].(map[string]any)
	sum := sha256.Sum256(good)
	if listed["customKeyIdentifier"] != hex.EncodeToString(sum[:]) || listed["key"] != nil {
		t.Errorf("the certificate is listed as %v", listed)
	}
	w.want(204, admin, "PATCH", target, keys(map[string]any{"keyId": listed["keyId"]}, key(good)))
	if r, _ := w.Registration(app.Client); len(r.Certificates) != 2 {
		t.Errorf("%d certificates are there, want the kept one and the new one", len(r.Certificates))
	}
	for name, body := range map[string]any{
		"garbage":         keys(key([]byte("garbage"))),
		"Ed25519":         keys(key(selfSigned(t, ed.Public(), ed))),
		"a small RSA key": keys(key(selfSigned(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 1023), E: 65537}, ec))),
		"a huge RSA key":  keys(key(selfSigned(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8192), E: 65537}, ec))),
		"P-384":           keys(key(selfSigned(t, p384.Public(), p384))), // ES256 is by P-256
		"no key":          keys(map[string]any{"keyId": "no-such"}),
		"no base64":       keys(map[string]any{"key": "%%%"}),
		"too many":        map[string]any{"keyCredentials": slices.Repeat([]map[string]any{key(good)}, 51)},
	} {
		if status, answer := w.ask(admin, "PATCH", target, body); status != 400 {
			t.Errorf("%s: got %d %v, want 400", name, status, answer)
		}
	}
	if r, _ := w.Registration(app.Client); len(r.Certificates) != 2 {
		t.Errorf("a refused PATCH left %d certificates, want 2", len(r.Certificates))
	}

	// One at a time, whatever others add meanwhile.
	kept := certificates()
	one := map[string]any{"keyCredential": map[string]any{"key": base64.StdEncoding.EncodeToString(other), "displayName": "ci"}, "proof": "any"}
	added := w.want(200, admin, "POST", target+"/addKey", one)
	if again := w.want(200, admin, "POST", target+"/addKey", one); added["displayName"] != "ci" || again["keyId"] != added["keyId"] {
		t.Errorf("a certificate was added as %v and again as %v, want it once", added, again)
	}
	if now := certificates(); len(now) != 3 || now[2] != added["keyId"] {
		t.Errorf("after addKey: %q", now)
	}
	for action, body := range map[string]any{
		"addKey":    map[string]any{"keyCredential": map[string]any{"displayName": "ci"}},
		"removeKey": map[string]any{"keyId": "no-such"},
	} {
		if status, answer := w.ask(admin, "POST", target+"/"+action, body); status != 400 {
			t.Errorf("%s of nothing: got %d %v, want 400", action, status, answer)
		}
	}
	w.want(204, admin, "POST", target+"/removeKey", map[string]any{"keyId": strings.ToUpper(fmt.Sprint(added["keyId"]))})
	if now := certificates(); !slices.Equal(now, kept) {
		t.Errorf("after removeKey: %q, want %q", now, kept)
	}

	w.want(204, admin, "PATCH", target, map[string]any{"keyCredentials": []any{}})
	if r, _ := w.Registration(app.Client); len(r.Certificates) != 0 {
		t.Errorf("an empty keyCredentials left %d certificates", len(r.Certificates))
	}
}

func TestNobodyRegistersAServiceOfThePlatform(t *testing.T) {
	w := newWorld(t)
	w.want(409, admin, "POST", "/v1.0/applications", map[string]any{"displayName": "x", "identifierUris": []string{"https://vault.example.org"}})
}

func TestDisablingIsHeardAndRecorded(t *testing.T) {
	w := newWorld(t)
	o := w.identity("vm1", vm1, false)
	for range 2 { // the second changes nothing
		w.want(204, admin, "PATCH", "/v1.0/servicePrincipals/"+string(o.ID), map[string]any{"accountEnabled": false})
	}
	if got, _ := w.Object(o.ID); got.Enabled {
		t.Error("it is still enabled")
	}
	if len(w.enabled) != 1 || w.enabled[0].Enabled || len(w.events()) != 1 {
		t.Errorf("OnEnable heard %v, events are %v", w.enabled, w.events())
	}
	w.want(400, admin, "PATCH", "/v1.0/servicePrincipals/"+string(o.ID), map[string]any{"displayName": "x"})
	if err := w.SetEnabled(t.Context(), nobody, o.ID, true); err == nil {
		t.Error("somebody who may not edit enabled it")
	}
}

func TestUsersAndGroups(t *testing.T) {
	w := newWorld(t)
	u := w.want(201, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Ann", "userPrincipalName": "Ann@example.org", "accountEnabled": true})
	w.want(409, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Ann 2", "userPrincipalName": "ann@EXAMPLE.org"})
	w.want(400, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Bob", "userPrincipalName": "b@c", "passwordProfile": map[string]any{"password": "x"}})
	if got := w.want(200, admin, "GET", "/v1.0/users/ANN@example.org", nil); got["id"] != u["id"] {
		t.Errorf("by userPrincipalName: %v", got)
	}
	id := u["id"].(string)
	g := w.want(201, admin, "POST", "/beta/groups", map[string]any{"displayName": "ops", "securityEnabled": true})["id"].(string)
	members := "/beta/groups/" + g + "/members"
	ref := map[string]any{"@odata.id": "https://graph.example.org/beta/directoryObjects/" + id}
	w.want(204, admin, "POST", members+"/$ref", ref)
	w.want(400, admin, "POST", members+"/$ref", ref)
	w.want(404, admin, "POST", members+"/$ref", map[string]any{"@odata.id": "x/11111111-1111-1111-1111-111111111111"})
	w.want(400, admin, "POST", members+"/$ref", map[string]any{"@odata.id": "no-guid"})
	w.want(400, admin, "POST", "/beta/groups/"+id+"/members/$ref", map[string]any{"@odata.id": "x/" + g}) // a user has no members
	got := w.want(200, admin, "GET", members+"?$filter="+url.QueryEscape("id eq '"+id+"'"), nil)
	if diff := cmp.Diff([]string{"Ann"}, names(got)); diff != "" {
		t.Errorf("members (-want +got)\n%s", diff)
	}
	if kind := got["value"].([]any)[0].(map[string]any)["@odata.type"]; kind != "#microsoft.graph.user" {
		t.Errorf("the member is a %v", kind)
	}
	w.want(204, admin, "DELETE", members+"/"+id+"/$ref", nil)
	w.want(404, admin, "DELETE", members+"/"+id+"/$ref", nil)
	w.want(204, admin, "DELETE", "/v1.0/groups/"+g, nil)
	w.want(204, admin, "DELETE", "/v1.0/users/ann@example.org", nil)
	w.want(404, admin, "GET", "/v1.0/users/"+id, nil)
}

func TestFiltersThatClientsSend(t *testing.T) {
	w := newWorld(t)
	vm := w.identity("web-1", vm1, false)
	w.identity("o'brien", vm1, true)
	app, _ := w.application("orders", "api://orders")
	for _, c := range []struct {
		filter string
		want   []string
	}{
		{"appId eq '" + string(app.Client) + "'", []string{"orders"}},
		{"displayName eq 'O''Brien'", []string{"o'brien"}},
		{"startswith(displayName,'WEB')", []string{"web-1"}},
		{"servicePrincipalNames/any(c:c eq 'api://orders')", []string{"orders"}},
		{"servicePrincipalNames/any(c:c eq '" + string(vm.Client) + "')", []string{"web-1"}},
		{"servicePrincipalType eq 'ManagedIdentity'", []string{"o'brien", "web-1"}},
		{"alternativeNames/any(x:x eq 'isExplicit=True')", []string{"o'brien"}},
		{"servicePrincipalType eq 'Application' and displayName eq 'web-1'", []string{}},
		{"", []string{"o'brien", "orders", "web-1"}},
	} {
		got := names(w.want(200, admin, "GET", "/v1.0/servicePrincipals?$filter="+url.QueryEscape(c.filter), nil))
		slices.Sort(got)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.filter, diff)
		}
	}
	for _, bad := range []string{"mailNickname eq 'x'", "displayName eq", "length(displayName) eq 3", "'"} {
		w.want(400, admin, "GET", "/v1.0/servicePrincipals?$filter="+url.QueryEscape(bad), nil)
	}
	w.want(400, admin, "GET", "/v1.0/servicePrincipals?$search=x", nil)
}

func TestListsArePagedByAbsoluteLinks(t *testing.T) {
	w := newWorld(t)
	for i := range 5 {
		w.group(fmt.Sprint("g", i))
	}
	var all []string
	pages := 0
	for target := "https://graph.example.org/v1.0/groups?$top=2"; target != ""; pages++ {
		answer := w.want(200, admin, "GET", target, nil)
		all = append(all, names(answer)...)
		target, _ = answer["@odata.nextLink"].(string)
		if target != "" && !strings.HasPrefix(target, "https://graph.example.org/v1.0/groups?") {
			t.Fatalf("nextLink %s is not absolute and on the host that was called", target)
		}
	}
	slices.Sort(all)
	if diff := cmp.Diff([]string{"g0", "g1", "g2", "g3", "g4"}, all); diff != "" || pages != 3 {
		t.Errorf("%d pages, want 3; (-want +got)\n%s", pages, diff)
	}
}

func TestGetByIDsLeavesOutWhatIsUnknownOrUnwanted(t *testing.T) {
	w := newWorld(t)
	vm, g := w.identity("vm", vm1, false), w.group("g")
	ask := func(types ...string) []string {
		return names(w.want(200, admin, "POST", "/v1.0/directoryObjects/getByIds", map[string]any{
			"ids": []string{strings.ToUpper(string(vm.ID)), string(g.ID), "11111111-1111-1111-1111-111111111111"}, "types": types,
		}))
	}
	if diff := cmp.Diff([]string{"vm", "g"}, ask()); diff != "" {
		t.Errorf("any type (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"vm"}, ask("user", "servicePrincipal")); diff != "" {
		t.Errorf("users and service principals (-want +got)\n%s", diff)
	}
}

func TestBadInputIsAnsweredInGraphsShape(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	target := "/v1.0/applications/" + string(app.ID)
	for _, c := range []struct {
		status         int
		method, target string
		body           any
	}{
		{404, "GET", "/v1.0/organization", nil},
		{404, "GET", "/v2.0/users", nil},
		{404, "PUT", "/v1.0/users", nil},
		{404, "GET", "/", nil},
		{404, "GET", "/v1.0/users/11111111-1111-1111-1111-111111111111", nil},
		{404, "GET", "/v1.0/servicePrincipals(appId='x')", nil},
		{404, "GET", "/v1.0/applications/%00", nil},
		{400, "POST", "/v1.0/groups", "{"},
		{400, "POST", "/v1.0/groups", `{"displayName":"a","displayName":"b"}`},
		{400, "POST", "/v1.0/groups", `[]`},
		{400, "POST", "/v1.0/groups", map[string]any{}},
		{400, "POST", "/v1.0/applications", map[string]any{"displayName": "x", "api": map[string]any{"requestedAccessTokenVersion": 3}}},
		{400, "POST", "/v1.0/applications", map[string]any{"displayName": "x", "identifierUris": slices.Repeat([]string{"api://x"}, 51)}},
		{400, "POST", target + "/addPassword", map[string]any{"passwordCredential": map[string]any{"endDateTime": "2020-01-01T00:00:00Z"}}},
		{400, "POST", target + "/addPassword", map[string]any{"passwordCredential": map[string]any{"endDateTime": "tomorrow"}}},
		{400, "POST", target + "/addKey", map[string]any{}},
		{400, "POST", target + "/addKey", map[string]any{"keyCredential": map[string]any{"key": "AA==", "displayName": strings.Repeat("x", 300)}}},
		{400, "POST", target + "/addKey", map[string]any{"keyCredential": map[string]any{"key": 7}}},
		{400, "POST", target + "/removeKey", map[string]any{"keyId": ""}},
		{400, "POST", target + "/removePassword", map[string]any{"keyId": []string{"x"}}},
		{404, "POST", "/v1.0/applications/11111111-1111-1111-1111-111111111111/addKey", map[string]any{}},
		{404, "POST", "/v1.0/applications/11111111-1111-1111-1111-111111111111/removeKey", map[string]any{"keyId": "x"}},
		{400, "POST", "/v1.0/users", map[string]any{"displayName": "x", "userPrincipalName": "no-at"}},
		{400, "POST", "/v1.0/users", map[string]any{"displayName": "x", "userPrincipalName": "a@b@c"}},
		{400, "POST", "/v1.0/users", map[string]any{"displayName": "x", "userPrincipalName": "a/b@c"}},
		{400, "POST", "/v1.0/users", map[string]any{"displayName": "x", "userPrincipalName": "a@c", "accountEnabled": false}},
		{400, "POST", "/v1.0/directoryObjects/getByIds", map[string]any{"ids": []string{}}},
		{400, "GET", "/v1.0/users?$top=x", nil},
	} {
		status, answer := w.ask(admin, c.method, c.target, c.body)
		if status != c.status || code(answer) == nil {
			t.Errorf("%s %s %v: got %d %v, want %d in Graph's envelope", c.method, c.target, c.body, status, answer, c.status)
		}
	}
}

func FuzzGraph(f *testing.F) {
	f.Add("GET", "/v1.0/servicePrincipals(appId='x')", "$filter=appId eq 'x'", "")
	f.Add("POST", "/beta/groups", "", `{"displayName":"x"}`)
	f.Add("POST", "/v1.0/applications", "", `{"displayName":"x","identifierUris":["api://a/b?c"],"keyCredentials":[{"key":"AA=="}]}`)
	f.Add("POST", "/v1.0/applications(appid='11111111-1111-1111-1111-111111111111')/addKey", "", `{"keyCredential":{"key":"AA==","displayName":"\u0000"},"proof":null}`)
	f.Add("POST", "/v1.0/applications(appid='11111111-1111-1111-1111-111111111111')/removeKey", "", `{"keyId":null}`)
	f.Add("POST", "/v1.0/directoryobjects/getbyids", "", `{"ids":["\u0000"]}`)
	f.Add("POST", "/v1.0/applications", "", `{"displayName":"x","appRoles":[{"id":null}],"groupMembershipClaims":[],"optionalClaims":{"accessToken":[null]}}`)
	f.Add("PATCH", "/v1.0/applications(appid='11111111-1111-1111-1111-111111111111')/federatedIdentityCredentials(name='one')", "", `{"subject":null,"claimsMatchingExpression":{"value":"claims['sub']"}}`)
	f.Add("POST", "/v1.0/applications(appid='11111111-1111-1111-1111-111111111111')/federatedIdentityCredentials", "", `{"name":"two","issuer":"https://a/","subject":"b","audiences":["c"]}`)
	f.Add("POST", "/v1.0/servicePrincipals(appid='11111111-1111-1111-1111-111111111111')/appRoleAssignedTo", "", `{"appRoleId":"00000000-0000-0000-0000-000000000000","principalId":"11111111-1111-1111-1111-111111111111"}`)
	f.Add("DELETE", "/v1.0/servicePrincipals(appid='11111111-1111-1111-1111-111111111111')/appRoleAssignedTo/a.b.c", "", "")
	f.Add("POST", "/v1.0/groups/x/appRoleAssignments", "", `{"appRoleId":"","principalId":"\u0000"}`)
	f.Add("GET", "/v1.0/users/a@b/transitiveMemberOf", "$filter=id eq 'x'", "")
	f.Fuzz(func(t *testing.T, method, path, query, body string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Host: "graph.example.org", Header: http.Header{}}
		w := newWorld(t)
		w.do(func(tx store.Tx) error {
			_, sp, err := directory.CreateRegistration(tx, directory.Registration{Name: "orders", Client: "11111111-1111-1111-1111-111111111111"}, start)
			if err != nil {
				return err
			}
			c := numbered(sp.ID, 1)
			c.Name = "one"
			_, _, err = directory.PutFederated(tx, c, start)
			return err
		})
		status := w.serve(r, body)
		if status >= 500 || status < 200 {
			t.Errorf("%s %q?%q %q: %d", method, path, query, body, status)
		}
	})
}
