package ship

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"innate/audit"
)

const (
	gather       = 100 * time.Millisecond // what is recorded meanwhile goes in one request
	firstPause   = time.Second
	longestPause = 15 * time.Second
	timeout      = 30 * time.Second // of one request
	mostAnswer   = 64 << 10
)

// A Sender posts what its log records, from where the server has come. URL, HTTP and Log are required.
type Sender struct {
	URL    string       // where to; it may have a query
	HTTP   *http.Client // its transport authenticates
	Log    *audit.Log
	Logger *slog.Logger // nil means slog.Default()

	mu  sync.Mutex
	now State
}

// A State is how far a Sender has come.
type State struct {
	Sent    int64     `json:"sent"`   // bytes of the log that the server has
	Behind  int64     `json:"behind"` // bytes that it has not
	Problem string    `json:"problem,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of the problem
}

// State says how far the sender has come.
func (s *Sender) State() State {
	end, _ := s.Log.Durable()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.now
	st.Behind = max(end-st.Sent, 0)
	return st
}

// Run sends until ctx ends. What the server refuses or cannot take now is sent
// again later, for as long as it takes.
func (s *Sender) Run(ctx context.Context) error {
	if s.Logger == nil {
		s.Logger = slog.Default()
	}
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longestPause) {
		progress, err := s.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.failed(err)
		if progress {
			pause = firstPause
		}
		wait := pause/2 + rand.N(pause)
		var later *busy
		if errors.As(err, &later) {
			wait = later.after
		}
		sleep(ctx, wait)
	}
	return nil
}

// session asks the server how far it has come, and sends from there on until
// something fails. It reports whether the server took any lines.
func (s *Sender) session(ctx context.Context) (progress bool, err error) {
	var next Request
	for {
		end, more := s.Log.Durable()
		if end > 0 && next.At == (audit.Place{}) {
			if next, err = s.resume(ctx); err != nil {
				return progress, err
			}
		}
		if end == next.At.Offset && next.Instead == (audit.Place{}) {
			s.reached(next.At.Offset)
			select {
			case <-more:
			case <-ctx.Done():
				return progress, nil
			}
			sleep(ctx, gather)
			continue
		}
		var to audit.Place
		if next.Lines, to, err = s.Log.Lines(next.At, batch); err != nil {
			return progress, err
		}
		at, err := s.post(ctx, next)
		if err != nil {
			return progress, err
		}
		if at != to {
			next = Request{} // somebody else sends this log, or the server lost its state: ask again
			sleep(ctx, firstPause)
			continue
		}
		progress, next = true, Request{At: to}
		s.reached(to.Offset)
	}
}

// resume asks how far the server has come, and finds where to go on.
func (s *Sender) resume(ctx context.Context) (next Request, err error) {
	begin, err := s.Log.Begin()
	if err != nil {
		return next, err
	}
	at, err := s.post(ctx, Request{At: begin})
	if err != nil {
		return next, err
	}
	switch _, _, err := s.Log.Lines(at, 0); {
	case err == nil:
		return Request{At: at}, nil
	case !errors.Is(err, audit.ErrElsewhere):
		return next, err
	case at.Log != begin.Log:
		return Request{At: begin, Instead: at}, nil
	}
	end, err := s.Log.End()
	if err != nil {
		return next, err
	}
	if end.Offset < at.Offset {
		return Request{At: end, Instead: at}, nil // cut off: all that is left was sent
	}
	return Request{At: begin, Instead: at}, nil
}

// post sends one request.
func (s *Sender) post(ctx context.Context, q Request) (at audit.Place, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url(q), bytes.NewReader(q.Lines))
	if err != nil {
		return at, err
	}
	req.Header.Set("Content-Type", ContentType)
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return at, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer))
	if err != nil {
		return at, fmt.Errorf("reading the server's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return at, refusal(resp, body)
	}
	var a Answer
	if err := json.Unmarshal(body, &a); err != nil {
		return at, fmt.Errorf("reading the server's answer: %w", err)
	}
	return a.At, nil
}

// url is where a request goes.
func (s *Sender) url(q Request) string {
	join := "?"
	if strings.Contains(s.URL, "?") {
		join = "&"
	}
	return s.URL + join + q.values().Encode()
}

// busy is a server that wants to be asked later.
type busy struct {
	after time.Duration
	text  string
}

func (b *busy) Error() string { return b.text }

func refusal(resp *http.Response, body []byte) error {
	text := fmt.Sprintf("the server answered %s %.500s", resp.Status, body)
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		return &busy{min(time.Duration(n)*time.Second, time.Minute), text}
	}
	return errors.New(text)
}

func (s *Sender) reached(offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Problem != "" {
		s.Logger.Info("audit records are sent again", "after", time.Since(s.now.Since).Round(time.Second))
	}
	s.now = State{Sent: offset}
}

func (s *Sender) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Problem == "" {
		s.now.Since = time.Now()
		s.Logger.Warn("audit records are not sent; they are kept here and sent later", "err", err)
	}
	s.now.Problem = err.Error()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
