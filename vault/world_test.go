package vault_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
	"innate/directory"
	"innate/rest"
	"innate/seal"
	"innate/store"
	"innate/store/file"
	"innate/vault"
)

const (
	tenant = "11111111-2222-4333-8444-555555555555"
	group  = "/subscriptions/cccccccc-0000-4000-8000-000000000001/resourceGroups/RG"
	kv1    = innate.ResourceID(group + "/providers/Microsoft.KeyVault/vaults/kv1")
	kv2    = innate.ResourceID(group + "/providers/Microsoft.KeyVault/vaults/kv2")
	host   = "kv1.vault.innate.test:8443"
	api    = "?api-version=7.6"
)

// A world is two vaults with all that stands behind them, and the people who use them.
type world struct {
	directory *directory.Directory
	t         testing.TB
	dir       string
	db        *store.DB
	audit     *audit.Log
	service   *vault.Service
	front     http.Handler

	mu     sync.Mutex
	now    time.Time
	people map[string]innate.Principal // by name; the name is what they show as their token
	absent []innate.ResourceID         // vaults whose name is not known any more
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldIn(t, t.TempDir())
}

// newWorldIn is what an earlier one left in dir, or a new one.
func newWorldIn(t testing.TB, dir string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, now: time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), people: map[string]innate.Principal{}}
	makeStore, makeMaster := file.Create, seal.CreateMaster
	if _, err := os.Stat(w.path("store")); err == nil {
		makeStore, makeMaster = file.Open, func(path string) (*seal.Key, error) { return seal.OpenMaster(path) }
	}
	engine, err := makeStore(w.path("store"))
	check(t, err)
	w.db, err = store.Open(context.Background(), engine)
	check(t, err)
	t.Cleanup(func() { w.db.Close() })
	w.audit, err = audit.Open(w.path("audit.log"))
	check(t, err)
	t.Cleanup(func() { w.audit.Close() })
	master, err := makeMaster(w.path("master.key"))
	check(t, err)
	w.directory, err = directory.New(directory.Config{
		DB: w.db, Audit: w.audit, Tenant: tenant, Graph: "https://graph.innate.test",
		MayEdit: func(context.Context, innate.Principal, string) error { return nil },
	})
	check(t, err)
	roles, err := access.New(access.Config{DB: w.db, Audit: w.audit, Directory: w.directory, Tenant: tenant})
	check(t, err)
	w.service, err = vault.New(vault.Config{
		DB: w.db, Audit: w.audit, Seal: master, Access: roles, Tenant: tenant,
		Login: "https://login.innate.test", Suffix: "vault.innate.test:8443", ByName: w.byName, Now: w.clock,
	})
	check(t, err)
	verifier, err := bearer.New(bearer.Config{
		Authority: "https://login.innate.test", Tenant: tenant, Audiences: []string{"https://vault.innate.test:8443"},
		Code: "Unauthorized", Log: slog.New(slog.DiscardHandler),
	})
	check(t, err)
	w.front = rest.TidyUpTo(vault.MaxBody, w.known(verifier.Require(w.service.Handler(), w.service.Challenge)))
	w.update(func(tx store.Tx) error { return w.service.Put(tx, kv1, vault.Settings{}) })
	w.update(func(tx store.Tx) error { return w.service.Put(tx, kv2, vault.Settings{}) })
	w.join("officer")
	w.grant("officer", access.KeyVaultSecretsOfficer, kv1.Scope())
	return w
}

// known lets people in by their names; strangers are left to the verifier.
func (w *world) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		who, ok := w.people[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		w.mu.Unlock()
		if ok {
			r = r.WithContext(bearer.With(r.Context(), who))
		}
		next.ServeHTTP(rw, r)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) byName(name string) (innate.ResourceID, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range []innate.ResourceID{kv1, kv2} {
		if strings.EqualFold(id.Name(), name) && !slices.Contains(w.absent, id) {
			return id, true
		}
	}
	return "", false
}

func (w *world) update(fn func(store.Tx) error) {
	w.t.Helper()
	_, err := w.db.Update(context.Background(), fn)
	check(w.t, err)
}

