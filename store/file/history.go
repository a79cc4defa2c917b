package file

import (
	"slices"

	"github.com/google/btree"

	"innate/store"
)

// How many of the newest commits are kept in memory: at least remembered, and
// up to forgetting more, which go together. An Update whose base is older is a conflict.
const (
	remembered = 1024
	forgetting = 256
)

// A history is the newest commits, one a revision: transactions are validated
// against it, and followers who keep up read it.
type history struct {
	before  store.Revision // the newest revision that is not in it
	commits []store.Commit // of before+1, before+2, …
	changes touches        // what commits changed
}

// touches is when each key was last changed.
type touches struct{ *btree.BTreeG[touch] }

type touch struct {
	key string
	at  store.Revision
}

func newHistory(newest store.Revision) history {
	byKey := func(a, b touch) bool { return a.key < b.key }
	return history{before: newest, changes: touches{btree.NewG(16, byKey)}}
}

func (h *history) newest() store.Revision { return h.before + store.Revision(len(h.commits)) }

// after is a copy of at most n commits after from, which the history must reach back to.
func (h *history) after(from store.Revision, n int) []store.Commit {
	rest := h.commits[from-h.before:]
	return slices.Clone(rest[:min(n, len(rest))])
}

// add appends commits, whose changes are in changes already, and forgets the oldest.
func (h *history) add(commits []store.Commit, changes touches) {
	h.commits, h.changes = append(h.commits, commits...), changes
	if len(h.commits) <= remembered+forgetting {
		return
	}
	gone := len(h.commits) - remembered
	for _, c := range h.commits[:gone] {
		h.changes.forget(c)
	}
	h.commits = slices.Delete(h.commits, 0, gone)
	h.before += store.Revision(gone)
}

func (t touches) clone() touches { return touches{t.Clone()} }

func (t touches) add(c store.Commit) {
	for _, ch := range c.Changes {
		t.ReplaceOrInsert(touch{ch.Key, c.Revision})
	}
}

// forget drops what nothing after c has changed again.
func (t touches) forget(c store.Commit) {
	for _, ch := range c.Changes {
		if last, ok := t.Get(touch{key: ch.Key}); ok && last.at == c.Revision {
			t.Delete(last)
		}
	}
}

// conflict reports whether something that txn read has changed since its base.
func (t touches) conflict(txn store.Txn) bool {
	for _, key := range txn.Gets {
		if last, ok := t.Get(touch{key: key}); ok && last.at > txn.Base {
			return true
		}
	}
	for _, r := range txn.Scans {
		found := false
		visit := func(last touch) bool {
			found = last.at > txn.Base
			return !found
		}
		if r.To == "" {
			t.AscendGreaterOrEqual(touch{key: r.From}, visit)
		} else {
			t.AscendRange(touch{key: r.From}, touch{key: r.To}, visit)
		}
		if found {
			return true
		}
	}
	return false
}
