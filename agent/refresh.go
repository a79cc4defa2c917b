package agent

import (
	"context"
	"crypto/sha256"
	"maps"
	"time"

	"innate"
)

// refreshEvery is how often the clock is looked at for tokens that want their
// next: short beside half the life of any, and it need not be exact.
const refreshEvery = 15 * time.Second

// refreshing fetches the next of each token that is due, until ctx ends: a
// workload that asks once an hour finds a good one, also when the control plane
// is away at that moment.
func (c *cache) refreshing(ctx context.Context) error {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			c.refreshDue()
		}
	}
}

// refreshDue looks once. What nobody asked for since it came is left to end,
// and what has ended is thrown away.
func (c *cache) refreshDue() {
	for _, w := range c.wallets() {
		w.mu.Lock()
		now := c.now()
		maps.DeleteFunc(w.tokens, func(_ tokenKey, e *entry) bool { return e.call == nil && !e.good(now) })
		for _, e := range w.tokens {
			if e.asked && e.due(now) {
				c.begin(w, e)
			}
		}
		w.mu.Unlock()
	}
}

// refused throws away the token of a workload that has this SHA-256: a resource
// would not take it, so it is not handed out again.
func (c *cache) refused(workload innate.ResourceID, sum [sha256.Size]byte) {
	w := c.wallet(workload.Key())
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, e := range w.tokens {
		if e.token.Value != "" && sha256.Sum256([]byte(e.token.Value)) == sum {
			delete(w.tokens, key)
			w.move()
			c.dropped()
		}
	}
}

// Refused takes a workload's word that a resource refused the token with this
// SHA-256 (token_sha256_to_refresh, managed-identity-endpoints §3.1): the next
// request for it is answered with a new one. Another's token it cannot name.
func (a *Agent) Refused(workload innate.ResourceID, sum [sha256.Size]byte) {
	if _, placed := a.placed.get(workload); placed {
		a.tokens.refused(workload, sum)
	}
}
