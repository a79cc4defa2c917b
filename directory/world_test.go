package directory_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/audit"
	"innate/bearer"
	"innate/directory"
	"innate/rest"
	"innate/store"
	"innate/store/file"
)

var (
	admin  = innate.Principal{Object: "aaaaaaaa-0000-0000-0000-000000000001", Name: "admin"}
	nobody = innate.Principal{Object: "aaaaaaaa-0000-0000-0000-000000000002", Name: "nobody"}
	start  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// A world is a directory on a real store, edited by admin alone.
type world struct {
	*directory.Directory
	t       testing.TB
	db      *store.DB
	now     time.Time
	deleted []directory.Object // told to OnDelete
	enabled []directory.Object // told to OnEnable
}

func newWorld(t testing.TB) *world {
	t.Helper()
	engine, err := file.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return newWorldOn(t, engine)
}

// newWorldOn is a server on an engine that others may use as well.
func newWorldOn(t testing.TB, engine store.Engine) *world {
	t.Helper()
	w := &world{t: t, now: start}
	var err error
	if w.db, err = store.Open(t.Context(), engine); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.db.Close() })
	w.Directory, err = directory.New(directory.Config{
		DB: w.db, Audit: auditOf(t), Tenant: "tttttttt", Graph: "https://graph.example.org",
		MayEdit: func(_ context.Context, who innate.Principal, action string) error {
			if who.Object == admin.Object {
				return nil
			}
			return rest.Errorf(http.StatusForbidden, "AuthorizationFailed", "%s may not do %s.", who.Name, action)
		},
		Reserved: func(uri string) bool { return uri == "https://vault.example.org" },
		OnDelete: []func(store.Tx, directory.Object) error{
			func(_ store.Tx, o directory.Object) error { w.deleted = append(w.deleted, o); return nil },
		},
		OnEnable: []func(store.Tx, directory.Object) error{
			func(_ store.Tx, o directory.Object) error { w.enabled = append(w.enabled, o); return nil },
		},
		Now: func() time.Time { return w.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func auditOf(t testing.TB) *audit.Log {
	t.Helper()
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

func allowAll(context.Context, innate.Principal, string) error { return nil }

// do runs fn in a transaction that must succeed.
func (w *world) do(fn func(store.Tx) error) {
	w.t.Helper()
	if _, err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) identity(name string, owner innate.ResourceID, shared bool) (o directory.Object) {
	w.t.Helper()
	w.do(func(tx store.Tx) (err error) {
		o, err = directory.CreateIdentity(tx, name, owner, shared, w.now)
		return err
	})
	return o
}

func (w *world) group(name string, members ...innate.ObjectID) (o directory.Object) {
	w.t.Helper()
	w.do(func(tx store.Tx) (err error) {
		if o, err = directory.CreateGroup(tx, name, w.now); err != nil {
			return err
		}
		for _, m := range members {
			if err := w.AddMember(tx, o.ID, m); err != nil {
				return err
			}
		}
		return nil
	})
	return o
}

func (w *world) application(name string, uris ...string) (a directory.Registration, o directory.Object) {
	w.t.Helper()
	w.do(func(tx store.Tx) (err error) {
		a, o, err = directory.CreateRegistration(tx, directory.Registration{Name: name, IdentifierURIs: uris}, w.now)
		return err
	})
	return a, o
}

// ask sends a request as who and decodes the answer.
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
	r := httptest.NewRequest(method, target, &in)
	r = r.WithContext(bearer.With(r.Context(), who))
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r)
	var out map[string]any
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil {
			w.t.Fatalf("%s %s: answer is no JSON: %v\n%s", method, target, err, rec.Body)
		}
	}
	return rec.Code, out
}

// serve sends r with a body as admin and returns the status.
func (w *world) serve(r *http.Request, body string) int {
	r.Body = io.NopCloser(strings.NewReader(body))
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, r.WithContext(bearer.With(context.Background(), admin)))
	return rec.Code
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

// events lists what was left for the audit log.
func (w *world) events() (all []audit.Event) {
	w.t.Helper()
	err := w.db.View(w.t.Context(), func(r store.Reader) error {
		for _, v := range r.Scan(audit.OutboxPrefix, "") {
			ev, err := audit.Drained(v)
			if err != nil {
				return err
			}
			all = append(all, ev)
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func code(answer map[string]any) any {
	e, _ := answer["error"].(map[string]any)
	return e["code"]
}

// names lists the displayNames of a list.
func names(answer map[string]any) []string {
	all := []string{}
	for _, v := range answer["value"].([]any) {
		all = append(all, v.(map[string]any)["displayName"].(string))
	}
	return all
}
