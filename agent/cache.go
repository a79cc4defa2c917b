package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"innate"
	"innate/feed/client"
)

const (
	// unserved is what a token must have left to be handed out: SDKs throw away
	// what has less (managed-identity-endpoints §1.6).
	unserved = 5 * time.Minute
	// mostTokens bounds what is kept for one workload: it chooses the audiences, and may spell each in many ways.
	mostTokens = 200
	// mostCalls bounds the upstream calls under way for one workload, so that it cannot starve the others.
	mostCalls = 8
	// refreshPause is how long a refresh that failed is not tried again, give or take half.
	refreshPause = 20 * time.Second
)

// A cache keeps the tokens of this host's workloads. Whoever waits for the same
// token shares one upstream call, which goes on when the first of them gives up.
type cache struct {
	upstream *upstream
	now      func() time.Time
	log      *slog.Logger
	kept     func() // a token came: what is remembered over a restart is old
	dropped  func() // tokens were thrown away: what is remembered over a restart is wrong

	mu        sync.Mutex
	workloads map[string]*wallet // by resource key
}

func newCache(u *upstream, m *memory, now func() time.Time, log *slog.Logger) *cache {
	return &cache{upstream: u, now: now, log: log, kept: m.old, dropped: m.wrong, workloads: map[string]*wallet{}}
}

// An order is what to get a token for.
type order struct {
	workload innate.ResourceID
	wallet   string // its key
	identity client.Identity
	resource string // audience, as the workload spells it
	proof    innate.Assurance
}

func (o order) key() tokenKey { return tokenKey{o.identity.Object, o.resource, o.proof} }

// A tokenKey tells a workload's tokens apart.
type tokenKey struct {
	identity innate.ObjectID
	resource string
	proof    innate.Assurance
}

// A wallet is what is kept for one workload. It is left to the collector when
// the workload goes: a call that is under way then has nowhere to put its token.
type wallet struct {
	slots chan struct{} // one is held during each upstream call

	mu          sync.Mutex
	moved       chan struct{} // closed when a token comes, or is thrown away that was good
	tokens      map[tokenKey]*entry
	credentials map[innate.ObjectID]*credential
}

// An entry is one token and the call that fetches the next.
type entry struct {
	order   order
	token   innate.Token
	fetched time.Time     // by our clock; monotonic too, unless it is remembered from before a restart
	refresh time.Duration // fetch the next when no more than this is left
	pause   time.Time     // after a refresh that failed: not before
	asked   bool          // for this very token: the next one is worth fetching
	call    *call         // nil: none under way
}

// A call is one upstream call and its outcome, for all who wait.
type call struct {
	done  chan struct{} // closed when token and err are set
	token innate.Token
	err   error
}

// wallet is that of the workload with a key.
func (c *cache) wallet(key string) *wallet {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.workloads[key]
	if w == nil {
		w = &wallet{slots: make(chan struct{}, mostCalls), moved: make(chan struct{}), tokens: map[tokenKey]*entry{}, credentials: map[innate.ObjectID]*credential{}}
		c.workloads[key] = w
	}
	return w
}

// next returns a channel that is closed when a workload's tokens change: another
// came, or some were thrown away.
func (c *cache) next(workload innate.ResourceID) <-chan struct{} {
	w := c.wallet(workload.Key())
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.moved
}

// move tells of a change; w.mu is held.
func (w *wallet) move() {
	close(w.moved)
	w.moved = make(chan struct{})
}

// wallets returns every workload's.
func (c *cache) wallets() []*wallet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.workloads))
}

// forget throws away what is kept of a workload.
func (c *cache) forget(workload innate.ResourceID) {
	defer c.dropped()
	c.mu.Lock()
	w := c.workloads[workload.Key()]
	delete(c.workloads, workload.Key())
	c.mu.Unlock()
	if w != nil {
		w.forget(func(innate.ObjectID) bool { return true })
	}
}

// close hangs up whatever was kept open for tokens.
func (c *cache) close() {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.workloads))
	c.workloads = map[string]*wallet{}
	c.mu.Unlock()
	for _, w := range all {
		w.forget(func(innate.ObjectID) bool { return true })
	}
}

// detach throws away what is kept of one of a workload's identities.
func (c *cache) detach(workload innate.ResourceID, id innate.ObjectID) {
	defer c.dropped()
	c.mu.Lock()
	w := c.workloads[workload.Key()]
	c.mu.Unlock()
	if w != nil {
		w.forget(func(of innate.ObjectID) bool { return of == id })
	}
}

// revoke throws away what is kept of an identity, whoever has it.
func (c *cache) revoke(id innate.ObjectID) {
	defer c.dropped()
	for _, w := range c.wallets() {
		w.forget(func(of innate.ObjectID) bool { return of == id })
	}
}

// revokeAll throws away every token, and those that are on their way. It keeps
// the certificates, which are not what was revoked.
func (c *cache) revokeAll() {
	defer c.dropped()
	for _, w := range c.wallets() {
		w.mu.Lock()
		clear(w.tokens)
		w.move()
		w.mu.Unlock()
	}
}

