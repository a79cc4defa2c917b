package tokens

import (
	"errors"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"innate"
)

// The limits of the token endpoint (managed-identity-endpoints §4.6). A workload
// that behaves meets none of them while it has a token, whatever its neighbours
// do, so what is counted is failures: refusals of a proof or of a request. An
// address is that of the connection; no header about forwarding is believed.
//
//   - A client at an address may fail failuresOfClient, an address (an IPv6 /64)
//     failuresOfAddress. Beyond either the answer is 429, before any proof is
//     looked at. A request that names no client counts against its address alone.
//   - A client that got a token from that address, and may have it still, is always
//     looked at: its proof tells it from a neighbour that uses its name. A
//     failure beyond the limit is a 429 even so.
//   - A client that proves itself at an address gets tokensOfClient.
//   - Identities' certificates are not counted: the agent that holds them keeps
//     tokens and is fair between its workloads. One that proves nobody, or
//     nobody any more, counts as any failure does.
//   - That an issuer's keys cannot be had counts too: anybody can name a key
//     that it may yet publish.
var (
	failuresOfClient  = limit{0.5, 20}
	failuresOfAddress = limit{5, 200}
	tokensOfClient    = limit{50, 1000}
)

// trusted is how long a token got says that the client is at that address: until
// whoever keeps the longest of tokens to its end has asked for the next.
const trusted = time.Duration(longestLife) + time.Hour

// mostCounted bounds how many clients and addresses are remembered, of those
// that failed and of those that succeeded each: below 20 MB in all.
const mostCounted = 1 << 15

// A limit is a rate, in events a second, and how many may come at once.
type limit struct {
	rate  rate.Limit
	burst int
}

// A counted is whom a limit is for: a client at an address, or when client is
// empty the address.
type counted struct {
	address netip.Prefix
	client  innate.ClientID
}

// throttle counts what the token endpoint is asked. It is safe for many goroutines.
type throttle struct {
	mu        sync.Mutex
	failures  recent[counted, *rate.Limiter]
	successes recent[counted, *success]
	episodes  episodes
}

// A success is what a client got at an address.
type success struct {
	last   time.Time
	tokens *rate.Limiter
}

func newThrottle() *throttle {
	return &throttle{
		failures:  recent[counted, *rate.Limiter]{most: mostCounted},
		successes: recent[counted, *success]{most: mostCounted},
		episodes:  episodes{open: map[counted]int{}},
	}
}

// An excess is a request beyond a limit, as its client may read it.
type excess struct {
	whose   counted
	refusal *innate.Refusal
}

func (e *excess) Error() string { return e.refusal.Error() }
func (e *excess) Unwrap() error { return e.refusal }

// beyond is the excess of a request when missing, part of one event, must be
// waited for.
func beyond(whose counted, l *rate.Limiter, missing float64, text string) *excess {
	wait := math.Max(1, math.Ceil(missing/float64(l.Limit())))
	no := refusal(http.StatusTooManyRequests, "invalid_request", 90055, "%s. Ask again in %d seconds", text, int(wait))
	no.RetryAfter = time.Duration(wait) * time.Second
	return &excess{whose, no}
}

// counted is the client that q says it is, at its address; the address alone
// when it names none.
func (q *request) counted() counted { return counted{q.network(), q.client} }

// network is the address of q's peer, or the IPv6 network that one customer has.
func (q *request) network() netip.Prefix {
	address, err := netip.ParseAddr(q.address)
	if err != nil {
		return netip.Prefix{} // no network address: such peers share one count
	}
	address = address.Unmap()
	bits := 64
	if address.Is4() {
		bits = 32
	}
	network, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}

// admit refuses q when its client or its address has failed too often, before
// any proof is looked at.
func (t *throttle) admit(q *request) error {
	if q.certificate != nil {
		return nil // whether it is one of ours is to be seen: see failed
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	who := q.counted()
	if t.trusts(who, q.now) {
		return nil
	}
	if over := t.spent(q.now, who, counted{address: who.address}); over != nil {
		return over
	}
	return nil
}

// trusts reports whether who got a token lately.
func (t *throttle) trusts(who counted, now time.Time) bool {
	s, ok := t.successes.get(who)
	return ok && now.Sub(s.last) < trusted
}

// spent is the excess of the first of several that has no failure left, or nil.
func (t *throttle) spent(now time.Time, several ...counted) *excess {
	for _, who := range several {
		l, ok := t.failures.get(who)
		if !ok {
			continue
		}
		const rounding = 1e-6 // of the sum of what came in over time
		if missing := 1 - l.TokensAt(now); missing > rounding {
			if who.client == "" {
				return beyond(who, l, missing, "Too many requests from your address have failed")
			}
			return beyond(who, l, missing, "Too many requests of this client have failed; the earlier answers say why")
		}
	}
	return nil
}

// failed counts a refusal of q, and is the answer: err, or when that is one too
// many a 429.
func (t *throttle) failed(q *request, err error) error {
	var no *innate.Refusal
	if !errors.As(err, &no) || no.Status == http.StatusTooManyRequests {
		return err // a fault of ours is no Refusal
	}
	if q.certificate != nil && q.proved {
		return err // an identity's
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	who := q.counted()
	address := counted{address: who.address}
	within := []counted{who, address}
	if t.trusts(who, q.now) {
		within = within[:1]
	}
	if over := t.spent(q.now, within...); over != nil {
		return over
	}
	t.count(who, q.now)
	if who != address {
		t.count(address, q.now)
	}
	return err
}

// count takes one failure from who.
func (t *throttle) count(who counted, now time.Time) {
	l, ok := t.failures.get(who)
	if !ok {
		of := failuresOfClient
		if who.client == "" {
			of = failuresOfAddress
		}
		l = rate.NewLimiter(of.rate, of.burst)
		t.failures.put(who, l)
	}
	l.AllowN(now, 1)
}

// proved counts the token that q is about to get, and refuses it when it is one too many.
func (t *throttle) proved(q *request) error {
	if q.certificate != nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	who := q.counted()
	s, ok := t.successes.get(who)
	if !ok {
		s = &success{tokens: rate.NewLimiter(tokensOfClient.rate, tokensOfClient.burst)}
		t.successes.put(who, s)
	}
	s.last = q.now
	if !s.tokens.AllowN(q.now, 1) {
		return beyond(who, s.tokens, 1, "This client asks for too many tokens: it must keep one until five minutes before its end")
	}
	return nil
}
