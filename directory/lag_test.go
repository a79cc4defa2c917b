package directory_test

import (
	"context"
	"iter"
	"path/filepath"
	"sync"
	"testing"

	"innate/store"
	"innate/store/file"
)

// lagging is an engine as a server sees it that hears of commits late: of its
// own at once, of others' only when it asks.
type lagging struct {
	store.Engine
	mu      sync.Mutex
	allowed store.Revision
	more    chan struct{} // closed when allowed grows
}

func (e *lagging) allow(rev store.Revision) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if rev > e.allowed {
		e.allowed = rev
		close(e.more)
		e.more = make(chan struct{})
	}
}

func (e *lagging) look() (store.Revision, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.allowed, e.more
}

func (e *lagging) Sync(ctx context.Context) (store.Revision, error) {
	rev, err := e.Engine.Sync(ctx)
	e.allow(rev)
	return rev, err
}

func (e *lagging) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	rev, err := e.Engine.Commit(ctx, txn)
	e.allow(rev)
	return rev, err
}

func (e *lagging) Follow(ctx context.Context, from store.Revision) iter.Seq2[[]store.Commit, error] {
	return func(yield func([]store.Commit, error) bool) {
		for commits, err := range e.Engine.Follow(ctx, from) {
			for err == nil {
				allowed, more := e.look()
				if commits[0].Revision <= allowed {
					break
				}
				select {
				case <-more:
				case <-ctx.Done():
					err = ctx.Err()
				}
			}
			if !yield(commits, err) {
				return
			}
		}
	}
}

// Close leaves the engine to its owner.
func (e *lagging) Close() error { return nil }

func TestWhatOneServerMadeIsNeverNotFoundAtAnother(t *testing.T) {
	engine, err := file.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	here := newWorldOn(t, engine)
	late := func() *world { // each knows nothing of what comes
		return newWorldOn(t, &lagging{Engine: engine, more: make(chan struct{})})
	}
	vm := here.identity("vm1", vm1, false)
	app, sp := here.application("orders")

	there := late()
	set := "/v1.0/applications/" + string(app.ID) + "/federatedIdentityCredentials"
	here.want(201, admin, "POST", set, github("main", "contoso/orders"))
	there.want(200, admin, "GET", set+"/main", nil)

	there = late()
	here.want(204, admin, "PATCH", set+"/main", map[string]any{"description": "late"})
	here.want(201, admin, "POST", set, github("other", "contoso/other"))
	there.want(204, admin, "DELETE", set+"/other", nil)

	there = late()
	here.want(204, admin, "PATCH", "/v1.0/applications/"+string(app.ID), map[string]any{"appRoles": []any{appRole(readRole, "orders.read"), appRole(writeRole, "orders.write")}})
	held := "/v1.0/servicePrincipals/" + string(vm.ID) + "/appRoleAssignments"
	there.want(201, admin, "POST", held, assign(vm.ID, sp.ID, readRole))

	there = late()
	id := here.want(201, admin, "POST", held, assign(vm.ID, sp.ID, writeRole))["id"].(string)
	there.want(200, admin, "GET", held+"/"+id, nil)

	there = late()
	here.want(204, admin, "DELETE", held+"/"+id, nil)
	here.want(201, admin, "POST", held, assign(vm.ID, sp.ID, writeRole))
	there.want(204, admin, "DELETE", held+"/"+id, nil)

	there = late()
	g := here.group("g", vm.ID)
	there.want(204, admin, "PATCH", "/v1.0/groups/"+string(g.ID), map[string]any{"displayName": "renamed"})

	there = late()
	user := here.want(201, admin, "POST", "/v1.0/users", map[string]any{"displayName": "Ann", "userPrincipalName": "ann@example.org"})["id"].(string)
	here.want(204, admin, "POST", "/v1.0/groups/"+string(g.ID)+"/members/$ref", map[string]any{"@odata.id": "x/" + user})
	if got := there.want(200, admin, "POST", "/v1.0/users/ann@example.org/getMemberGroups", map[string]any{})["value"].([]any); len(got) != 1 {
		t.Errorf("at another server the user is in %v, want one group", got)
	}
}
