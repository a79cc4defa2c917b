package access_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
	"innate/directory"
	"innate/store"
	"innate/store/file"
)

const (
	sub   = innate.Scope("/subscriptions/11111111-1111-1111-1111-111111111111")
	rg    = sub + "/resourceGroups/Rg"
	kv    = rg + "/providers/Microsoft.KeyVault/vaults/kv1"
	kv2   = sub + "/resourceGroups/rg2/providers/Microsoft.KeyVault/vaults/kv1"
	other = innate.Scope("/subscriptions/22222222-2222-2222-2222-222222222222")

	getSecret = "Microsoft.KeyVault/vaults/secrets/getSecret/action"
)

// A world is access over a real store and directory. admin owns all of it.
type world struct {
	*access.Access
	t       testing.TB
	db      *store.DB
	dir     *directory.Directory
	admin   innate.Principal
	gone    innate.Scope // is not there, nor is anything below it
	vanish  bool         // what is there goes between the next look and its commit
	journal string       // path of the audit file
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, journal: filepath.Join(t.TempDir(), "audit")}
	engine, err := file.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	if w.db, err = store.Open(t.Context(), engine); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	log, err := audit.Open(w.journal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	if w.dir, err = directory.New(directory.Config{
		DB: w.db, Audit: log, Tenant: "home", Graph: "https://graph.example.org",
		MayEdit:  func(context.Context, innate.Principal, string) error { return nil },
		OnDelete: []func(store.Tx, directory.Object) error{func(tx store.Tx, o directory.Object) error { return access.DeleteOf(tx, o.ID) }},
	}); err != nil {
		t.Fatal(err)
	}
	if w.Access, err = access.New(access.Config{
		DB: w.db, Audit: log, Directory: w.dir, Tenant: "home",
		Exists: w.exists,
	}); err != nil {
		t.Fatal(err)
	}
	w.admin = w.principal("admin")
	w.assign(w.admin, access.Owner, innate.Root)
	return w
}

// exists is what the wiring asks of resources. While vanish is set, somebody
// deletes the resource between this look and the commit.
func (w *world) exists(r store.Reader, at innate.Scope) (bool, error) {
	const deleted = "test/deleted"
	if _, gone := r.Get(deleted); gone {
		return false, nil
	}
	if w.vanish {
		w.vanish = false
		w.do(func(tx store.Tx) error { tx.Put(deleted, []byte("by somebody else")); return nil })
	}
	return w.gone == "" || !w.gone.Contains(at), nil
}

// do runs fn in a transaction that must succeed.
func (w *world) do(fn func(store.Tx) error) {
	w.t.Helper()
	if _, err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// principal makes a service principal.
func (w *world) principal(name string) innate.Principal {
	w.t.Helper()
	var o directory.Object
	w.do(func(tx store.Tx) (err error) {
		o, err = directory.CreateIdentity(tx, name, innate.ResourceID(rg), false, time.Now())
		return err
	})
	return innate.Principal{Tenant: "home", Object: o.ID, Client: o.Client, Name: name}
}

// user makes a person.
func (w *world) user(name string) innate.Principal {
	w.t.Helper()
	var o directory.Object
	w.do(func(tx store.Tx) (err error) {
		o, err = directory.CreateUser(tx, name, name+"@example.org", time.Now())
		return err
	})
	return innate.Principal{Tenant: "home", Object: o.ID, Name: name}
}

// group makes a group of members.
func (w *world) group(name string, members ...innate.ObjectID) innate.Principal {
	w.t.Helper()
	var o directory.Object
	w.do(func(tx store.Tx) (err error) {
		if o, err = directory.CreateGroup(tx, name, time.Now()); err != nil {
			return err
		}
		for _, m := range members {
			if err := w.dir.AddMember(tx, o.ID, m); err != nil {
				return err
			}
		}
		return nil
	})
	return innate.Principal{Object: o.ID, Name: name}
}

// assign grants without asking and returns the assignment's id.
func (w *world) assign(to innate.Principal, role string, at innate.Scope) string {
	w.t.Helper()
	id := innate.NewGUID()
	w.do(func(tx store.Tx) error {
		return access.Assign(tx, access.Assignment{ID: id, Scope: at, Role: role, Principal: to.Object, Kind: "ServicePrincipal"})
	})
	return id
}

// allowed decides and must not fail.
func (w *world) allowed(who innate.Principal, do access.Action, at innate.Scope) access.Decision {
	w.t.Helper()
	d, err := w.Allowed(w.t.Context(), who, do, at)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// ask sends a request as who; target is a path with an optional query, which is
// sent as it is, unencoded.
func (w *world) ask(who innate.Principal, method, target string, body any) (int, map[string]any) {
	w.t.Helper()
	var in bytes.Buffer
	if text, ok := body.(string); ok {
		in.WriteString(text)
	} else if body != nil {
		if err := json.NewEncoder(&in).Encode(body); err != nil {
			w.t.Fatal(err)
		}
	}
	r := httptest.NewRequest(method, "https://management.example.org/", &in)
	path, query, _ := strings.Cut(target, "?")
	r.URL = &url.URL{Path: path, RawQuery: "api-version=2022-04-01&" + query}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r.WithContext(bearer.With(r.Context(), who)))
	var out map[string]any
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
			w.t.Fatalf("%s %s: answer is no JSON: %v\n%s", method, target, err, rec.Body)
		}
	}
	return rec.Code, out
}

// want is ask for those who know the status.
func (w *world) want(status int, who innate.Principal, method, target string, body any) map[string]any {
	w.t.Helper()
	got, out := w.ask(who, method, target, body)
	if got != status {
		w.t.Fatalf("%s %s as %s: got %d, want %d\n%v", method, target, who.Name, got, status, out)
	}
	return out
}

func assignment(at innate.Scope, id string) string {
	return strings.TrimSuffix(string(at), "/") + "/providers/Microsoft.Authorization/roleAssignments/" + id
}

func definition(at innate.Scope, id string) string {
	return strings.TrimSuffix(string(at), "/") + "/providers/Microsoft.Authorization/roleDefinitions/" + id
}

// granting is the body that asks for an assignment.
func granting(to innate.ObjectID, role string) map[string]any {
	return map[string]any{"properties": map[string]any{"principalId": to, "roleDefinitionId": definition(sub, role)}}
}

func code(answer map[string]any) any {
	e, _ := answer["error"].(map[string]any)
	return e["code"]
}

func message(answer map[string]any) string {
	e, _ := answer["error"].(map[string]any)
	m, _ := e["message"].(string)
	return m
}
