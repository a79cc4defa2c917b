// Package client hears what changed: it follows a feed over HTTP, resumes where
// it stopped and knows how old its view is. The records that travel are here too.
//
// It leaves to its caller what a row means, and to the transport in Config.HTTP
// who is asking. A view is only as good as its age: whoever decides by what a
// feed said must look at Age first.
package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ContentType is what a feed is served as.
	ContentType = "application/x-ndjson"

	defaultLimit = 15 * time.Second
	maxLine      = 1 << 20 // bytes of one event; a row is far smaller
	firstPause   = 100 * time.Millisecond
	longestPause = 5 * time.Second // well below the 30 s after which verifiers refuse
)

// Config says what to follow. URL, HTTP and Apply are required.
type Config struct {
	URL   string        // of the feed, without from=
	HTTP  *http.Client  // its transport authenticates; its Timeout must be 0, a feed does not end
	Apply func(Event)   // called in order, from one goroutine, for Reset, Key and Synced events
	Limit time.Duration // silence after which the connection is given up; 0 means 15 s (servers beat every 5 s)
	Log   *slog.Logger  // nil means slog.Default()
}

// A Client follows one feed.
type Client struct {
	config Config
	url    *url.URL
	synced chan struct{}             // closed at the first Synced event
	heard  atomic.Pointer[time.Time] // when the view was last known to be whole; nil before the first time

	mu sync.Mutex
	at position

	// Run's alone.
	began bool // the first snapshot is complete
	lost  bool // the log has said so
}

// A position is how far Run has come.
type position struct {
	revision uint64        // where to go on from; 0 means a snapshot first
	live     bool          // a connection goes on from it
	moved    chan struct{} // closed when this changes
}

// New checks c.
func New(c Config) (*Client, error) {
	switch {
	case c.URL == "":
		return nil, errors.New("feed client: Config needs URL")
	case c.HTTP == nil:
		return nil, errors.New("feed client: Config needs HTTP")
	case c.HTTP.Timeout != 0:
		return nil, fmt.Errorf("feed client: the HTTP client ends requests after %v, and a feed does not end: want Timeout 0", c.HTTP.Timeout)
	case c.Apply == nil:
		return nil, errors.New("feed client: Config needs Apply")
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fmt.Errorf("feed client: %w", err)
	}
	if c.Limit == 0 {
		c.Limit = defaultLimit
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return &Client{config: c, url: u, synced: make(chan struct{}), at: position{moved: make(chan struct{})}}, nil
}

// Run follows until ctx ends, connecting again with backoff and jitter. It is called once.
func (c *Client) Run(ctx context.Context) error {
	pause := firstPause
	for {
		whole, err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if whole {
			pause = firstPause
		}
		if !c.lost {
			c.lost = true
			c.config.Log.Warn("feed lost; connecting again", "url", c.config.URL, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
		pause = min(2*pause, longestPause)
	}
}

var errSilent = errors.New("nothing was heard for too long")

// follow applies the events of one connection until it ends; whole reports
// whether the view was whole in between.
func (c *Client) follow(ctx context.Context) (whole bool, err error) {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	silence := time.AfterFunc(c.config.Limit, func() { giveUp(errSilent) })
	defer silence.Stop()

	body, err := c.connect(ctx, c.position().revision)
	if err != nil {
		return false, because(ctx, err)
	}
	defer body.Close()
	c.move(func(at *position) { at.live = true })
	defer c.move(func(at *position) { at.live = false })
	for ev, err := range events(body) {
		if err != nil {
			return whole, because(ctx, err)
		}
		silence.Reset(c.config.Limit)
		c.take(ev)
		whole = whole || ev.Synced
	}
	return whole, io.ErrUnexpectedEOF
}

// events reads a feed until it ends.
func events(body io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, maxLine)
		for lines.Scan() {
			var ev Event
			if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
				yield(ev, fmt.Errorf("reading an event: %w", err))
				return
			}
			if !yield(ev, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Event{}, err)
		}
	}
}

// because is why a request whose context may have been given up failed.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (c *Client) connect(ctx context.Context, from uint64) (io.ReadCloser, error) {
	u := *c.url
	if from > 0 {
		q := u.Query()
		q.Set("from", strconv.FormatUint(from, 10))
		u.RawQuery = q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.config.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode != http.StatusOK || kind != ContentType {
		resp.Body.Close()
		return nil, fmt.Errorf("the server answered %s with %q, not a feed", resp.Status, kind)
	}
	return resp.Body, nil
}

var errNotLive = errors.New("the feed is not followed at the moment")

func (c *Client) position() position {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *Client) move(change func(*position)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.at)
	close(c.at.moved)
	c.at.moved = make(chan struct{})
}

// take applies one event and notes how far the view has come.
func (c *Client) take(ev Event) {
	if ev.Reset || ev.Key != "" || ev.Synced {
		c.config.Apply(ev)
	}
	c.move(func(at *position) { at.revision = ev.Revision })
	whole := ev.Synced || ev.Beat && c.began
	if !whole {
		return // what happened while we were away is still coming in
	}
	now := time.Now()
	c.heard.Store(&now)
	if !ev.Synced {
		return
	}
	if !c.began {
		c.began = true
		close(c.synced)
	}
	if c.lost {
		c.lost = false
		c.config.Log.Info("feed heard again", "url", c.config.URL)
	}
}

// CatchUp returns when everything has been applied that was true when it was
// called: for who knows that something was just changed, and needs that here.
// It asks for what is new as a second reader, which hears it at once, and waits
// until Run has come as far. Where Run follows nothing it is an error at once.
func (c *Client) CatchUp(ctx context.Context) error {
	from := c.position()
	if from.revision == 0 || !from.live {
		return errNotLive
	}
	body, err := c.connect(ctx, from.revision)
	if err != nil {
		return err
	}
	defer body.Close()
	last := from.revision // that concerns this feed
	for ev, err := range events(body) {
		switch {
		case err != nil:
			return err
		case ev.Reset:
			return fmt.Errorf("the server has no history from revision %d on", from.revision)
		case ev.Synced:
			return c.reach(ctx, last)
		case ev.Key != "":
			last = ev.Revision
		}
	}
	return io.ErrUnexpectedEOF
}

// reach waits until Run has applied the row of that revision.
func (c *Client) reach(ctx context.Context, revision uint64) error {
	for {
		now := c.position()
		switch {
		case now.revision >= revision:
			return nil
		case !now.live:
			return errNotLive
		}
		select {
		case <-now.moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Synced is closed once the first snapshot is complete.
func (c *Client) Synced() <-chan struct{} { return c.synced }

// Age is how long ago the view was last known to be whole; a very large value before the first time.
func (c *Client) Age() time.Duration {
	heard := c.heard.Load()
	if heard == nil {
		return math.MaxInt64
	}
	now := time.Now()
	// The monotonic clock stands still while a laptop sleeps; the wall clock can be set back.
	return max(now.Sub(*heard), now.Round(0).Sub(heard.Round(0)))
}
