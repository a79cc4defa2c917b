package store

import (
	"fmt"
	"iter"
)

// A transaction is a Tx on a snapshot; it remembers what it read.
type transaction struct {
	base   *snapshot
	gets   map[string]struct{}
	scans  []Range
	writes *rows // a nil value is a row to delete
}

func newTransaction(base *snapshot) *transaction {
	return &transaction{base: base, gets: map[string]struct{}{}, writes: newRows()}
}

func (tx *transaction) Revision() Revision { return tx.base.revision }

func (tx *transaction) Get(key string) ([]byte, bool) {
	if w, ok := tx.writes.Get(row{key: key}); ok {
		return w.value, w.value != nil
	}
	tx.gets[key] = struct{}{}
	return tx.base.Get(key)
}

func (tx *transaction) Put(key string, value []byte) {
	if value == nil {
		value = []byte{} // nil would mean a deletion
	}
	tx.writes.ReplaceOrInsert(row{key, value})
}

func (tx *transaction) Delete(key string) { tx.writes.ReplaceOrInsert(row{key: key}) }

func (tx *transaction) Scan(prefix, from string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		r := under(prefix, from)
		var own []row
		ascend(tx.writes, r, func(w row) bool { own = append(own, w); return true })
		// All of the range counts as read until a caller who stops early has stopped.
		mark := len(tx.scans)
		tx.scans = append(tx.scans, r)
		merge(tx.base.rows, own, r, func(w row) bool {
			if yield(w.key, w.value) {
				return true
			}
			tx.scans[mark].To = w.key + "\x00"
			return false
		})
	}
}

// merge visits the rows of base in r as own, which is in key order, changes them.
func merge(base *rows, own []row, r Range, visit func(row) bool) {
	visitOwn := func() bool {
		w := own[0]
		own = own[1:]
		return w.value == nil || visit(w)
	}
	stopped := false
	ascend(base, r, func(b row) bool {
		for len(own) > 0 && own[0].key < b.key && !stopped {
			stopped = !visitOwn()
		}
		switch {
		case stopped:
		case len(own) > 0 && own[0].key == b.key:
			stopped = !visitOwn()
		default:
			stopped = !visit(b)
		}
		return !stopped
	})
	for len(own) > 0 && !stopped {
		stopped = !visitOwn()
	}
}

// txn is what the engine needs to know.
func (tx *transaction) txn() (Txn, error) {
	t := Txn{Base: tx.base.revision, Scans: tx.scans}
	for key := range tx.gets {
		t.Gets = append(t.Gets, key)
	}
	var err error
	tx.writes.Ascend(func(w row) bool {
		if n := len(w.key); n == 0 || n > MaxKey {
			err = fmt.Errorf("store: a key of %d bytes: it must have 1 to %d", n, MaxKey)
			return false
		}
		t.Writes = append(t.Writes, Change{w.key, w.value})
		return true
	})
	return t, err
}
