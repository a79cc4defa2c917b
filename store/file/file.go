// Package file is the embedded store engine: one bbolt file, group commit.
//
// It owns durability and order on one machine: the file's format, the check of
// each transaction against what was committed since its base, the history that
// followers read. It leaves the replica, indexes and retries to store.
//
// The file belongs to one process at a time. It must be on a local file system
// that keeps what fsync was answered for; bbolt warns of ext4 with fast_commit
// on Linux before 5.17. It grows and does not shrink.
package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"innate/store"
)

// The file has three buckets: rows by key; the log, commits by revision (eight
// bytes, big endian); and meta: the format and the newest revision.
var (
	rowsBucket  = []byte("rows")
	logBucket   = []byte("log")
	metaBucket  = []byte("meta")
	formatKey   = []byte("format")
	revisionKey = []byte("revision")
)

const format = "innate store 1"

// lockTimeout is how long to wait for another process to let go of the file.
const lockTimeout = 500 * time.Millisecond

// An Engine is a store.Engine over one file.
type Engine struct {
	path     string
	bolt     *bbolt.DB
	requests chan *request
	closing  chan struct{}
	ended    chan struct{} // closed when the committer has returned
	close    func() error

	// The committer's own.
	oldest  store.Revision // first in the log, one more than the newest when it is empty
	unclear bool           // a commit failed: the file may have it or not

	mu      sync.Mutex
	history history
	grown   chan struct{} // closed when the history has grown, and replaced
}

// Create makes a new, empty store; it refuses a path that exists.
func Create(path string) (*Engine, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating the store %s: it exists already: open it, or choose another place", path)
	}
	if err != nil {
		return nil, fmt.Errorf("creating the store: %w", err)
	}
	f.Close()
	e, err := create(path)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("creating the store %s: %w", path, err)
	}
	return e, nil
}

func create(path string) (*Engine, error) {
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{rowsBucket, logBucket} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		meta, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		if err := meta.Put(formatKey, []byte(format)); err != nil {
			return err
		}
		return meta.Put(revisionKey, revisionBytes(0))
	})
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	return start(path, db, 0, 1), nil
}

// Open opens an existing store; it refuses a path that does not exist and one
// that another process holds.
func Open(path string) (*Engine, error) {
	// bbolt would make a store of an empty file, and of no file at all.
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening the store %s: it does not exist: create it first, with innate server init", path)
	case err != nil:
		return nil, fmt.Errorf("opening the store: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("opening the store %s: it is not a regular file", path)
	case info.Size() == 0:
		return nil, unfinished(path)
	}
	db, err := openBolt(path)
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, err)
	}
	var newest, oldest store.Revision
	err = db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			return unfinished(path)
		}
		if got := meta.Get(formatKey); string(got) != format {
			return fmt.Errorf("opening the store %s: its format is %q; this program reads %q: use the version of innate that wrote it", path, got, format)
		}
		newest = revision(meta.Get(revisionKey))
		oldest = newest + 1
		if first, _ := tx.Bucket(logBucket).Cursor().First(); first != nil {
			oldest = revision(first)
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, err
	}
	return start(path, db, newest, oldest), nil
}

func unfinished(path string) error {
	return fmt.Errorf("opening the store %s: its creation did not finish: remove it and create it again", path)
}

func openBolt(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      lockTimeout,
		FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag&^os.O_CREATE, mode) // opening never creates
		},
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, errors.New("another process has the store open: stop it first")
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return nil, fmt.Errorf("it is damaged or no store of innate's: %w", err)
	}
	return db, err
}

func start(path string, db *bbolt.DB, newest, oldest store.Revision) *Engine {
	e := &Engine{
		path:     path,
		bolt:     db,
		requests: make(chan *request),
		closing:  make(chan struct{}),
		ended:    make(chan struct{}),
		oldest:   oldest,
		history:  newHistory(newest),
		grown:    make(chan struct{}),
	}
	e.close = sync.OnceValue(func() error {
		close(e.closing)
		<-e.ended
		return e.bolt.Close()
	})
	go e.commitAll()
	return e
}

// Load calls row with every row of the newest revision, in key order.
func (e *Engine) Load(ctx context.Context, row func(key string, value []byte) error) (rev store.Revision, err error) {
	err = e.bolt.View(func(tx *bbolt.Tx) error {
		rev = revision(tx.Bucket(metaBucket).Get(revisionKey))
		return tx.Bucket(rowsBucket).ForEach(func(k, v []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return row(string(k), bytes.Clone(v))
		})
	})
	return rev, e.closed(err)
}

// Sync returns the newest committed revision.
func (e *Engine) Sync(ctx context.Context) (store.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.history.newest(), nil
}

// Close lets what is being committed end and closes the file.
func (e *Engine) Close() error { return e.close() }

// closed says in store's words that the file is closed.
func (e *Engine) closed(err error) error {
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}

func revision(b []byte) store.Revision { return store.Revision(binary.BigEndian.Uint64(b)) }

func revisionBytes(r store.Revision) []byte { return binary.BigEndian.AppendUint64(nil, uint64(r)) }

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
