package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"innate/store"
)

func counters(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	const writers, times = 16, 10
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error {
			for range times {
				if err := errors.Join(add(t.Context(), db, "shared", 1), add(t.Context(), db, "own/"+strconv.Itoa(i), 1)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{fmt.Sprint("shared=", writers*times)}, all(t, db, "shared")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, row := range all(t, db, "own/") {
		if want := fmt.Sprint("=", times); row[len(row)-len(want):] != want {
			t.Errorf("got %s, want %s", row, want)
		}
	}
}

// conflicting runs an Update that loses against another each of its first times runs,
// as long as the store is not its own.
func conflicting(t *testing.T, db *store.DB, times int) {
	t.Helper()
	runs := 0
	update(t, db, func(tx store.Tx) {
		have, err := number(tx, "contended")
		if err != nil {
			t.Fatal(err)
		}
		tx.Put("contended", fmt.Append(nil, have+1))
		if runs++; runs <= times {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if runs > 2 {
				cancel() // it may be that nobody else gets in any more
			}
			if err := add(ctx, db, "contended", 100); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
	})
	if runs < 3 {
		t.Errorf("ran %d times, want at least 3: it lost twice", runs)
	}
}

func conflicts(t *testing.T, open func(t *testing.T) store.Engine) {
	tests := []struct {
		name  string
		read  func(tx store.Tx)
		other func(tx store.Tx)
		again bool
	}{
		{"changed", func(tx store.Tx) { tx.Get("a/2") }, func(tx store.Tx) { tx.Put("a/2", nil) }, true},
		{"deleted", func(tx store.Tx) { tx.Get("a/2") }, func(tx store.Tx) { tx.Delete("a/2") }, true},
		{"created", func(tx store.Tx) { tx.Get("a/9") }, func(tx store.Tx) { tx.Put("a/9", nil) }, true},
		{"another row", func(tx store.Tx) { tx.Get("a/2") }, func(tx store.Tx) { tx.Put("a/3", nil) }, false},
		{"read after the own write", func(tx store.Tx) { tx.Put("a/2", nil); tx.Get("a/2") }, func(tx store.Tx) { tx.Put("a/2", nil) }, false},
		{"blind write", func(tx store.Tx) { tx.Put("a/2", nil) }, func(tx store.Tx) { tx.Put("a/2", nil) }, false},
		{"changed in the range", scan("a/", ""), func(tx store.Tx) { tx.Put("a/2", nil) }, true},
		{"inserted into the range", scan("a/", ""), func(tx store.Tx) { tx.Put("a/11", nil) }, true},
		{"deleted from the range", scan("a/", ""), func(tx store.Tx) { tx.Delete("a/3") }, true},
		{"below the range", scan("a/", "a/2"), func(tx store.Tx) { tx.Put("a/11", nil) }, false},
		{"above the range", scan("a/", ""), func(tx store.Tx) { tx.Put("a0", nil) }, false},
		{"beyond where the scan stopped", first("a/"), func(tx store.Tx) { tx.Put("a/2", nil) }, false},
		{"before where the scan stopped", first("a/"), func(tx store.Tx) { tx.Put("a/0", nil) }, true},
		{"everything", scan("", ""), func(tx store.Tx) { tx.Put("\xff", nil) }, true},
	}
	for _, tt := range tests {
		db := openDB(t, open(t))
		for i := range 3 {
			put(t, db, fmt.Sprint("a/", i+1), "")
		}
		runs := 0
		update(t, db, func(tx store.Tx) {
			tt.read(tx)
			tx.Put("result", nil)
			if runs++; runs == 1 {
				update(t, db, tt.other)
			}
		})
		if again := runs == 2; again != tt.again {
			t.Errorf("%s: ran %d times", tt.name, runs)
		}
		update(t, db, func(tx store.Tx) {
			for k := range tx.Scan("", "") {
				tx.Delete(k)
			}
		})
		closeDB(t, db)
	}
}

func scan(prefix, from string) func(tx store.Tx) {
	return func(tx store.Tx) { scanned(tx, prefix, from) }
}

func first(prefix string) func(tx store.Tx) {
	return func(tx store.Tx) {
		for range tx.Scan(prefix, "") {
			return
		}
	}
}

// phantoms lets more people ask for a seat than there are.
func phantoms(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	const people, seats = 40, 10
	full := errors.New("full")
	var g errgroup.Group
	for i := range people {
		g.Go(func() error {
			_, err := db.Update(t.Context(), func(tx store.Tx) error {
				if len(scanned(tx, "seats/", "")) == seats {
					return full
				}
				tx.Put("seats/"+strconv.Itoa(i), nil)
				return nil
			})
			if errors.Is(err, full) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := len(all(t, db, "seats/")); got != seats {
		t.Errorf("%d seats were given, want %d", got, seats)
	}
}

// writeSkew has two doctors who each go home if another is on call.
func writeSkew(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	for range 20 {
		put(t, db, "oncall/a", "")
		put(t, db, "oncall/b", "")
		var g errgroup.Group
		for _, me := range []string{"a", "b"} {
			other := map[string]string{"a": "b", "b": "a"}[me]
			g.Go(func() error {
				_, err := db.Update(t.Context(), func(tx store.Tx) error {
					if _, ok := tx.Get("oncall/" + other); ok {
						tx.Delete("oncall/" + me)
					}
					return nil
				})
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		if got := all(t, db, "oncall/"); len(got) != 1 {
			t.Fatalf("on call: %q, want one", got)
		}
	}
}

// starvation has one Update that reads every row while others never stop writing.
func starvation(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	stop := make(chan struct{})
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 4 {
		g.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := add(ctx, db, "rows/"+strconv.Itoa(i), 1); err != nil {
					return err
				}
			}
		})
	}
	for range 5 {
		if _, err := db.Update(ctx, func(tx store.Tx) error {
			tx.Put("rows", fmt.Append(nil, len(scanned(tx, "rows/", ""))))
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

func consistentView(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	stop := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(stop)
		for i := range 200 {
			if _, err := db.Update(t.Context(), func(tx store.Tx) error {
				tx.Put("left", fmt.Append(nil, i))
				tx.Put("right", fmt.Append(nil, -i))
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		var last store.Revision
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := db.View(t.Context(), func(r store.Reader) error {
				if r.Revision() < last {
					return fmt.Errorf("revision %d after %d", r.Revision(), last)
				}
				last = r.Revision()
				left, err1 := number(r, "left")
				right, err2 := number(r, "right")
				if left+right != 0 {
					return fmt.Errorf("half a transaction: left %d, right %d", left, right)
				}
				return errors.Join(err1, err2)
			}); err != nil {
				return err
			}
		}
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
