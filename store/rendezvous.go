package store

import (
	"context"
	"sync"
)

// A rendezvous lets callers who arrive while a question is being asked share
// the next one: an answer is never older than the call that gets it.
type rendezvous struct {
	ask func() (Revision, error)

	mu     sync.Mutex
	asking bool
	next   *answer // for those waiting for the question after the one being asked
}

type answer struct {
	done     chan struct{}
	revision Revision
	err      error
}

// join returns the answer to a question asked after the call.
func (r *rendezvous) join(ctx context.Context) (Revision, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &answer{done: make(chan struct{})}
	}
	a := r.next
	if !r.asking {
		r.asking = true
		go r.askAll()
	}
	r.mu.Unlock()
	select {
	case <-a.done:
		return a.revision, a.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// askAll asks until nobody waits.
func (r *rendezvous) askAll() {
	for {
		r.mu.Lock()
		a := r.next
		r.next = nil
		r.asking = a != nil
		r.mu.Unlock()
		if a == nil {
			return
		}
		a.revision, a.err = r.ask()
		close(a.done)
	}
}
