package store

import (
	"bytes"
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/btree"
)

type row struct {
	key   string
	value []byte
}

// rows is an ordered set whose Clone costs nothing until one of the two changes.
type rows = btree.BTreeG[row]

func newRows() *rows {
	const degree = 16 // a commit copies the nodes on its path: small ones cost less
	return btree.NewG(degree, func(a, b row) bool { return a.key < b.key })
}

// A snapshot is the whole state at one revision. It never changes.
type snapshot struct {
	revision Revision
	rows     *rows
}

func (s *snapshot) Revision() Revision { return s.revision }

func (s *snapshot) Get(key string) ([]byte, bool) {
	r, ok := s.rows.Get(row{key: key})
	return r.value, ok
}

func (s *snapshot) Scan(prefix, from string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		ascend(s.rows, under(prefix, from), func(r row) bool { return yield(r.key, r.value) })
	}
}

// under is the range of the keys that begin with prefix and are not below from.
func under(prefix, from string) Range {
	return Range{From: max(prefix, from), To: after(prefix)}
}

// after is the first key above all those that begin with prefix; empty if none is.
func after(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return ""
}

func ascend(rows *rows, r Range, visit func(row) bool) {
	if r.To == "" {
		rows.AscendGreaterOrEqual(row{key: r.From}, visit)
		return
	}
	rows.AscendRange(row{key: r.From}, row{key: r.To}, visit)
}

// A replica is the newest snapshot and those who must hear when it changes.
type replica struct {
	current atomic.Pointer[snapshot]

	mu      sync.Mutex // held while a commit is applied
	rows    *rows      // the tree that current's is a clone of
	indexes []index
	waiting []waiter
	closed  chan struct{}
}

type index struct {
	prefix string
	apply  func(Change)
}

// A waiter's channel is closed once the replica has reached its revision.
type waiter struct {
	revision Revision
	reached  chan struct{}
}

func newReplica(rev Revision, rows *rows) *replica {
	r := &replica{rows: rows, closed: make(chan struct{})}
	r.current.Store(&snapshot{rev, rows.Clone()})
	return r
}

// apply brings the replica to the last of commits in one step: first the
// indexes, then readers, then those who wait for it.
func (r *replica) apply(commits []Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range commits {
		for _, ch := range c.Changes {
			r.change(ch)
		}
	}
	rev := commits[len(commits)-1].Revision
	r.current.Store(&snapshot{rev, r.rows.Clone()})
	r.waiting = slices.DeleteFunc(r.waiting, func(w waiter) bool {
		reached := w.revision <= rev
		if reached {
			close(w.reached)
		}
		return reached
	})
}

func (r *replica) change(ch Change) {
	if ch.Value == nil {
		r.rows.Delete(row{key: ch.Key})
	} else {
		r.rows.ReplaceOrInsert(row{ch.Key, ch.Value})
	}
	for _, ix := range r.indexes {
		if strings.HasPrefix(ch.Key, ix.prefix) {
			ix.apply(ch)
		}
	}
}

// await returns when the replica has reached rev.
func (r *replica) await(ctx context.Context, rev Revision) error {
	if r.current.Load().revision >= rev {
		return nil
	}
	w := waiter{rev, make(chan struct{})}
	r.mu.Lock()
	if r.current.Load().revision >= rev {
		r.mu.Unlock()
		return nil
	}
	r.waiting = append(r.waiting, w)
	r.mu.Unlock()
	select {
	case <-w.reached:
		return nil
	case <-r.closed:
		return ErrClosed
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = slices.DeleteFunc(r.waiting, func(o waiter) bool { return o == w })
	return ctx.Err()
}

func (r *replica) index(prefix string, apply func(Change)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ascend(r.rows, under(prefix, ""), func(row row) bool {
		apply(Change{row.key, row.value})
		return true
	})
	r.indexes = append(r.indexes, index{prefix, apply})
}

// close ends the waiting of all who wait for a revision that will not come.
func (r *replica) close() { close(r.closed) }

// changes is what makes new of old, in key order.
func changes(old, new *rows) []Change {
	var cs []Change
	old.Ascend(func(o row) bool {
		if !new.Has(o) {
			cs = append(cs, Change{Key: o.key})
		}
		return true
	})
	new.Ascend(func(n row) bool {
		if o, ok := old.Get(n); !ok || !bytes.Equal(o.value, n.value) {
			cs = append(cs, Change{n.key, n.value})
		}
		return true
	})
	slices.SortFunc(cs, func(a, b Change) int { return strings.Compare(a.Key, b.Key) })
	return cs
}
