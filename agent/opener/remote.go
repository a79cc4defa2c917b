package opener

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// A Remote has the opener process carry out orders.
type Remote struct {
	wire *wire
	gone chan struct{} // closed when the opener is
	end  chan struct{} // closed when the opener wants an end

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan reply // by message; nil when the opener is gone
}

type reply struct {
	message
	files []*os.File
}

// ErrGone means that the opener has ended: what it held is lost.
var ErrGone = errors.New("the opener is gone")

// Connect speaks to the opener that started this process with f, and takes f over.
func Connect(f *os.File) (*Remote, error) {
	w, err := openWire(f)
	if err != nil {
		return nil, fmt.Errorf("connecting to the opener (this command is for its use): %w", err)
	}
	r := &Remote{wire: w, gone: make(chan struct{}), end: make(chan struct{}), waiting: map[uint64]chan reply{}}
	go r.listen()
	return r, nil
}

// Gone is closed when the opener has ended.
func (r *Remote) Gone() <-chan struct{} { return r.gone }

// End is closed when all apps are to end, and the worker with them.
func (r *Remote) End() <-chan struct{} { return r.end }

func (r *Remote) listen() {
	ending := sync.OnceFunc(func() { close(r.end) })
	for {
		m, files, err := r.wire.receive()
		if err != nil {
			break
		}
		if m.End {
			closeAll(files)
			ending()
			continue
		}
		r.mu.Lock()
		to := r.waiting[m.ID]
		delete(r.waiting, m.ID)
		r.mu.Unlock()
		if to == nil {
			closeAll(files) // nobody waits for it any more
			continue
		}
		to <- reply{m, files}
	}
	r.wire.conn.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = nil
	close(r.gone)
}

// Do has an order carried out.
func (r *Remote) Do(ctx context.Context, o Order, files ...*os.File) (Answer, []*os.File, error) {
	to := make(chan reply, 1)
	r.mu.Lock()
	if r.waiting == nil {
		r.mu.Unlock()
		return Answer{}, nil, ErrGone
	}
	r.last++
	id := r.last
	r.waiting[id] = to
	r.mu.Unlock()
	if err := r.wire.send(message{ID: id, Order: &o}, files...); err != nil {
		r.forget(id, to)
		return Answer{}, nil, fmt.Errorf("asking the opener: %w", err)
	}
	select {
	case back := <-to:
		switch {
		case back.Over:
			return Answer{}, nil, os.ErrProcessDone
		case back.Error != "":
			closeAll(back.files)
			return Answer{}, nil, errors.New(back.Error)
		case back.Answer == nil:
			closeAll(back.files)
			return Answer{}, nil, errors.New("the opener did not answer the order")
		}
		return *back.Answer, back.files, nil
	case <-ctx.Done():
		r.forget(id, to)
		r.wire.send(message{ID: id, Cancel: true}) // gone, it waits for nothing
		return Answer{}, nil, ctx.Err()
	case <-r.gone:
		return Answer{}, nil, ErrGone
	}
}

// forget waits for an answer no longer.
func (r *Remote) forget(id uint64, to chan reply) {
	r.mu.Lock()
	delete(r.waiting, id)
	r.mu.Unlock()
	select {
	case late := <-to:
		closeAll(late.files)
	default:
	}
}
