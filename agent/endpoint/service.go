package endpoint

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// A Service is an http.Server that can finish without losing a request. What
// net/http has for that, Shutdown, closes a connection whose first request it
// reads just then, unanswered.
type Service struct {
	*http.Server

	mu      sync.Mutex
	closing bool
	serving int               // calls of Serve that have not returned
	stop    func() error      // ends the last one
	busy    map[net.Conn]bool // connections from which a request may come or is being answered
}

// Serve serves until l or the service ends; then the error is http.ErrServerClosed.
func (s *Service) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return http.ErrServerClosed
	}
	s.serving++
	s.stop = l.Close
	s.mu.Unlock()
	err := s.Server.Serve(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving--
	if s.closing {
		err = http.ErrServerClosed
	}
	return err
}

// note hears what becomes of a connection.
func (s *Service) note(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew, http.StateActive:
		s.busy[c] = true
	default:
		delete(s.busy, c)
	}
}

func (s *Service) finishing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// look is how often it is looked whether all is answered.
const look = time.Millisecond

// Finish has the service accept no more, and returns when every request on a
// connection that was accepted is answered, or when ctx ends. It is called once.
func (s *Service) Finish(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		s.mu.Lock()
		done := s.serving == 0 && len(s.busy) == 0
		s.mu.Unlock()
		if done {
			return s.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.Close()
			return ctx.Err()
		}
	}
}
