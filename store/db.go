package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// patience is how many conflicts an Update bears before it asks for the store to itself.
const patience = 4

// everyone is the weight of all turns together: who holds it is alone.
const everyone = math.MaxInt32

// A DB is a process's view of the state: a replica in memory, kept current by
// its engine's commits.
type DB struct {
	engine  Engine
	replica *replica
	turns   *semaphore.Weighted // an Update holds one, an unlucky one holds everyone's
	newest  rendezvous

	stop     context.CancelFunc
	followed chan struct{} // closed when follow has returned
	close    func() error
}

// Open loads the replica from engine and starts the goroutine that keeps it
// current, which Close ends. ctx bounds the loading alone.
func Open(ctx context.Context, engine Engine) (*DB, error) {
	rows := newRows()
	rev, err := load(ctx, engine, rows)
	if err != nil {
		return nil, fmt.Errorf("loading the store: %w", err)
	}
	life, stop := context.WithCancel(context.Background())
	db := &DB{
		engine:   engine,
		replica:  newReplica(rev, rows),
		turns:    semaphore.NewWeighted(everyone),
		newest:   rendezvous{ask: func() (Revision, error) { return engine.Sync(life) }},
		stop:     stop,
		followed: make(chan struct{}),
	}
	db.close = sync.OnceValue(func() error {
		stop()
		<-db.followed
		return engine.Close()
	})
	go db.follow(life)
	return db, nil
}

// View runs fn on the newest revision this process has seen.
func (db *DB) View(ctx context.Context, fn func(Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn(db.replica.current.Load())
}

// Update runs fn and commits what it wrote, again after each conflict. When it
// returns, every index of this process has the change. An error of fn's is
// returned as it is, and nothing was written. After any other error, that of a
// ctx that ended included, the change may or may not have been committed.
// fn must not call Update: it could wait for itself.
func (db *DB) Update(ctx context.Context, fn func(Tx) error) (Revision, error) {
	for conflicts := 0; ; conflicts++ {
		rev, err := db.attempt(ctx, conflicts, fn)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return rev, db.replica.await(ctx, rev)
	}
}

// attempt runs fn once and commits. After a few conflicts it keeps other
// Updates of this process out meanwhile, so that it cannot lose for ever.
func (db *DB) attempt(ctx context.Context, conflicts int, fn func(Tx) error) (Revision, error) {
	turn := int64(1)
	if conflicts >= patience {
		turn = everyone
	}
	if err := db.turns.Acquire(ctx, turn); err != nil {
		return 0, err
	}
	defer db.turns.Release(turn)
	if conflicts > 0 { // the replica may not have what it conflicted with
		if err := db.Sync(ctx); err != nil {
			return 0, err
		}
	}
	tx := newTransaction(db.replica.current.Load())
	if err := fn(tx); err != nil {
		return 0, err
	}
	txn, err := tx.txn()
	if err != nil {
		return 0, err
	}
	if len(txn.Writes) == 0 {
		return txn.Base, nil
	}
	return db.engine.Commit(ctx, txn)
}

// Watch yields every commit after from, in order, each once, and only when the
// replica has it. It ends with an error: ctx's, or ErrCompacted. A slow reader
// holds nobody up, until what it has yet to read is no longer kept.
func (db *DB) Watch(ctx context.Context, from Revision) iter.Seq2[Commit, error] {
	return func(yield func(Commit, error) bool) {
		for commits, err := range db.engine.Follow(ctx, from) {
			if err == nil {
				err = db.replica.await(ctx, commits[len(commits)-1].Revision)
			}
			if err != nil {
				yield(Commit{}, err)
				return
			}
			for _, c := range commits {
				if !yield(c, nil) {
					return
				}
			}
		}
	}
}

// Sync returns once this process has seen all that was committed before the
// call. Calls that arrive together cost the engine one.
func (db *DB) Sync(ctx context.Context) error {
	rev, err := db.newest.join(ctx)
	if err != nil {
		return err
	}
	return db.replica.await(ctx, rev)
}

// Index calls apply with every row under prefix, then with every later change
// to one, in commit order, before the Update or Sync that brought it returns.
// apply must be quick and must not call db.
func (db *DB) Index(prefix string, apply func(Change)) { db.replica.index(prefix, apply) }

// Close ends the goroutine that Open started and closes the engine.
func (db *DB) Close() error { return db.close() }

// The pause after a failure to follow the engine doubles from shortest to longest.
const (
	shortestPause = 10 * time.Millisecond
	longestPause  = 5 * time.Second
)

// follow applies the engine's commits to the replica until ctx ends or the
// engine is closed.
func (db *DB) follow(ctx context.Context) {
	defer close(db.followed)
	defer db.replica.close()
	pause := shortestPause
	for {
		applied, err := db.applyCommits(ctx)
		if errors.Is(err, ErrCompacted) {
			err = db.reload(ctx)
		}
		if ctx.Err() != nil || errors.Is(err, ErrClosed) {
			return
		}
		if applied || err == nil {
			pause = shortestPause
		}
		if err == nil {
			continue
		}
		slog.Error("following the store; trying again", "err", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, longestPause)
	}
}

func (db *DB) applyCommits(ctx context.Context) (applied bool, err error) {
	for commits, err := range db.engine.Follow(ctx, db.replica.current.Load().revision) {
		if err != nil {
			return applied, err
		}
		db.replica.apply(commits)
		applied = true
	}
	return applied, nil
}

// reload brings a replica that has lost the thread to the present in one step.
func (db *DB) reload(ctx context.Context) error {
	rows := newRows()
	rev, err := load(ctx, db.engine, rows)
	if err != nil {
		return fmt.Errorf("loading the store again: %w", err)
	}
	missed := changes(db.replica.current.Load().rows, rows)
	db.replica.apply([]Commit{{Revision: rev, Changes: missed}})
	return nil
}

func load(ctx context.Context, engine Engine, rows *rows) (Revision, error) {
	return engine.Load(ctx, func(key string, value []byte) error {
		rows.ReplaceOrInsert(row{key, value})
		return nil
	})
}
