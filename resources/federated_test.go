package resources_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/directory"
	"innate/store"
)

const (
	credential = uai + "/federatedIdentityCredentials/main"
	github     = "https://token.actions.githubusercontent.com"
	onMain     = `{"properties":{"issuer":"` + github + `","subject":"repo:contoso/shop:ref:refs/heads/main","audiences":["api://AzureADTokenExchange"]}}`
)

func TestAFederatedCredentialIsMadeReplacedReadAndDeleted(t *testing.T) {
	w := newWorld(t)
	w.group()
	identity := w.must("PUT", uai, `{}`)
	w.send("GET", credential, "").is(404, "NotFound")
	want := map[string]any{
		"id": credential, "name": "main", "type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
		"properties": map[string]any{
			"issuer": github, "subject": "repo:contoso/shop:ref:refs/heads/main", "audiences": []any{"api://AzureADTokenExchange"},
		},
	}
	for _, a := range []answer{
		w.send("PUT", credential, onMain).is(201, ""),
		w.send("PUT", credential, onMain).is(200, ""),
		w.send("PUT", strings.ToUpper(credential), onMain).is(200, ""), // ids are case-blind; the name stays as it was first written
		w.send("GET", strings.ToLower(credential), "").is(200, ""),
	} {
		if diff := cmp.Diff(want, a.body); diff != "" {
			t.Errorf("%s: %s", a.what, diff)
		}
	}
	principal := innate.ObjectID(identity.text("properties", "principalId"))
	if c, ok := w.directory.FederatedExact(principal, github, "repo:contoso/shop:ref:refs/heads/main"); !ok || c.Name != "main" {
		t.Errorf("the directory has %+v (%t)", c, ok)
	}
	w.send("PUT", credential, `{"properties":{"issuer":"`+github+`","audiences":["api://AzureADTokenExchange"],
		"claimsMatchingExpression":{"value":"claims['sub'] matches 'repo:contoso/*'","languageVersion":1}}}`).is(200, "")
	a := w.must("GET", credential, "")
	if a.text("properties", "claimsMatchingExpression", "value") != "claims['sub'] matches 'repo:contoso/*'" || a.at("properties", "subject") != nil {
		t.Errorf("replaced by an expression: %s", a.Body)
	}
	if _, ok := w.directory.FederatedExact(principal, github, "repo:contoso/shop:ref:refs/heads/main"); ok {
		t.Error("the subject that was replaced is still taken")
	}
	w.send("DELETE", credential, "").is(200, "")
	w.send("DELETE", credential, "").is(204, "")
	w.send("GET", credential, "").is(404, "NotFound")
}

func TestBadFederatedCredentialsAreRefusedInARMsWords(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", uai, `{}`)
	w.must("PUT", vm, `{"identity":{"type":"SystemAssigned"}}`)
	w.must("PUT", credential, onMain)
	with := func(old, now string) string { return strings.Replace(onMain, old, now, 1) }
	for _, c := range []struct {
		target, body string
		status       int
		code, says   string
	}{
		{credential, `{}`, 400, "InvalidRequestContent", "no properties"},
		{credential, `{"properties":null}`, 400, "InvalidRequestContent", "no properties"},
		{credential, `{"properties":{}}`, 400, "BadRequest", "audiences"},
		{credential, with(`["api://AzureADTokenExchange"]`, `["a","b"]`), 400, "BadRequest", "exactly one"},
		{credential, with(`["api://AzureADTokenExchange"]`, `"a"`), 400, "InvalidRequestContent", "audiences"},
		{credential, with(`["api://AzureADTokenExchange"]`, `[null]`), 400, "BadRequest", "audience"},
		{credential, with(github, github+"\\u0000"), 400, "BadRequest", "control character"},
		{credential, with(github, ""), 400, "BadRequest", "issuer"},
		{credential, with("https:", "http:"), 400, "BadRequest", "https"},
		{credential, with(`"subject":"repo:contoso/shop:ref:refs/heads/main",`, ""), 400, "BadRequest", "subject"},
		{credential, with(`"subject"`, `"claimsMatchingExpression":{"value":"claims['sub'] eq 'x'","languageVersion":1},"subject"`), 400, "BadRequest", "both"},
		{credential, with(`"subject":"repo:contoso/shop:ref:refs/heads/main"`, `"claimsMatchingExpression":{"value":"claims['sub'] eq 'x'","languageVersion":2}`), 400, "BadRequest", "languageVersion"},
		{credential, with(`"subject":"repo:contoso/shop:ref:refs/heads/main"`, `"claimsMatchingExpression":{"value":"anything","languageVersion":1}`), 400, "BadRequest", "claimsMatchingExpression"},
		{uai + "/federatedIdentityCredentials/ab", onMain, 400, "BadRequest", "3 to 120"},
		{uai + "/federatedIdentityCredentials/a%20b", onMain, 400, "BadRequest", "3 to 120"},
		{uai + "/federatedIdentityCredentials/other", onMain, 409, "Conflict", "'main'"}, // who would it be?
		{strings.Replace(credential, "id1", "id2", 1), onMain, 404, "ResourceNotFound", "id2"},
		{strings.Replace(credential, "rg1", "rg2", 1), onMain, 404, "ResourceNotFound", "rg2"},
		// A system-assigned identity is proved by where it runs, and by nothing else.
		{vm + "/federatedIdentityCredentials/main", onMain, 404, "NotFound", "only user-assigned identities"},
	} {
		if a := w.send("PUT", c.target, c.body).is(c.status, c.code); !strings.Contains(a.text("error", "message"), c.says) {
			t.Errorf("%s %s: %q does not say %q", a.what, c.body, a.text("error", "message"), c.says)
		}
	}
	gone := strings.Replace(credential, "id1", "id2", 1)
	w.send("GET", gone, "").is(404, "ResourceNotFound")
	w.send("DELETE", gone, "").is(404, "ResourceNotFound")
	w.send("GET", strings.TrimSuffix(gone, "/main"), "").is(404, "ResourceNotFound")
	w.send("PATCH", credential, onMain).is(405, "MethodNotAllowed")
	if names := w.must("GET", strings.TrimSuffix(credential, "/main"), "").names(); !cmp.Equal(names, []string{"main"}) {
		t.Errorf("the refused left %q", names)
	}
}

