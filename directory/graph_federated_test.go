package directory_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/store"
)

// github is the body of a federated credential for a repository's main branch.
func github(name, repo string) map[string]any {
	return map[string]any{
		"name": name, "issuer": "https://token.actions.githubusercontent.com", "subject": "repo:" + repo + ":ref:refs/heads/main",
		"audiences": []string{directory.FederatedAudience}, "description": "pushes",
	}
}

// with is body with some properties changed; a value of absent leaves one out.
func with(body map[string]any, changes map[string]any) map[string]any {
	now := map[string]any{}
	for _, from := range []map[string]any{body, changes} {
		for name, v := range from {
			if now[name] = v; v == absent {
				delete(now, name)
			}
		}
	}
	return now
}

var absent = any("absent")

func TestAFederatedCredentialFromItsMakingToItsEnd(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders")
	set := "/v1.0/applications/" + string(app.ID) + "/federatedIdentityCredentials"
	made := w.want(201, admin, "POST", set, github("Main", "contoso/orders"))
	context := "https://graph.example.org/v1.0/$metadata#applications('" + string(app.ID) + "')/federatedIdentityCredentials"
	want := map[string]any{
		"@odata.context": context + "/$entity", "id": made["id"], "name": "Main",
		"issuer": "https://token.actions.githubusercontent.com", "subject": "repo:contoso/orders:ref:refs/heads/main",
		"audiences": []any{"api://AzureADTokenExchange"}, "description": "pushes", "claimsMatchingExpression": nil,
	}
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("made (-want +got)\n%s", diff)
	}
	id := made["id"].(string)
	byApp := "/beta/applications(appId='" + string(app.Client) + "')/federatedIdentityCredentials"
	for _, target := range []string{set + "/" + id, set + "/main", set + "(name='MAIN')", byApp + "/" + strings.ToUpper(id)} {
		if diff := cmp.Diff(want, w.want(200, admin, "GET", target, nil)); diff != "" {
			t.Errorf("GET %s (-want +got)\n%s", target, diff)
		}
	}
	listed := w.want(200, admin, "GET", byApp, nil)
	delete(want, "@odata.context")
	if diff := cmp.Diff(map[string]any{"@odata.context": context, "value": []any{want}}, listed); diff != "" {
		t.Errorf("listed (-want +got)\n%s", diff)
	}

	w.want(204, admin, "PATCH", set+"/main", map[string]any{"name": "Main", "issuer": "https://issuer.example.org/a"})
	kept, ok := w.FederatedExact(sp.ID, "https://issuer.example.org/a", "repo:contoso/orders:ref:refs/heads/main")
	if !ok || kept.Description != "pushes" || kept.Audience != directory.FederatedAudience || kept.ID != id || !kept.Created.Equal(start) {
		t.Errorf("after PATCH: %+v, %v", kept, ok)
	}
	if w.federates(sp.ID, "https://token.actions.githubusercontent.com") {
		t.Error("the issuer that is named no more would still be asked for its keys")
	}
	w.want(204, admin, "PATCH", set+"/main", map[string]any{"description": nil})
	const pattern = "claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main'"
	w.want(204, admin, "PATCH", set+"/"+id, map[string]any{"subject": nil, "claimsMatchingExpression": map[string]any{"value": pattern, "languageVersion": 1}})
	got := w.want(200, admin, "GET", set+"/main", nil)
	if got["subject"] != nil || got["description"] != "" || !cmp.Equal(got["claimsMatchingExpression"], any(map[string]any{"value": pattern, "languageVersion": 1.0})) {
		t.Errorf("with an expression: %v", got)
	}
	if found := w.FederatedPatterns(sp.ID); len(found) != 1 || found[0].ID != id || found[0].Expression[0].Want != "repo:contoso/*:ref:refs/heads/main" {
		t.Errorf("its pattern is %v", found)
	}
	w.want(204, admin, "PATCH", set+"/"+id, map[string]any{"subject": "x", "claimsMatchingExpression": nil})
	if _, ok := w.FederatedExact(sp.ID, "https://issuer.example.org/a", "x"); !ok || len(w.FederatedPatterns(sp.ID)) != 0 {
		t.Error("it is not back to a subject")
	}

	w.want(204, admin, "DELETE", set+"/Main", nil)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		if answer := w.want(404, admin, method, set+"/"+id, map[string]any{}); code(answer) != "Request_ResourceNotFound" {
			t.Errorf("%s of one that is gone: %v", method, answer)
		}
	}
	if _, ok := w.FederatedExact(sp.ID, "https://issuer.example.org/a", "x"); ok || w.federates(sp.ID, "https://issuer.example.org/a") {
		t.Error("it outlived its deletion")
	}
	var left []string
	for _, ev := range w.events() {
		if ev.Target != string(app.ID)+"/Main" || ev.Principal != admin.Object {
			t.Errorf("the event is of %s by %s", ev.Target, ev.Principal)
		}
		left = append(left, strings.TrimPrefix(ev.Action, "microsoft.directory/applications/federatedIdentityCredentials/"))
	}
	if diff := cmp.Diff([]string{"create", "update", "update", "update", "update", "delete"}, left); diff != "" {
		t.Errorf("events (-want +got)\n%s", diff)
	}
}

