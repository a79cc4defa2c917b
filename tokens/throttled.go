package tokens

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"innate/audit"
)

// Throttled requests leave no lines of their own, or a flood would fill the
// disk. There is one when a throttling begins, and each minute one that says
// how many requests it was since; a minute without any ends it.
const reportEvery = time.Minute

// mostEpisodes bounds the throttlings that are told apart; those beyond go as one.
const mostEpisodes = 1 << 12

// episodes are the throttlings under way, and how many requests of each are not
// yet in the audit log. The throttle's lock guards them.
type episodes struct {
	open map[counted]int
	due  time.Time // when the lines are next due; means nothing while none is open
}

// begins notes a throttled request and reports whether it is the first.
func (t *throttle) begins(whose counted, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &t.episodes
	if _, ok := e.open[whose]; !ok && len(e.open) >= mostEpisodes {
		whose = counted{}
	}
	if _, ok := e.open[whose]; ok {
		e.open[whose]++
		return false
	}
	if len(e.open) == 0 {
		e.due = now.Add(reportEvery)
	}
	e.open[whose] = 0
	return true
}

// unreported is what is due to be recorded at now: each throttling that went on,
// and how many requests it was.
func (t *throttle) unreported(now time.Time) map[counted]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &t.episodes
	if len(e.open) == 0 || now.Before(e.due) {
		return nil
	}
	e.due = now.Add(reportEvery)
	went := map[counted]int{}
	for whose, n := range e.open {
		if n == 0 {
			delete(e.open, whose)
			continue
		}
		went[whose], e.open[whose] = n, 0
	}
	return went
}

// recordExcess records a throttled request when it is the first.
func (s *Service) recordExcess(ctx context.Context, q *request, over *excess) error {
	if !s.throttle.begins(over.whose, q.now) {
		return nil
	}
	ev := q.refused(over.refusal)
	ev.Action, ev.Client, ev.Address = "throttle", over.whose.client, over.whose.network()
	return s.config.Audit.Record(ctx, ev)
}

// recordThrottling records what is due of the throttlings under way.
func (s *Service) recordThrottling(ctx context.Context, now time.Time) error {
	var recorded []func(context.Context) error
	for whose, n := range s.throttle.unreported(now) {
		recorded = append(recorded, s.config.Audit.Append(audit.Event{
			Time: now, Action: "throttle", Client: whose.client, Address: whose.network(),
			Why: fmt.Sprintf("%d more requests were throttled", n), Detail: map[string]string{"count": strconv.Itoa(n)},
		}))
	}
	for _, wait := range recorded {
		if err := wait(ctx); err != nil {
			return fmt.Errorf("recording a throttling: %w", err)
		}
	}
	return nil
}

// network is the address or network of c, as an audit event says it.
func (c counted) network() string {
	switch {
	case c.address == netip.Prefix{}:
		return ""
	case c.address.IsSingleIP():
		return c.address.Addr().String()
	}
	return c.address.String()
}
