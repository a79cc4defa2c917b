package cluster

import (
	"bytes"
	"context"
	"errors"
	"sync"
)

// A log keeps what the server writes and lets others wait for a line of it.
type log struct {
	mu      sync.Mutex
	all     []byte
	changed chan struct{} // closed, and made anew, with every write
	over    bool
}

func newLog() *log { return &log{changed: make(chan struct{})} }

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, b...)
	l.tell()
	return len(b), nil
}

// Close says that no more is coming.
func (l *log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.tell()
	return nil
}

func (l *log) tell() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *log) text() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.all)
}

var errEnded = errors.New("the server has ended")

// await returns once a whole line is what is waited for.
func (l *log) await(ctx context.Context, wanted func(line []byte) bool) error {
	read := 0
	for {
		l.mu.Lock()
		fresh, over, changed := l.all[read:], l.over, l.changed
		l.mu.Unlock()
		for line := range bytes.Lines(fresh) {
			if !bytes.HasSuffix(line, []byte("\n")) {
				break // the rest is still coming
			}
			if wanted(line) {
				return nil
			}
			read += len(line)
		}
		if over {
			return errEnded
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
