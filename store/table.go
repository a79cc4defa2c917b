package store

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
)

// A Table is a prefix of the key space whose rows are one type, kept as JSON.
// The value is the prefix, which ends in a slash: Table[User]("directory/users/").
type Table[T any] string

// Get returns the row id.
func (t Table[T]) Get(r Reader, id string) (v T, ok bool, err error) {
	b, ok := r.Get(string(t) + id)
	if !ok {
		return v, false, nil
	}
	v, err = t.Decode(b)
	return v, err == nil, err
}

// Put writes the row id.
func (t Table[T]) Put(tx Tx, id string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("row %s%s: %w", t, id, err)
	}
	tx.Put(string(t)+id, b)
	return nil
}

// Delete removes the row id.
func (t Table[T]) Delete(tx Tx, id string) { tx.Delete(string(t) + id) }

// Decode reads a row's bytes.
func (t Table[T]) Decode(b []byte) (v T, err error) {
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("row of %s: %w", t, err)
	}
	return v, nil
}

// All yields the rows whose id begins with under and is not below from, in order of id. A row that
// cannot be read ends it with a panic: the engine checks integrity, so that is a
// program that wrote one type and reads another.
func (t Table[T]) All(r Reader, under, from string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		if from != "" {
			from = string(t) + from
		}
		for k, b := range r.Scan(string(t)+under, from) {
			v, err := t.Decode(b)
			if err != nil {
				panic(err)
			}
			if !yield(strings.TrimPrefix(k, string(t)), v) {
				return
			}
		}
	}
}

// Index keeps apply informed of every row, as DB.Index does; a nil row is gone.
func (t Table[T]) Index(db *DB, apply func(id string, row *T)) {
	db.Index(string(t), func(c Change) {
		id := strings.TrimPrefix(c.Key, string(t))
		if c.Value == nil {
			apply(id, nil)
			return
		}
		v, err := t.Decode(c.Value)
		if err != nil {
			panic(err)
		}
		apply(id, &v)
	})
}
