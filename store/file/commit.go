package file

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"innate/store"
)

// A batch, which is one write to the disk, ends at whichever comes first.
const (
	batchRequests = 1024
	batchBytes    = 16 << 20
)

// How much history the file keeps: at least kept commits, and up to trimming more.
const (
	kept     = 10_000
	trimming = 1_000
)

// A request is a transaction whose writer waits.
type request struct {
	ctx      context.Context
	txn      store.Txn
	answered chan struct{}
	revision store.Revision
	err      error
}

func (r *request) size() (n int) {
	for _, w := range r.txn.Writes {
		n += len(w.Key) + len(w.Value)
	}
	return n
}

// Commit makes txn durable together with whatever else arrives meanwhile.
func (e *Engine) Commit(ctx context.Context, txn store.Txn) (store.Revision, error) {
	r := &request{ctx: ctx, txn: txn, answered: make(chan struct{})}
	select {
	case e.requests <- r:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-e.closing:
		return 0, store.ErrClosed
	}
	select {
	case <-r.answered:
		return r.revision, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// commitAll is the committer: it gathers what waits, batch after batch, until Close.
func (e *Engine) commitAll() {
	defer close(e.ended)
	for {
		select {
		case r := <-e.requests:
			e.commit(e.gather(r))
		case <-e.closing:
			return
		}
	}
}

// gather takes whatever waits, first included.
func (e *Engine) gather(first *request) []*request {
	batch, size := []*request{first}, first.size()
	for len(batch) < batchRequests && size < batchBytes {
		select {
		case r := <-e.requests:
			batch, size = append(batch, r), size+r.size()
		default:
			return batch
		}
	}
	return batch
}

// commit validates each request against what came before it, writes those that
// pass and answers all. Nobody hears of a conflict before what it conflicts
// with is published: trying again sooner would only conflict again.
func (e *Engine) commit(batch []*request) {
	defer func() {
		for _, r := range batch {
			close(r.answered)
		}
	}()
	if err := e.clear(); err != nil {
		fail(batch, err)
		return
	}
	passed, commits, changes := e.validate(batch)
	if len(commits) == 0 {
		return
	}
	if err := e.write(commits); err != nil {
		e.unclear = true
		fail(passed, fmt.Errorf("writing the store %s: %w: whether the change is kept is not certain; the store goes on by itself once it can write", e.path, err))
		return
	}
	e.publish(commits, changes)
}

func fail(rs []*request, err error) {
	for _, r := range rs {
		r.revision, r.err = 0, err
	}
}

// validate gives each request of batch its revision or its error; changes is
// what the history will be with the commits of those that passed.
func (e *Engine) validate(batch []*request) (passed []*request, commits []store.Commit, changes touches) {
	next := e.history.newest() + 1
	changes = e.history.changes.clone()
	for _, r := range batch {
		switch {
		case r.ctx.Err() != nil:
			r.err = r.ctx.Err()
		case r.txn.Base < e.history.before || changes.conflict(r.txn):
			r.err = store.ErrConflict
		default:
			c := store.Commit{Revision: next, Changes: r.txn.Writes}
			changes.add(c)
			r.revision = next
			passed, commits = append(passed, r), append(commits, c)
			next++
		}
	}
	return passed, commits, changes
}

// write makes commits durable in one transaction of the file.
func (e *Engine) write(commits []store.Commit) error {
	oldest := e.oldest
	err := e.bolt.Update(func(tx *bbolt.Tx) error {
		rows, log := tx.Bucket(rowsBucket), tx.Bucket(logBucket)
		log.FillPercent = 1 // revisions only grow: no page is ever split in its middle
		for _, c := range commits {
			for _, ch := range c.Changes {
				if err := apply(rows, ch); err != nil {
					return fmt.Errorf("row %q: %w", ch.Key, err)
				}
			}
			if err := log.Put(revisionBytes(c.Revision), encode(c.Changes)); err != nil {
				return err
			}
		}
		newest := commits[len(commits)-1].Revision
		if newest-oldest >= kept+trimming {
			oldest = newest - kept + 1
			if err := trim(log, oldest); err != nil {
				return err
			}
		}
		return tx.Bucket(metaBucket).Put(revisionKey, revisionBytes(newest))
	})
	if err == nil {
		e.oldest = oldest
	}
	return err
}

func apply(rows *bbolt.Bucket, ch store.Change) error {
	if ch.Value == nil {
		return rows.Delete([]byte(ch.Key))
	}
	return rows.Put([]byte(ch.Key), ch.Value)
}

// clear finds out, after a write that failed, whether the file has it all the
// same: its pages may have reached the disk before the error did.
func (e *Engine) clear() error {
	for e.unclear {
		commits, err := e.readLog(e.history.newest())
		if err != nil {
			return fmt.Errorf("reading the store %s after a failed write: %w", e.path, err)
		}
		if len(commits) == 0 {
			e.unclear = false
			break
		}
		changes := e.history.changes.clone()
		for _, c := range commits {
			changes.add(c)
		}
		e.publish(commits, changes)
	}
	return nil
}

// publish shows commits to followers.
func (e *Engine) publish(commits []store.Commit, changes touches) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.history.add(commits, changes)
	close(e.grown)
	e.grown = make(chan struct{})
}
