package storetest

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate/store"
)

func ownWrites(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	put(t, db, "a/old", "1")
	put(t, db, "a/gone", "1")
	update(t, db, func(tx store.Tx) {
		tx.Put("a/new", []byte("2"))
		tx.Put("a/empty", nil)
		tx.Delete("a/gone")
		tx.Delete("a/never")
		if v, ok := tx.Get("a/new"); !ok || string(v) != "2" {
			t.Errorf("own write: got %q, %v", v, ok)
		}
		if _, ok := tx.Get("a/gone"); ok {
			t.Error("a row deleted in this transaction is still there")
		}
		if v, ok := tx.Get("a/empty"); !ok || len(v) != 0 {
			t.Errorf("an empty row: got %q, %v, want it there and empty", v, ok)
		}
		if diff := cmp.Diff([]string{"a/empty=", "a/new=2", "a/old=1"}, scanned(tx, "a/", "")); diff != "" {
			t.Errorf("scan inside (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"a/gone=1", "a/old=1"}, all(t, db, "a/")); diff != "" {
			t.Errorf("view before the commit (-want +got):\n%s", diff)
		}
	})
	if diff := cmp.Diff([]string{"a/empty=", "a/new=2", "a/old=1"}, all(t, db, "a/")); diff != "" {
		t.Errorf("view after (-want +got):\n%s", diff)
	}
}

// scansLikeAMap compares random transactions with a map that is sorted for each scan.
func scansLikeAMap(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	random := rand.New(rand.NewPCG(1, 2))
	keys := []string{"a", "a/", "a/b", "a/b\x00", "a/b/", "a/c", "a/\xff", "a/\xff\xff", "a0", "b", "\xff", "\xff\xff/", "\xff\xff\xff"}
	prefixes := append([]string{"", "a/b/c", "c"}, keys...)
	model := map[string]string{}
	like := func(r store.Reader) {
		prefix, from := prefixes[random.IntN(len(prefixes))], prefixes[random.IntN(len(prefixes))]
		var want []string
		for _, k := range slices.Sorted(maps.Keys(model)) {
			if strings.HasPrefix(k, prefix) && k >= from {
				want = append(want, k+"="+model[k])
			}
		}
		if diff := cmp.Diff(want, scanned(r, prefix, from)); diff != "" {
			t.Fatalf("scan of prefix %q from %q (-want +got):\n%s", prefix, from, diff)
		}
	}
	for range 100 {
		update(t, db, func(tx store.Tx) {
			for range 10 {
				k := keys[random.IntN(len(keys))]
				if random.IntN(3) == 0 {
					tx.Delete(k)
					delete(model, k)
				} else {
					tx.Put(k, []byte(k))
					model[k] = k
				}
				like(tx)
			}
		})
		if err := db.View(t.Context(), func(r store.Reader) error { like(r); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	// A loop may delete what it is given.
	update(t, db, func(tx store.Tx) {
		tx.Put("a/own", nil)
		for k := range tx.Scan("", "") {
			tx.Delete(k)
			tx.Put("z"+k, nil)
		}
		for k := range tx.Scan("z", "") {
			tx.Delete(k)
		}
	})
	if left := all(t, db, ""); len(left) > 0 {
		t.Errorf("after deleting all in a loop: %q", left)
	}
}

func failedUpdate(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	no := errors.New("no")
	if _, err := db.Update(t.Context(), func(tx store.Tx) error {
		tx.Put("a", nil)
		return no
	}); !errors.Is(err, no) {
		t.Errorf("got %v, want the function's own error", err)
	}
	if rows := all(t, db, ""); len(rows) > 0 {
		t.Errorf("rows of a failed update: %q", rows)
	}
}

func panicking(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		db.Update(t.Context(), func(tx store.Tx) error { tx.Put("a", nil); panic("on purpose") })
	}()
	put(t, db, "b", "1")
	// Whoever needs the store to himself still gets it.
	conflicting(t, db, 10)
	if diff := cmp.Diff([]string{"b=1"}, all(t, db, "b")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func readOnlyUpdate(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	want := put(t, db, "a", "1")
	if got := update(t, db, func(tx store.Tx) { tx.Get("a") }); got != want {
		t.Errorf("revision %d, want %d, that of what it saw", got, want)
	}
	if got, want := put(t, db, "a", "2"), want+1; got != want {
		t.Errorf("the next commit is revision %d, want %d", got, want)
	}
}

func badKeys(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	for _, key := range []string{"", strings.Repeat("k", store.MaxKey+1)} {
		if _, err := db.Update(t.Context(), func(tx store.Tx) error {
			tx.Put("a", nil)
			tx.Put(key, nil)
			return nil
		}); err == nil {
			t.Errorf("a key of %d bytes was accepted", len(key))
		}
	}
	longest := strings.Repeat("k", store.MaxKey)
	put(t, db, longest, "1")
	if diff := cmp.Diff([]string{longest + "=1"}, all(t, db, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