// forget throws away the tokens and certificates of some identities.
func (w *wallet) forget(which func(innate.ObjectID) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.move()
	maps.DeleteFunc(w.tokens, func(k tokenKey, _ *entry) bool { return which(k.identity) })
	maps.DeleteFunc(w.credentials, func(id innate.ObjectID, c *credential) bool {
		if which(id) {
			c.close()
			return true
		}
		return false
	})
}

// get returns a token from the cache, or waits for one.
func (c *cache) get(ctx context.Context, o order) (innate.Token, error) {
	w := c.wallet(o.wallet)
	w.mu.Lock()
	now := c.now() // not before: a token that came meanwhile would be one of a clock that went back
	e := w.entry(o)
	if e == nil {
		w.mu.Unlock()
		return innate.Token{}, &innate.Refusal{
			Status: http.StatusTooManyRequests, OAuth: "too_many_requests", RetryAfter: time.Second,
			Text: "this workload is waiting for too many tokens at once",
		}
	}
	e.asked = true
	if e.good(now) {
		token := e.token
		if e.due(now) {
			c.begin(w, e)
		}
		w.mu.Unlock()
		return token, nil
	}
	waiting := e.call
	if waiting == nil {
		waiting = c.begin(w, e)
	}
	w.mu.Unlock()
	select {
	case <-waiting.done:
		return waiting.token, waiting.err
	case <-ctx.Done():
		return innate.Token{}, ctx.Err()
	}
}

// left is how long the entry's token lives on. The wall clock may be set, and the
// monotonic one stands still while a laptop sleeps: the lesser of the two counts.
// A clock that went back to before the token came tells nothing, and nothing is left.
func (e *entry) left(now time.Time) time.Duration {
	elapsed := now.Sub(e.fetched)
	if e.token.Value == "" || elapsed < 0 {
		return 0
	}
	return min(e.token.Expires.Sub(now), e.token.Expires.Sub(e.fetched)-elapsed)
}

// good reports whether the entry's token may be handed out.
func (e *entry) good(now time.Time) bool { return e.left(now) > unserved }

// due reports whether it is time to fetch the next token, though this one is good.
func (e *entry) due(now time.Time) bool {
	return e.call == nil && e.left(now) <= e.refresh && !now.Before(e.pause)
}

// entry returns the place of an order's token, making room for it; nil when all
// the room is taken by calls under way. w.mu is held.
func (w *wallet) entry(o order) *entry {
	if e := w.tokens[o.key()]; e != nil {
		return e
	}
	if len(w.tokens) >= mostTokens {
		maps.DeleteFunc(w.tokens, func(_ tokenKey, e *entry) bool { return e.call == nil })
	}
	if len(w.tokens) >= mostTokens {
		return nil
	}
	e := &entry{order: o}
	w.tokens[o.key()] = e
	return e
}

// begin starts the upstream call of an entry; w.mu is held. The call belongs to
// nobody who waits for it.
func (c *cache) begin(w *wallet, e *entry) *call {
	running := &call{done: make(chan struct{})}
	e.call = running
	o := e.order
	go func() {
		w.slots <- struct{}{}
		defer func() { <-w.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), 2*upstreamTimeout)
		defer cancel()
		token, err := c.fetch(ctx, w, o)
		c.settle(w, e, running, token, err)
	}()
	return running
}

// errOvertaken means that a token was thrown away while it was fetched: the
// identity was taken off the workload, or revoked. Who waited must ask anew.
var errOvertaken = errors.New("what was asked for has changed meanwhile")

// settle puts the outcome of a call where the next ones look for it, unless the
// entry was thrown away meanwhile: then nobody gets the token.
func (c *cache) settle(w *wallet, e *entry, running *call, token innate.Token, err error) {
	defer close(running.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	e.call = nil
	now, o := c.now(), e.order
	switch {
	case w.tokens[o.key()] != e:
		running.err = errOvertaken
		return
	case err == nil:
		e.keep(token, now)
		running.token = token
		w.move()
		c.kept()
		return
	case !transient(err):
		delete(w.tokens, o.key()) // the token service says no: what was fetched before it did is not handed out either
		c.dropped()
	case e.good(now):
		e.pause = now.Add(refreshPause/2 + rand.N(refreshPause))
		c.log.Warn("refreshing a token; the present one is served on", "workload", o.workload, "resource", o.resource, "until", e.token.Expires, "err", err)
	default:
		delete(w.tokens, o.key())
	}
	running.err = err
}

// keep makes token the entry's. Its next is fetched when about half its life is over.
func (e *entry) keep(token innate.Token, fetched time.Time) {
	e.token, e.fetched, e.asked = token, fetched, false
	e.refresh = token.Expires.Sub(middle(fetched, token.Expires))
}

// transient reports whether the same request may succeed soon.
func transient(err error) bool {
	var r *innate.Refusal
	if errors.As(err, &r) {
		return r.Status >= http.StatusInternalServerError || r.Status == http.StatusTooManyRequests
	}
	return !errors.Is(err, innate.ErrNoIdentity)
}
