package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"innate/store"
)

// watch follows writers from several places, with a reader that stops and
// resumes, and one that begins when all is over.
func watch(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	const writers, times = 8, 50
	var g errgroup.Group
	for i := range writers {
		g.Go(func() error {
			for n := range times {
				if _, err := db.Update(t.Context(), func(tx store.Tx) error {
					tx.Put(fmt.Sprintf("w/%d/b", i), fmt.Append(nil, n))
					tx.Put(fmt.Sprintf("w/%d/a", i), fmt.Append(nil, n))
					return nil
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error { return inOrder(t.Context(), db, writers*times, 7) })
	g.Go(func() error { return inOrder(t.Context(), db, writers*times, 1) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := inOrder(t.Context(), db, writers*times, writers*times); err != nil {
		t.Errorf("a late watcher: %v", err)
	}
}

// inOrder watches from the beginning until it has seen want commits of watch's
// writers, and begins anew after every rest commits.
func inOrder(ctx context.Context, db *store.DB, want, rest int) error {
	var at store.Revision
	next := map[string]int{} // by key, the number that must come
	for seen := 0; seen < want; {
		now := 0
		for c, err := range db.Watch(ctx, at) {
			if err != nil {
				return err
			}
			if c.Revision <= at {
				return fmt.Errorf("revision %d after %d", c.Revision, at)
			}
			at = c.Revision
			if len(c.Changes) != 2 || !strings.HasSuffix(c.Changes[0].Key, "/a") || !strings.HasSuffix(c.Changes[1].Key, "/b") {
				return fmt.Errorf("revision %d: not its two changes in key order: %v", at, c.Changes)
			}
			for _, ch := range c.Changes {
				if got := string(ch.Value); got != fmt.Sprint(next[ch.Key]) {
					return fmt.Errorf("revision %d: %s=%s, want %d", at, ch.Key, got, next[ch.Key])
				}
				next[ch.Key]++
			}
			if err := db.View(ctx, func(r store.Reader) error {
				if r.Revision() < at {
					return fmt.Errorf("revision %d was shown while views are at %d", at, r.Revision())
				}
				return nil
			}); err != nil {
				return err
			}
			seen++
			if now++; now == rest || seen == want {
				break
			}
		}
	}
	return nil
}

func watchUnknown(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	rev := put(t, db, "a", "1")
	for _, err := range db.Watch(t.Context(), rev+1000) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("got %v, want ErrCompacted", err)
		}
		return
	}
	t.Error("the watch ended without a word")
}

func index(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	put(t, db, "i/1", "old")
	put(t, db, "i/2", "old")
	put(t, db, "j/1", "not ours")
	var mu sync.Mutex
	var heard []string
	rows := map[string]string{}
	db.Index("i/", func(ch store.Change) {
		mu.Lock()
		defer mu.Unlock()
		if ch.Value == nil {
			heard = append(heard, "-"+ch.Key)
			delete(rows, ch.Key)
			return
		}
		heard = append(heard, ch.Key+"="+string(ch.Value))
		rows[ch.Key] = string(ch.Value)
	})
	update(t, db, func(tx store.Tx) {
		tx.Put("i/3", []byte("new"))
		tx.Put("i/1", []byte("new"))
		tx.Delete("i/2")
		tx.Put("j/2", nil)
	})
	put(t, db, "i/1", "newer")
	mu.Lock()
	if diff := cmp.Diff([]string{"i/1=old", "i/2=old", "i/1=new", "-i/2", "i/3=new", "i/1=newer"}, heard); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	mu.Unlock()
	var g errgroup.Group
	for w := range 8 {
		g.Go(func() error {
			for n := range 20 {
				key, value := fmt.Sprint("i/w", w), fmt.Sprint(n)
				if _, err := db.Update(t.Context(), func(tx store.Tx) error { tx.Put(key, []byte(value)); return nil }); err != nil {
					return err
				}
				mu.Lock()
				got := rows[key]
				mu.Unlock()
				if got != value {
					return fmt.Errorf("after the Update the index has %s=%q, want %q", key, got, value)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func syncing(t *testing.T, open func(t *testing.T) store.Engine) {
	engine := open(t)
	here := openDB(t, engine)
	there := openDB(t, engine) // as another process would
	for i := range 50 {
		want := fmt.Sprint(i)
		put(t, there, "a", want)
		var g errgroup.Group
		for range 4 { // a burst
			g.Go(func() error {
				if err := here.Sync(t.Context()); err != nil {
					return err
				}
				return here.View(t.Context(), func(r store.Reader) error {
					if got, _ := r.Get("a"); string(got) != want {
						return fmt.Errorf("after Sync a=%q, want %q", got, want)
					}
					return nil
				})
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func reopening(t *testing.T, open func(t *testing.T) store.Engine) {
	var want []string
	var last store.Revision
	for round := range 3 {
		db, err := store.Open(t.Context(), open(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, all(t, db, "")); diff != "" {
			t.Errorf("opened for the %d. time (-want +got):\n%s", round+1, diff)
		}
		rev := put(t, db, fmt.Sprint("r/", round), "")
		if rev <= last {
			t.Errorf("revision %d after %d", rev, last)
		}
		// What was committed before the store was closed can still be followed.
		for c, err := range db.Watch(t.Context(), last) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Revision == rev {
				break
			}
		}
		update(t, db, func(tx store.Tx) { tx.Put("gone", nil) })
		last = update(t, db, func(tx store.Tx) { tx.Delete("gone") })
		want = all(t, db, "")
		closeDB(t, db)
	}
	if len(want) != 3 {
		t.Errorf("in the end: %q", want)
	}
}

func cancelled(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	started := make(chan struct{})
	g.Go(func() error {
		close(started)
		for _, err := range db.Watch(ctx, 0) {
			if err != nil {
				return err
			}
		}
		return errors.New("the watch ended without a word")
	})
	<-started
	cancel()
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: got %v, want %v", err, context.Canceled)
	}
	if _, err := db.Update(ctx, func(tx store.Tx) error { tx.Put("a", nil); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update: got %v, want %v", err, context.Canceled)
	}
	if err := db.View(ctx, func(store.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("View: got %v, want %v", err, context.Canceled)
	}
	put(t, db, "b", "")
	if diff := cmp.Diff([]string{"b="}, all(t, db, "")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func closed(t *testing.T, open func(t *testing.T) store.Engine) {
	db := openDB(t, open(t))
	put(t, db, "a", "")
	closeDB(t, db)
	if _, err := db.Update(t.Context(), func(tx store.Tx) error { tx.Put("b", nil); return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("Update: got %v, want ErrClosed", err)
	}
	for _, err := range db.Watch(t.Context(), 0) {
		if err != nil {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("Watch: got %v, want ErrClosed", err)
			}
			return
		}
	}
	t.Error("the watch ended without a word")
}
