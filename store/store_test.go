package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"innate/store"
	"innate/store/file"
)

func create(t *testing.T) *file.Engine {
	t.Helper()
	engine, err := file.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

func openDB(t *testing.T, engine store.Engine) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), engine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func update(t *testing.T, db *store.DB, fn func(tx store.Tx) error) {
	t.Helper()
	if _, err := db.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// A laggard is an engine whose followers come too late for the history, for as
// long as it is deaf.
type laggard struct {
	store.Engine
	deaf chan struct{} // closed when it hears again
	lost atomic.Bool   // the next follower is told that it has lost the thread
}

func (l *laggard) Follow(ctx context.Context, from store.Revision) iter.Seq2[[]store.Commit, error] {
	return func(yield func([]store.Commit, error) bool) {
		select {
		case <-l.deaf:
		case <-ctx.Done():
			yield(nil, ctx.Err())
			return
		}
		if l.lost.CompareAndSwap(true, false) {
			yield(nil, store.ErrCompacted)
			return
		}
		l.Engine.Follow(ctx, from)(yield)
	}
}

func TestAReplicaThatLostTheThreadLoadsThePresent(t *testing.T) {
	file := create(t)
	writer := openDB(t, file)
	update(t, writer, func(tx store.Tx) error {
		tx.Put("a/same", []byte("1"))
		tx.Put("a/changed", []byte("1"))
		tx.Put("a/removed", []byte("1"))
		return nil
	})
	engine := &laggard{Engine: file, deaf: make(chan struct{})}
	engine.lost.Store(true)
	db := openDB(t, engine)
	var heard []string
	db.Index("a/", func(ch store.Change) { heard = append(heard, fmt.Sprintf("%s=%s", ch.Key, ch.Value)) })
	update(t, writer, func(tx store.Tx) error {
		tx.Put("a/added", []byte("2"))
		tx.Put("a/changed", []byte("2"))
		tx.Delete("a/removed")
		return nil
	})
	close(engine.deaf)
	if err := db.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"a/changed=1", "a/removed=1", "a/same=1", "a/added=2", "a/changed=2", "a/removed="}
	if diff := cmp.Diff(want, heard); diff != "" {
		t.Errorf("what the index heard (-want +got):\n%s", diff)
	}
	var rows []string
	if err := db.View(t.Context(), func(r store.Reader) error {
		for k, v := range r.Scan("", "") {
			rows = append(rows, k+"="+string(v))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a/added=2", "a/changed=2", "a/same=1"}, rows); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

// A slow engine answers Sync when told to, and counts.
type slow struct {
	store.Engine
	asked  chan struct{}
	answer chan struct{}
	times  atomic.Int64
}

func (s *slow) Sync(ctx context.Context) (store.Revision, error) {
	s.times.Add(1)
	s.asked <- struct{}{}
	<-s.answer
	return s.Engine.Sync(ctx)
}

func TestABurstOfSyncsCostsTheEngineOne(t *testing.T) {
	engine := &slow{Engine: create(t), asked: make(chan struct{}, 100), answer: make(chan struct{})}
	db := openDB(t, engine)
	var g errgroup.Group
	g.Go(func() error { return db.Sync(t.Context()) })
	<-engine.asked
	// These come too late for the question that is being asked. They do not wait
	// for theirs, so that it is certain that all have come before it is asked.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		if err := db.Sync(gone); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v, want %v", err, context.Canceled)
		}
	}
	close(engine.answer)
	<-engine.asked
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := db.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := engine.times.Load(); got != 3 {
		t.Errorf("1 call, then 50, then 1 cost %d, want 3", got)
	}
}

type user struct {
	Name string `json:"name"`
}

func TestATableIsAPrefixOfOneType(t *testing.T) {
	db := openDB(t, create(t))
	users := store.Table[user]("directory/users/")
	indexed := map[string]string{}
	users.Index(db, func(id string, u *user) {
		if u == nil {
			delete(indexed, id)
			return
		}
		indexed[id] = u.Name
	})
	update(t, db, func(tx store.Tx) error {
		tx.Put("directory/usersettings", []byte("not a user"))
		for id, name := range map[string]string{"1": "Ada", "2": "Grace", "21": "Edsger", "3": "Gone"} {
			if err := users.Put(tx, id, user{name}); err != nil {
				return err
			}
		}
		users.Delete(tx, "3")
		return nil
	})
	if diff := cmp.Diff(map[string]string{"1": "Ada", "2": "Grace", "21": "Edsger"}, indexed); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	if err := db.View(t.Context(), func(r store.Reader) error {
		if u, ok, err := users.Get(r, "2"); err != nil || !ok || u.Name != "Grace" {
			t.Errorf("2: got %v, %v, %v", u, ok, err)
		}
		if _, ok, err := users.Get(r, "3"); ok || err != nil {
			t.Errorf("3 was deleted: got %v, %v", ok, err)
		}
		var ids []string
		for id := range users.All(r, "2", "20") {
			ids = append(ids, id)
		}
		if diff := cmp.Diff([]string{"21"}, ids); diff != "" {
			t.Errorf("under 2 from 20 (-want +got):\n%s", diff)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	update(t, db, func(tx store.Tx) error { tx.Put("other/1", []byte(`{"name":1}`)); return nil })
	if err := db.View(t.Context(), func(r store.Reader) error {
		_, _, err := store.Table[user]("other/").Get(r, "1")
		return err
	}); !errors.As(err, new(*json.UnmarshalTypeError)) {
		t.Errorf("a row of another type: got %v, want what is wrong with it", err)
	}
}