func TestAFederatedCredentialThatCouldNotWorkIsRefused(t *testing.T) {
	w := newWorld(t)
	app, _ := w.application("orders")
	other, _ := w.application("other")
	set := "/v1.0/applications/" + string(app.ID) + "/federatedIdentityCredentials"
	one := github("one", "contoso/orders")
	w.want(201, admin, "POST", set, one)
	two := github("two", "contoso/web")
	expression := func(value string, version int) map[string]any {
		return map[string]any{"subject": absent, "claimsMatchingExpression": map[string]any{"value": value, "languageVersion": version}}
	}
	for _, c := range []struct {
		status  int
		says    string
		changes map[string]any
	}{
		{409, "the name 'one' already", map[string]any{"name": "ONE"}}, // names compare without case
		{409, "'one' has this issuer and subject", map[string]any{"subject": one["subject"]}},
		{400, "must have 3 to 120", map[string]any{"name": "ab"}},
		{400, "must have 3 to 120", map[string]any{"name": strings.Repeat("a", 121)}},
		{400, "must have 3 to 120", map[string]any{"name": "-abc"}},
		{400, "must have 3 to 120", map[string]any{"name": "a/b"}},
		{400, "must have 3 to 120", map[string]any{"name": "abc\n"}},
		{400, "must have 3 to 120", map[string]any{"name": absent}},
		{400, "must have an issuer", map[string]any{"issuer": absent}},
		{400, "must be an https URL", map[string]any{"issuer": "http://issuer.example.org"}},
		{400, "must be an https URL", map[string]any{"issuer": "issuer.example.org"}},
		{400, "must be an https URL", map[string]any{"issuer": " https://issuer.example.org"}},
		{400, "must be an https URL", map[string]any{"issuer": "https://user:pass@issuer.example.org"}},
		{400, "must be an https URL", map[string]any{"issuer": "https://issuer.example.org?a"}},
		{400, "must be an https URL", map[string]any{"issuer": "https://issuer.example.org#"}},
		{400, "at most 600", map[string]any{"issuer": "https://issuer.example.org/" + strings.Repeat("x", 600)}},
		{400, "control character", map[string]any{"subject": "a\u0000"}},
		{400, "a subject or", map[string]any{"subject": ""}},
		{400, "a subject or", map[string]any{"subject": nil}},
		{400, "at most 600", map[string]any{"subject": strings.Repeat("ü", 601)}},
		{400, "exactly one audience, such as api://AzureADTokenExchange", map[string]any{"audiences": absent}},
		{400, "has 0 audiences", map[string]any{"audiences": []string{}}},
		{400, "has 2 audiences", map[string]any{"audiences": []string{"a", "b"}}},
		{400, "exactly one audience", map[string]any{"audiences": []string{""}}},
		{400, "both a subject and", map[string]any{"claimsMatchingExpression": map[string]any{"value": "claims['sub'] eq 'a'", "languageVersion": 1}}},
		{400, "languageVersion 2", expression("claims['sub'] eq 'a'", 2)},
		{400, "not understood", expression("sub == a", 1)},
		{400, "wildcards", expression("claims['sub'] matches '*'", 1)},
		{400, "JSON", map[string]any{"subject": 1}},
	} {
		answer := w.want(c.status, admin, "POST", set, with(two, c.changes))
		message := fmt.Sprint(answer["error"].(map[string]any)["message"])
		if !strings.Contains(message, c.says) || len(message) > 1500 {
			t.Errorf("%v: the refusal does not say %q: %s", c.changes, c.says, message)
		}
	}
	w.want(201, admin, "POST", set, two)
	// What one application has, another may have too.
	w.want(201, admin, "POST", "/v1.0/applications/"+string(other.ID)+"/federatedIdentityCredentials", one)

	if answer := w.want(409, admin, "PATCH", set+"/two", map[string]any{"subject": one["subject"]}); code(answer) != "Request_MultipleObjectsWithSameKeyValue" {
		t.Errorf("two become one: %v", answer)
	}
	w.want(400, admin, "PATCH", set+"/two", map[string]any{"name": "three"})
	w.want(400, admin, "PATCH", set+"/two", map[string]any{"audiences": []string{}})
	w.want(404, admin, "POST", "/v1.0/applications/11111111-1111-1111-1111-111111111111/federatedIdentityCredentials", one)
	w.want(404, admin, "GET", "/v1.0/applications/11111111-1111-1111-1111-111111111111/federatedIdentityCredentials", nil)
	w.want(404, admin, "GET", set+"/none", nil)
	// A credential is found at its own application alone.
	listed := w.want(200, admin, "GET", set+"?$filter=name%20eq%20'TWO'", nil)["value"].([]any)
	w.want(404, admin, "GET", "/v1.0/applications/"+string(other.ID)+"/federatedIdentityCredentials/"+listed[0].(map[string]any)["id"].(string), nil)
}

