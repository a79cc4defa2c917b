package access_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/directory"
	"innate/store"
)

// rows is a store that holds what was put into it as one transaction and takes
// no more: a million assignments in it are ready in seconds.
type rows map[string][]byte

func (r rows) Revision() store.Revision           { return 1 }
func (r rows) Get(key string) (v []byte, ok bool) { v, ok = r[key]; return v, ok }
func (r rows) Put(key string, value []byte)       { r[key] = value }
func (r rows) Delete(key string)                  { delete(r, key) }
func (r rows) Close() error                       { return nil }

func (r rows) Scan(string, string) iter.Seq2[string, []byte] {
	return func(func(string, []byte) bool) {}
}

func (r rows) Load(_ context.Context, row func(string, []byte) error) (store.Revision, error) {
	for _, key := range slices.Sorted(maps.Keys(r)) {
		if err := row(key, r[key]); err != nil {
			return 0, err
		}
	}
	return 1, nil
}

func (r rows) Commit(context.Context, store.Txn) (store.Revision, error) { return 0, store.ErrConflict }
func (r rows) Sync(context.Context) (store.Revision, error)              { return 1, nil }

func (r rows) Follow(ctx context.Context, _ store.Revision) iter.Seq2[[]store.Commit, error] {
	return func(yield func([]store.Commit, error) bool) {
		<-ctx.Done()
		yield(nil, ctx.Err())
	}
}

// BenchmarkAllowed decides for a thousand busy principals among many, each with
// a role at a vault of its own, beside a look-up in a map of that size. (Asked
// of all of a million in turn, either is slower by what memory takes to answer.)
func BenchmarkAllowed(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			state := rows{}
			principals := make([]innate.ObjectID, n)
			scopes := make([]innate.Scope, n)
			plain := make(map[innate.ObjectID]int, n)
			for i := range n {
				principals[i] = innate.ObjectID(innate.NewGUID())
				scopes[i] = rg + innate.Scope(fmt.Sprint("/providers/Microsoft.KeyVault/vaults/kv", i))
				plain[principals[i]] = i
				if err := access.Assign(state, access.Assignment{
					ID: innate.NewGUID(), Scope: scopes[i], Role: access.KeyVaultSecretsUser, Principal: principals[i],
				}); err != nil {
					b.Fatal(err)
				}
			}
			a := open(b, state)
			const busy = 1_000
			do := access.Data(getSecret)
			b.Run("decide", func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i = (i + n/busy) % n
					d, err := a.Allowed(b.Context(), innate.Principal{Object: principals[i]}, do, scopes[i])
					if err != nil || !d.Allowed {
						b.Fatalf("%v %v", d, err)
					}
				}
			})
			b.Run("map", func(b *testing.B) {
				i := 0
				for b.Loop() {
					i = (i + n/busy) % n
					if plain[principals[i]] != i {
						b.Fatal("wrong")
					}
				}
			})
		})
	}
}

// open serves access from an engine.
func open(b *testing.B, engine store.Engine) *access.Access {
	b.Helper()
	db, err := store.Open(b.Context(), engine)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	log, err := audit.Open(filepath.Join(b.TempDir(), "audit"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { log.Close() })
	dir, err := directory.New(directory.Config{
		DB: db, Audit: log, Tenant: "home", Graph: "https://graph.example.org",
		MayEdit: func(context.Context, innate.Principal, string) error { return nil },
	})
	if err != nil {
		b.Fatal(err)
	}
	a, err := access.New(access.Config{DB: db, Audit: log, Directory: dir, Tenant: "home"})
	if err != nil {
		b.Fatal(err)
	}
	return a
}
