// Package store is the contract of durable state: one ordered key-value space
// with transactions and a change feed.
//
// It owns the replica that reads are served from, the optimistic transactions
// over it and the order in which everyone hears of changes. It knows no rules:
// what a row means is the business of the noun that wrote it. Durability is an
// Engine's (store/file; later store/etcd), and every engine passes store/storetest.
//
// A transaction function may run more than once: it must have no effect outside
// its Tx.
package store

import (
	"context"
	"errors"
	"iter"
)

// MaxKey is the length in bytes of the longest key a row may have.
const MaxKey = 4096

// A Revision numbers a committed transaction; the first is 1. Revisions only grow.
type Revision uint64

// ErrCompacted says that the history before a revision is gone: read the
// present state and watch from there.
var ErrCompacted = errors.New("store: that revision's history is no longer kept")

// ErrClosed is what a store answers once it has been closed.
var ErrClosed = errors.New("store: closed")

// A Change is one row of a committed transaction. A nil Value means the row is gone.
type Change struct {
	Key   string
	Value []byte
}

// A Commit is one committed transaction: all its changes, in key order.
type Commit struct {
	Revision Revision
	Changes  []Change
}

// A Reader sees one revision of the whole state. What it returns is shared: do not modify it.
type Reader interface {
	// Revision is the revision that this reader sees.
	Revision() Revision
	Get(key string) ([]byte, bool)
	// Scan yields the rows whose key begins with prefix and is not below from,
	// in key order. An empty from means the first. Rows written while it runs
	// do not appear in it, so a loop may delete what it is given.
	Scan(prefix, from string) iter.Seq2[string, []byte]
}

// A Tx is a Reader that sees its own writes. It is for one goroutine.
type Tx interface {
	Reader
	// Put writes a row; value is the store's from then on.
	Put(key string, value []byte)
	// Delete removes a row; one that is absent stays so.
	Delete(key string)
}

// An Engine makes transactions durable and puts them in order.
type Engine interface {
	// Load calls row with every row of the newest revision, in key order.
	Load(ctx context.Context, row func(key string, value []byte) error) (Revision, error)
	// Commit makes txn durable, or returns ErrConflict when a row that it read
	// has changed since txn.Base. It may be called from many goroutines and
	// gathers what arrives together into one write (group commit). After any
	// other error the transaction may or may not have been committed.
	Commit(ctx context.Context, txn Txn) (Revision, error)
	// Follow yields the commits after from, in order and without a gap, some at a
	// time as they come. It ends with an error: ctx's, or ErrCompacted when the
	// commits are no longer kept or from is a revision that never was.
	Follow(ctx context.Context, from Revision) iter.Seq2[[]Commit, error]
	// Sync returns the newest committed revision.
	Sync(ctx context.Context) (Revision, error)
	// Close lets what is being committed end, and answers the rest with ErrClosed.
	Close() error
}

// ErrConflict is how an Engine says that what a transaction read has changed.
var ErrConflict = errors.New("store: conflict")

// A Txn is what a transaction read and wants written.
type Txn struct {
	Base   Revision // what it saw
	Gets   []string // keys it read, present or not
	Scans  []Range  // ranges it read
	Writes []Change // in key order, one per key
}

// A Range is the keys k with From <= k < To; an empty To means to the end.
type Range struct{ From, To string }