func TestFederatedCredentialsAreForThoseWhoMayEdit(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders")
	set := "/v1.0/applications/" + string(app.ID) + "/federatedIdentityCredentials"
	w.want(201, admin, "POST", set, github("main", "contoso/orders"))
	for _, who := range []innate.Principal{nobody, {Object: sp.ID, Client: sp.Client, Name: "itself"}} { // a leaked credential makes no others
		for _, c := range []struct{ method, target string }{
			{"GET", set}, {"GET", set + "/main"}, {"GET", set + "/none"}, {"POST", set}, {"PATCH", set + "/main"}, {"DELETE", set + "/main"},
		} {
			w.want(403, who, c.method, c.target, github("other", "contoso/other"))
		}
	}
	if got := len(w.events()); got != 1 {
		t.Errorf("%d events, want that of the making alone", got)
	}
}

// federates reports whether principal's tokens of that issuer are worth a look.
func (w *world) federates(principal innate.ObjectID, issuer string) bool {
	return w.Federates(principal, issuer)
}

// many are federated credentials of principal, numbered.
func (w *world) many(principal innate.ObjectID, n int) {
	w.t.Helper()
	for first := 0; first < n; first += 2500 {
		w.do(func(tx store.Tx) error {
			for i := first; i < min(first+2500, n); i++ {
				if _, _, err := directory.PutFederated(tx, numbered(principal, i), start); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

func numbered(principal innate.ObjectID, i int) directory.FederatedCredential {
	return directory.FederatedCredential{
		Principal: principal, Name: fmt.Sprintf("repo-%05d", i), Audience: directory.FederatedAudience,
		Issuer: "https://token.actions.githubusercontent.com", Subject: subject(i),
	}
}

func subject(i int) string { return fmt.Sprintf("repo:contoso/repo-%05d:ref:refs/heads/main", i) }

func TestTenThousandFederatedCredentialsAreListedAndFoundAndGone(t *testing.T) {
	w := newWorld(t)
	app, sp := w.application("orders")
	const n = 10_000
	w.many(sp.ID, n)
	for _, i := range []int{0, n / 2, n - 1} {
		if c, ok := w.FederatedExact(sp.ID, "https://token.actions.githubusercontent.com", subject(i)); !ok || c.Name != numbered(sp.ID, i).Name {
			t.Errorf("of subject %d: got %+v, %v", i, c, ok)
		}
	}
	seen, pages := []string{}, 0
	for target := "https://graph.example.org/v1.0/applications/" + string(app.ID) + "/federatedIdentityCredentials"; target != ""; pages++ {
		answer := w.want(200, admin, "GET", target, nil)
		for _, v := range answer["value"].([]any) {
			seen = append(seen, v.(map[string]any)["name"].(string))
		}
		target, _ = answer["@odata.nextLink"].(string)
	}
	if len(seen) != n || !slices.IsSorted(seen) || pages != 100 {
		t.Errorf("%d credentials on %d pages, want all %d, each once, on 100", len(seen), pages, n)
	}
	w.want(409, admin, "POST", "/v1.0/applications/"+string(app.ID)+"/federatedIdentityCredentials", with(github("x-1", "contoso/repo-09999"), nil))
	w.want(204, admin, "DELETE", "/v1.0/applications/"+string(app.ID), nil)
	if w.federates(sp.ID, "https://token.actions.githubusercontent.com") || len(w.FederatedOf(sp.ID)) != 0 {
		t.Error("some outlived their application")
	}
	w.nothingNames(sp.ID)
}

// nothingNames fails when a row of the store still has id, the audit log's aside.
func (w *world) nothingNames(ids ...innate.ObjectID) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), func(r store.Reader) error {
		for key, value := range r.Scan("directory/", "") {
			for _, id := range ids {
				if strings.Contains(key, string(id)) || strings.Contains(string(value), string(id)) {
					w.t.Errorf("%s is left: %s", key, value)
				}
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestASubjectMayPassFromOneCredentialToAnother(t *testing.T) {
	w := newWorld(t)
	_, sp := w.application("orders")
	put := func(tx store.Tx, name string, i int) error {
		c := numbered(sp.ID, i)
		c.Name = name
		_, _, err := directory.PutFederated(tx, c, start)
		return err
	}
	holder := func(i int) string {
		c, _ := w.FederatedExact(sp.ID, "https://token.actions.githubusercontent.com", subject(i))
		return c.Name
	}
	for _, c := range []struct {
		first, second string // first gives up its subject, second takes it, in one transaction
	}{{"aaa", "bbb"}, {"bbb", "aaa"}} { // rows are indexed in order of name: either may come first
		w.do(func(tx store.Tx) error { return put(tx, c.first, 1) })
		w.do(func(tx store.Tx) error {
			if err := put(tx, c.first, 2); err != nil {
				return err
			}
			return put(tx, c.second, 1)
		})
		if holder(1) != c.second || holder(2) != c.first {
			t.Errorf("subject 1 is of %q and 2 of %q, want %q and %q", holder(1), holder(2), c.second, c.first)
		}
		w.do(func(tx store.Tx) error {
			if _, err := directory.DeleteFederated(tx, sp.ID, c.second); err != nil {
				return err
			}
			return put(tx, c.first, 1)
		})
		if holder(1) != c.first || holder(2) != "" {
			t.Errorf("subject 1 is of %q and 2 of %q, want %q and nobody", holder(1), holder(2), c.first)
		}
		w.do(func(tx store.Tx) error {
			_, err := directory.DeleteFederated(tx, sp.ID, c.first)
			return err
		})
	}
	if w.federates(sp.ID, "https://token.actions.githubusercontent.com") {
		t.Error("an issuer that nobody names would still be asked for its keys")
	}
}

func TestOnlyApplicationsAndUserAssignedIdentitiesAreFederated(t *testing.T) {
	w := newWorld(t)
	_, sp := w.application("orders")
	for _, c := range []struct {
		principal innate.ObjectID
		ok        bool
	}{
		{sp.ID, true},
		{w.identity("shared", vm1, true).ID, true},
		{w.identity("vm1", vm1, false).ID, false}, // proves itself by where it runs
		{w.group("g").ID, false},
		{"no-such", false},
	} {
		_, err := w.db.Update(t.Context(), func(tx store.Tx) error {
			_, _, err := directory.PutFederated(tx, numbered(c.principal, 1), start)
			return err
		})
		if (err == nil) != c.ok {
			t.Errorf("%s: got %v, allowed should be %v", c.principal, err, c.ok)
		}
	}
}

func TestPatternsOfAnIdentityStayTogetherAsTheyComeAndGo(t *testing.T) {
	w := newWorld(t)
	_, sp := w.application("orders")
	pattern := func(i int) directory.FederatedCredential {
		c := numbered(sp.ID, i)
		c.Matching, c.Subject = fmt.Sprintf("claims['sub'] matches 'repo:contoso/%d-*'", i), ""
		return c
	}
	w.do(func(tx store.Tx) error {
		for i := range 5 {
			if _, _, err := directory.PutFederated(tx, pattern(i), start); err != nil {
				return err
			}
		}
		return nil
	})
	before := w.FederatedPatterns(sp.ID)
	w.do(func(tx store.Tx) error {
		if _, err := directory.DeleteFederated(tx, sp.ID, pattern(2).Name); err != nil {
			return err
		}
		_, _, err := directory.PutFederated(tx, pattern(5), start)
		return err
	})
	named := func(all []directory.Pattern) (names []string) {
		for _, p := range all {
			names = append(names, p.Name[len(p.Name)-1:])
		}
		slices.Sort(names)
		return names
	}
	if diff := cmp.Diff([]string{"0", "1", "3", "4", "5"}, named(w.FederatedPatterns(sp.ID))); diff != "" {
		t.Errorf("now (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "3", "4"}, named(before)); diff != "" {
		t.Errorf("what was handed out before has changed (-want +got)\n%s", diff)
	}
}

// BenchmarkFederatedExact shows that an exact match costs the same however many
// credentials an identity has.
func BenchmarkFederatedExact(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			_, sp := w.application("orders")
			w.many(sp.ID, n)
			sub := subject(n - 1)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := w.FederatedExact(sp.ID, "https://token.actions.githubusercontent.com", sub); !ok {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkPutFederated shows that adding one does not read the others.
func BenchmarkPutFederated(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			_, sp := w.application("orders")
			w.many(sp.ID, n)
			b.ReportAllocs()
			for i := n; b.Loop(); i++ {
				w.do(func(tx store.Tx) error {
					_, _, err := directory.PutFederated(tx, numbered(sp.ID, i), start)
					return err
				})
			}
		})
	}
}