// join makes a managed identity of that name.
func (w *world) join(name string) {
	w.t.Helper()
	owner := innate.ResourceID(group + "/providers/Microsoft.Compute/virtualMachines/" + name)
	var o directory.Object
	w.update(func(tx store.Tx) (err error) {
		o, err = directory.CreateIdentity(tx, name, owner, false, w.clock())
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.people[name] = innate.Principal{Tenant: tenant, Object: o.ID, Client: o.Client, Name: name, Hosting: owner, Assurance: innate.NetNS, Token: "uti-" + name}
}

func (w *world) grant(name, role string, at innate.Scope) {
	w.t.Helper()
	w.update(func(tx store.Tx) error {
		return access.Assign(tx, access.Assignment{ID: innate.NewGUID(), Scope: at, Role: role, Principal: w.people[name].Object, Kind: "ServicePrincipal"})
	})
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	text   string
	body   // as far as it is JSON
}

type body struct {
	Value      any               `json:"value"` // of a secret, or the items of a list
	ID         string            `json:"id"`
	Type       string            `json:"contentType"`
	Tags       map[string]string `json:"tags"`
	Attributes struct {
		Enabled         bool
		NotBefore       *int64 `json:"nbf"`
		Expires         *int64 `json:"exp"`
		Created         int64
		Updated         int64
		RecoveryLevel   string
		RecoverableDays int
	} `json:"attributes"`
	RecoveryID string `json:"recoveryId"`
	Deleted    int64  `json:"deletedDate"`
	Purge      int64  `json:"scheduledPurgeDate"`
	NextLink   string `json:"nextLink"`
	Error      struct {
		Code, Message string
		Inner         struct{ Code string } `json:"innererror"`
	} `json:"error"`
}

// items are the ids of a list.
func (a answer) items() (ids []string) {
	list, _ := a.Value.([]any)
	for _, one := range list {
		item, _ := one.(map[string]any)
		id, _ := item["id"].(string)
		ids = append(ids, id)
		if _, ok := item["value"]; ok {
			ids = append(ids, "and its value!")
		}
	}
	return ids
}

// version is the last word of the id.
func (a answer) version() string { return a.ID[strings.LastIndexByte(a.ID, '/')+1:] }

// send asks at kv1, as somebody ("" is nobody).
func (w *world) send(who, method, target, content string) answer {
	w.t.Helper()
	return w.sendTo(host, who, method, target, content)
}

func (w *world) sendTo(host, who, method, target, content string) answer {
	w.t.Helper()
	r := httptest.NewRequest(method, "https://"+host+"/", strings.NewReader(content))
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery, r.RequestURI = path, query, target
	r.Host = host
	if who != "" {
		r.Header.Set("Authorization", "Bearer "+who)
	}
	rec := httptest.NewRecorder()
	w.front.ServeHTTP(rec, r)
	a := answer{status: rec.Code, header: rec.Header(), text: rec.Body.String()}
	if rec.Body.Len() > 0 {
		if err := json.Unmarshal(rec.Body.Bytes(), &a.body); err != nil {
			w.t.Errorf("%s %s: the answer is not JSON: %v: %q", method, target, err, a.text)
		}
	}
	return a
}

// must is send, for what has to work.
func (w *world) must(who, method, target, content string) answer {
	w.t.Helper()
	a := w.send(who, method, target, content)
	if a.status != http.StatusOK && a.status != http.StatusNoContent {
		w.t.Fatalf("%s %s: %d %s", method, target, a.status, a.text)
	}
	return a
}

// refused checks an error's status and codes.
func (w *world) refused(a answer, status int, code, inner string) {
	w.t.Helper()
	if a.status != status || a.Error.Code != code || a.Error.Inner.Code != inner || a.Error.Message == "" {
		w.t.Errorf("got %d %s; want %d, code %q, inner %q", a.status, a.text, status, code, inner)
	}
}

// events are what the audit file has, and what the outbox still holds.
func (w *world) events() (events []audit.Event) {
	w.t.Helper()
	for ev, err := range audit.Read(w.path("audit.log")) {
		check(w.t, err)
		events = append(events, ev)
	}
	check(w.t, w.db.View(context.Background(), func(r store.Reader) error {
		for _, value := range r.Scan(audit.OutboxPrefix, "") {
			ev, err := audit.Drained(value)
			if err != nil {
				return err
			}
			events = append(events, ev)
		}
		return nil
	}))
	return events
}
