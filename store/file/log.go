package file

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"innate/store"
)

// A follower takes commits in chunks that end at whichever comes first.
const (
	chunkCommits = 256
	chunkBytes   = 4 << 20 // of what is read from the file
)

// Follow yields the commits after from: from memory to those who keep up, from
// the file to others.
func (e *Engine) Follow(ctx context.Context, from store.Revision) iter.Seq2[[]store.Commit, error] {
	return func(yield func([]store.Commit, error) bool) {
		for {
			commits, err := e.next(ctx, from)
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(commits, nil) {
				return
			}
			from = commits[len(commits)-1].Revision
		}
	}
}

// next waits for commits after from and returns the first of them, one at least.
func (e *Engine) next(ctx context.Context, from store.Revision) ([]store.Commit, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		e.mu.Lock()
		before, newest, grown := e.history.before, e.history.newest(), e.grown
		var commits []store.Commit
		if from >= before && from < newest {
			commits = e.history.after(from, chunkCommits)
		}
		e.mu.Unlock()
		switch {
		case from > newest:
			return nil, store.ErrCompacted
		case from < before:
			commits, err := e.readLog(from)
			if err == nil && len(commits) == 0 {
				err = store.ErrCompacted
			}
			return commits, err
		case len(commits) > 0:
			return commits, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
		case <-e.closing:
			return nil, store.ErrClosed
		}
	}
}

// readLog reads a chunk of the commits after from out of the file.
func (e *Engine) readLog(from store.Revision) (commits []store.Commit, err error) {
	size := 0
	err = e.bolt.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(logBucket).Cursor()
		for k, v := c.Seek(revisionBytes(from + 1)); k != nil && len(commits) < chunkCommits && size < chunkBytes; k, v = c.Next() {
			from++
			size += len(v)
			if revision(k) != from {
				return store.ErrCompacted
			}
			changes, err := decode(v)
			if err != nil {
				return fmt.Errorf("the store %s, revision %d: %w", e.path, from, err)
			}
			commits = append(commits, store.Commit{Revision: from, Changes: changes})
		}
		return nil
	})
	return commits, e.closed(err)
}

// trim removes the commits before oldest.
func trim(log *bbolt.Bucket, oldest store.Revision) error {
	c := log.Cursor()
	for k, _ := c.First(); k != nil && revision(k) < oldest; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// encode writes changes one after the other: length of key, key, length of
// value plus one or 0 for a deletion, value. Lengths are uvarints.
func encode(changes []store.Change) []byte {
	var b []byte
	for _, ch := range changes {
		b = binary.AppendUvarint(b, uint64(len(ch.Key)))
		b = append(b, ch.Key...)
		if ch.Value == nil {
			b = binary.AppendUvarint(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(ch.Value))+1)
		b = append(b, ch.Value...)
	}
	return b
}

var errLog = errors.New("the log is damaged")

// decode reads what encode wrote.
func decode(b []byte) (changes []store.Change, err error) {
	take := func(n uint64) []byte {
		if n > uint64(len(b)) {
			err = errLog
			n = 0
		}
		taken := b[:n]
		b = b[n:]
		return taken
	}
	length := func() uint64 {
		n, read := binary.Uvarint(b)
		if read <= 0 {
			err = errLog
			return 0
		}
		b = b[read:]
		return n
	}
	for len(b) > 0 && err == nil {
		ch := store.Change{Key: string(take(length()))}
		if n := length(); n > 0 {
			ch.Value = append([]byte{}, take(n-1)...)
		}
		changes = append(changes, ch)
	}
	return changes, err
}
