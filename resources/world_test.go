package resources_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
	"innate/directory"
	"innate/resources"
	"innate/rest"
	"innate/store"
	"innate/store/file"
)

const (
	tenant = "11111111-0000-0000-0000-000000000000"
	sub    = "/subscriptions/22222222-0000-0000-0000-000000000000"
	group  = sub + "/resourceGroups/rg1"

	vm      = group + "/providers/Microsoft.Compute/virtualMachines/vm1"
	site    = group + "/providers/Microsoft.Web/sites/fn1"
	plan    = group + "/providers/Microsoft.Web/serverfarms/plan1"
	machine = group + "/providers/Microsoft.HybridCompute/machines/host1"
	uai     = group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id1"
	vault   = group + "/providers/Microsoft.KeyVault/vaults/kv1"
)

// A world is Resources on a real store, with an owner of everything.
type world struct {
	*resources.Resources
	t         *testing.T
	db        *store.DB
	directory *directory.Directory
	config    resources.Config
	owner     innate.Principal

	mu      sync.Mutex
	now     time.Time
	written []string // told to OnWrite
	gone    []string // told to OnDelete
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	dir := t.TempDir()
	engine, err := file.Create(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	if w.db, err = store.Open(t.Context(), engine); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	log, err := audit.Open(filepath.Join(dir, "audit"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	clock := func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now = w.now.Add(time.Second)
		return w.now
	}
	if w.directory, err = directory.New(directory.Config{
		DB: w.db, Audit: log, Tenant: tenant, Graph: "https://graph.example.org", Now: clock,
		MayEdit:  func(context.Context, innate.Principal, string) error { return nil },
		OnDelete: []func(store.Tx, directory.Object) error{func(tx store.Tx, o directory.Object) error { return access.DeleteOf(tx, o.ID) }},
	}); err != nil {
		t.Fatal(err)
	}
	roles, err := access.New(access.Config{
		DB: w.db, Audit: log, Directory: w.directory, Tenant: tenant, Now: clock,
		Exists: resources.Exists,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.config = resources.Config{
		DB: w.db, Audit: log, Directory: w.directory, Access: roles, Tenant: tenant,
		Now: clock,
		Endpoints: resources.Endpoints{
			Login: "https://login.example.org", Management: "https://management.example.org",
			Graph: "https://graph.example.org", VaultSuffix: "vault.example.org:8443", PostgresSuffix: "postgres.example.org",
		},
		OnWrite: []func(store.Tx, *resources.Resource, *resources.Resource) error{
			func(_ store.Tx, _, now *resources.Resource) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.written = append(w.written, string(now.ID))
				return nil
			},
		},
		OnDelete: []func(store.Tx, *resources.Resource) error{
			func(_ store.Tx, gone *resources.Resource) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.gone = append(w.gone, string(gone.ID))
				return nil
			},
		},
		Actions: map[string]resources.Action{},
	}
	if w.Resources, err = resources.New(w.config); err != nil {
		t.Fatal(err)
	}
	w.do(func(tx store.Tx) error {
		return resources.CreateSubscription(tx, strings.TrimPrefix(sub, "/subscriptions/"), "Innate", w.now)
	})
	w.owner = w.user("owner")
	w.grant(w.owner, access.Owner, "/")
	return w
}

func (w *world) do(fn func(store.Tx) error) {
	w.t.Helper()
	if _, err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) user(name string) innate.Principal {
	w.t.Helper()
	var o directory.Object
	w.do(func(tx store.Tx) (err error) {
		o, err = directory.CreateUser(tx, name, name+"@example.org", w.now)
		return err
	})
	return innate.Principal{Tenant: tenant, Object: o.ID, Name: name}
}

func (w *world) grant(who innate.Principal, role, at string) { w.grantTo(who.Object, role, at) }

func (w *world) grantTo(who innate.ObjectID, role, at string) {
	w.t.Helper()
	w.do(func(tx store.Tx) error {
		return access.Assign(tx, access.Assignment{
			ID: innate.NewGUID(), Scope: innate.Scope(at), Role: role, Principal: who, CreatedOn: w.now,
		})
	})
}

// An answer is what came back.
type answer struct {
	*httptest.ResponseRecorder
	t    *testing.T
	what string
	body map[string]any
}

// as sends a request; body is JSON text, and a path without a query gets an api-version.
func (w *world) as(who innate.Principal, method, target, body string, headers ...string) answer {
	w.t.Helper()
	if !strings.Contains(target, "?") {
		target += "?api-version=2024-11-01"
	}
	r := httptest.NewRequestWithContext(bearer.With(w.t.Context(), who), method, "https://management.example.org"+target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a := answer{httptest.NewRecorder(), w.t, method + " " + target, nil}
	rest.Tidy(w.Handler()).ServeHTTP(a.ResponseRecorder, r)
	if a.Body.Len() > 0 {
		if err := json.Unmarshal(a.Body.Bytes(), &a.body); err != nil {
			w.t.Fatalf("%s: the answer is not JSON: %v", a.what, err)
		}
	}
	return a
}

// send is as by the owner.
func (w *world) send(method, target, body string, headers ...string) answer {
	w.t.Helper()
	return w.as(w.owner, method, target, body, headers...)
}

// must sends a request that has to succeed.
func (w *world) must(method, target, body string) answer {
	w.t.Helper()
	a := w.send(method, target, body)
	if a.Code >= 300 {
		w.t.Fatalf("%s: %d %s", a.what, a.Code, a.Body)
	}
	return a
}

// group makes rg1, and machine host1 in it.
func (w *world) group() {
	w.t.Helper()
	w.must("PUT", group, `{"location":"local"}`)
	w.must("PUT", machine, `{"location":"local"}`)
}

// at walks into the answer.
func (a answer) at(path ...string) any {
	var v any = a.body
	for _, p := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func (a answer) text(path ...string) string {
	s, _ := a.at(path...).(string)
	return s
}

// is checks status and, for a refusal, the error's code.
func (a answer) is(status int, code string) answer {
	a.t.Helper()
	if a.Code != status || a.text("error", "code") != code {
		a.t.Errorf("%s: got %d %s, want %d %s", a.what, a.Code, a.Body, status, code)
	}
	return a
}

// names are the names in a list.
func (a answer) names() []string {
	names := []string{}
	all, _ := a.at("value").([]any)
	for _, v := range all {
		m, _ := v.(map[string]any)
		name, _ := m["name"].(string)
		names = append(names, name)
	}
	return names
}

func (w *world) object(id string) bool {
	_, ok := w.directory.Object(innate.ObjectID(id))
	return ok
}

func (w *world) assignments() (n int) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(r store.Reader) error {
		for range r.Scan("access/at/", "") {
			n++
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// changes reads the events that transactions left.
func (w *world) changes() (events []audit.Event) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(r store.Reader) error {
		for _, row := range r.Scan(audit.OutboxPrefix, "") {
			ev, err := audit.Drained(row)
			if err != nil {
				return err
			}
			events = append(events, ev)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return events
}