func TestFederatedCredentialsTakeTheirOwnRights(t *testing.T) {
	const rights = "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/"
	w := newWorld(t)
	w.group()
	w.must("PUT", uai, `{}`)
	mallory := w.user("mallory")
	refused := func(method, target, right string) {
		t.Helper()
		a := w.as(mallory, method, target, onMain).is(403, "AuthorizationFailed")
		if !strings.Contains(a.text("error", "message"), rights+right) {
			t.Errorf("%s: the refusal does not name %s: %s", a.what, right, a.Body)
		}
	}
	all := strings.TrimSuffix(credential, "/main")
	refused("GET", all, "read")
	refused("GET", credential, "read")
	refused("PUT", credential, "write")
	refused("DELETE", credential, "delete")
	refused("PUT", strings.Replace(credential, "id1", "id9", 1), "write") // and learns nothing of what exists

	w.grant(mallory, access.Reader, uai)
	w.as(mallory, "GET", all, "").is(200, "")
	refused("PUT", credential, "write")
	// Using an identity is not saying who else may be it.
	w.grant(mallory, access.ManagedIdentityOperator, uai)
	refused("PUT", credential, "write")
	w.grant(mallory, access.Contributor, uai)
	w.as(mallory, "PUT", credential, onMain).is(201, "")
	w.as(mallory, "DELETE", credential, "").is(200, "")
}

func TestFederatedCredentialsLeaveTheirEventsInTheTransaction(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", uai, `{}`)
	before := len(w.changes())
	w.must("PUT", credential, onMain)
	w.must("PUT", credential, strings.Replace(onMain, "heads/main", "heads/next", 1))
	w.must("DELETE", credential, "")
	w.send("DELETE", credential, "").is(204, "")
	var got []string
	for _, ev := range w.changes()[before:] {
		got = append(got, fmt.Sprint(ev.Action[strings.LastIndexByte(ev.Action, '/')+1:], " ", ev.Target == credential, " ", ev.Detail["change"], " ", ev.Detail["subject"]))
	}
	want := []string{
		"write true created repo:contoso/shop:ref:refs/heads/main",
		"write true updated repo:contoso/shop:ref:refs/heads/next",
		"delete true  ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Azure stops at 20.
func TestTenThousandFederatedCredentialsAreListedInPages(t *testing.T) {
	w := newWorld(t)
	w.group()
	principal := innate.ObjectID(w.must("PUT", uai, `{}`).text("properties", "principalId"))
	const n = 10_000
	for first := 0; first < n; first += 1000 {
		w.do(func(tx store.Tx) error {
			for i := first; i < first+1000; i++ {
				if _, _, err := directory.PutFederated(tx, directory.FederatedCredential{
					Principal: principal, Name: fmt.Sprintf("C-%05d", i), Issuer: github,
					Subject: fmt.Sprint("repo:contoso/r", i), Audience: directory.FederatedAudience,
				}, w.now); err != nil {
					return err
				}
			}
			return nil
		})
	}
	w.must("PUT", credential, onMain) // the next is as good as the first
	seen := map[string]bool{}
	pages := 0
	for next := uai + "/federatedIdentityCredentials?api-version=2024-11-30"; next != ""; pages++ {
		a := w.must("GET", next, "")
		for _, name := range a.names() {
			seen[name] = true
		}
		next = ""
		if link := a.text("nextLink"); link != "" {
			u, err := url.Parse(link)
			if err != nil || u.Query().Get("api-version") != "2024-11-30" {
				t.Fatalf("nextLink %q: %v", link, err)
			}
			next = u.RequestURI()
		}
	}
	if len(seen) != n+1 || pages != 21 {
		t.Errorf("%d credentials on %d pages, want %d on 21", len(seen), pages, n+1)
	}
	if a := w.must("GET", uai+"/federatedIdentityCredentials?api-version=2024-11-30&$top=2", ""); len(a.names()) != 2 || a.text("nextLink") == "" {
		t.Errorf("$top=2: %s", a.Body)
	}
}

func TestADeletedIdentityLeavesNoFederatedCredential(t *testing.T) {
	w := newWorld(t)
	w.group()
	principal := w.must("PUT", uai, `{}`).text("properties", "principalId")
	w.must("PUT", credential, onMain)
	rows := func() (keys []string) {
		t.Helper()
		if err := w.db.View(t.Context(), func(r store.Reader) error {
			for key, row := range r.Scan("", "") {
				if !strings.HasPrefix(key, audit.OutboxPrefix) && strings.Contains(key+string(row), principal) {
					keys = append(keys, key)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if len(rows()) == 0 {
		t.Fatal("the scan does not see what is there")
	}
	w.must("DELETE", uai, "")
	if left := rows(); len(left) > 0 {
		t.Errorf("left in the store: %q", left)
	}
	w.must("PUT", uai, `{}`)
	w.send("GET", credential, "").is(404, "NotFound") // the next of that name trusts nobody
}
