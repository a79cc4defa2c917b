package opener

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// mostOrders bounds what one worker waits for at a time: for each generation, two or three ends.
const mostOrders = 4*mostHomes + 256

// serve carries out the orders of one worker until that has ended. What it sends
// that is no order ends it: the error is about that.
func (l *Local) serve(ctx context.Context, w *wire) error {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	defer context.AfterFunc(ctx, func() { w.conn.Close() })()
	s := &service{local: l, wire: w, waiting: map[uint64]context.CancelFunc{}}
	for {
		m, files, err := w.receive()
		if err != nil {
			w.conn.Close()
			return err
		}
		switch {
		case m.Cancel:
			closeAll(files)
			s.cancel(m.ID)
			continue
		case m.Order == nil:
			closeAll(files)
			w.conn.Close()
			return errors.New("a message that is no order")
		}
		order, end, err := s.begin(ctx, m.ID)
		if err != nil {
			closeAll(files)
			w.conn.Close()
			return err
		}
		running.Go(func() {
			defer end()
			defer closeAll(files)
			s.carryOut(order, m, files)
		})
	}
}

// A service is one worker's.
type service struct {
	local *Local
	wire  *wire

	mu      sync.Mutex
	waiting map[uint64]context.CancelFunc // by message
}

func (s *service) begin(ctx context.Context, id uint64) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.waiting[id]; twice || len(s.waiting) >= mostOrders {
		return nil, nil, fmt.Errorf("order %d came twice, or beside %d others", id, len(s.waiting))
	}
	ctx, cancel := context.WithCancel(ctx)
	s.waiting[id] = cancel
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, id)
	}, nil
}

func (s *service) cancel(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.waiting[id]; cancel != nil {
		cancel()
	}
}

// carryOut answers one order. A worker that is gone hears nothing, and needs not.
func (s *service) carryOut(ctx context.Context, m message, files []*os.File) {
	answer, back, err := s.local.Do(ctx, *m.Order, files...)
	defer closeAll(back)
	reply := message{ID: m.ID, Answer: &answer}
	if err != nil {
		reply = message{ID: m.ID, Error: err.Error(), Over: errors.Is(err, os.ErrProcessDone)}
	}
	if err := s.wire.send(reply, back...); err != nil && ctx.Err() == nil {
		if err := s.wire.send(message{ID: m.ID, Error: fmt.Sprintf("sending the answer: %v", err)}); err != nil {
			s.local.config.Log.Debug("answering the worker", "op", m.Order.Op, "err", err)
		}
	}
}
