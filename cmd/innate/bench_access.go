package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/directory"
	"innate/store"
	"innate/store/file"
)

// perTransaction is how many assignments are written at once.
const perTransaction = 10_000

// A rolebook is as many assignments as principals: each may read the secrets of
// a vault of its own.
type rolebook struct {
	access     *access.Access
	principals []innate.ObjectID
	scopes     []innate.Scope
	close      func() error
}

// decide is one decision among n assignments, asked for one principal after the
// other in no order; the limit is a look-up of the same in a map of n.
func decide(n int) func(context.Context, *bench) (contest, error) {
	return func(ctx context.Context, b *bench) (contest, error) {
		book, err := b.openRolebook(ctx, n)
		if err != nil {
			return contest{}, err
		}
		plain := make(map[string]int, n)
		for i, id := range book.principals {
			plain[string(id)] = i
		}
		order := rand.Perm(n)
		read := access.Data("Microsoft.KeyVault/vaults/secrets/getSecret/action")
		return contest{
			ours: perOperation(order, func(ctx context.Context, i int) error {
				d, err := book.access.Allowed(ctx, innate.Principal{Object: book.principals[i]}, read, book.scopes[i])
				if err == nil && !d.Allowed {
					err = errors.New(d.Why)
				}
				return err
			}),
			limit: perOperation(order, func(_ context.Context, i int) error {
				if plain[string(book.principals[i])] != i {
					return errors.New("the map lost a row")
				}
				return nil
			}),
			less: true, end: book.close,
		}, nil
	}
}

// perOperation returns the nanoseconds that do takes, with i going round in order.
func perOperation(order []int, do func(ctx context.Context, i int) error) func(context.Context, time.Duration) (float64, error) {
	return func(ctx context.Context, d time.Duration) (float64, error) {
		const between = 256 // operations between two looks at the clock
		done := 0
		begin := time.Now()
		for time.Since(begin) < d {
			for range between {
				if err := do(ctx, order[done%len(order)]); err != nil {
					return 0, err
				}
				done++
			}
		}
		return float64(time.Since(begin).Nanoseconds()) / float64(done), ctx.Err()
	}
}

// openRolebook fills a store of its own.
func (b *bench) openRolebook(ctx context.Context, n int) (_ *rolebook, err error) {
	dir := filepath.Join(b.dir, fmt.Sprint("access-", n))
	db, err := newStore(ctx, dir)
	if err != nil {
		return nil, err
	}
	log, err := audit.Open(filepath.Join(dir, "audit"))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	book := &rolebook{close: func() error { return errors.Join(db.Close(), log.Close()) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, book.close())
		}
	}()
	tenant := innate.TenantID(innate.NewGUID())
	dirs, err := directory.New(directory.Config{
		DB: db, Audit: log, Tenant: tenant, Graph: "https://graph." + bareName,
		MayEdit: func(context.Context, innate.Principal, string) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	if book.access, err = access.New(access.Config{DB: db, Audit: log, Directory: dirs, Tenant: tenant}); err != nil {
		return nil, err
	}
	vaults := innate.Scope("/subscriptions/" + innate.NewGUID() + "/resourceGroups/bench/providers/Microsoft.KeyVault/vaults/kv")
	for i := range n {
		book.principals = append(book.principals, innate.ObjectID(innate.NewGUID()))
		book.scopes = append(book.scopes, vaults+innate.Scope(fmt.Sprintf("%07d", i)))
	}
	slices.Sort(book.principals) // rows that come in the order of their keys are written several times faster
	return book, b.fill(ctx, db, book)
}

// fill writes the assignments: while one transaction is made durable, the next is made.
func (b *bench) fill(ctx context.Context, db *store.DB, book *rolebook) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	n := len(book.principals)
	for from := 0; from < n && ctx.Err() == nil; from += perTransaction {
		if from%(20*perTransaction) == 0 {
			b.progress("writing assignments: %d of %d", from, n)
		}
		g.Go(func() error {
			_, err := db.Update(ctx, func(tx store.Tx) error { return book.write(tx, from, min(from+perTransaction, n)) })
			return err
		})
	}
	return g.Wait()
}

// write grants to the principals from and up to to.
func (r *rolebook) write(tx store.Tx, from, to int) error {
	for i := from; i < to; i++ {
		if err := access.Assign(tx, access.Assignment{
			ID: innate.NewGUID(), Scope: r.scopes[i], Role: access.KeyVaultSecretsUser, Principal: r.principals[i], Kind: "ServicePrincipal",
		}); err != nil {
			return err
		}
	}
	return nil
}

// newStore makes a folder with an empty store on the file engine in it.
func newStore(ctx context.Context, dir string) (*store.DB, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	engine, err := file.Create(filepath.Join(dir, "store"))
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, engine)
	if err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	return db, nil
}
