package endpoint

import (
	"context"
	"errors"
	"maps"
	"strconv"
	"sync"
	"time"

	"innate"
	"innate/audit"
)

// A Decision is what an endpoint decided, as far as one differs from another.
type Decision struct {
	Allowed bool
	Who     string // the caller, by kernel facts
	Target  string // the audience
	Client  innate.ClientID
	Why     string // of a refusal
}

// A Ledger records an endpoint's decisions: the first of a kind durably before
// its answer, its repeats as a count (design.md §7.4), so that neither a busy
// workload nor a hostile one can fill the disk. The zero Ledger needs Log and Now.
type Ledger struct {
	Log *audit.Log
	Now func() time.Time

	mu   sync.Mutex
	seen map[Decision]*tally
}

type tally struct {
	event   audit.Event
	until   time.Time // when the next one is written again
	repeats int       // not written yet
}

// maxDecisions bounds the kinds that are told apart. The rest within that time
// is counted together.
const maxDecisions = 1024

// Repeats reports whether d was recorded already, and counts it if so.
func (l *Ledger) Repeats(d Decision) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.seen[d]
	if !ok && len(l.seen) > maxDecisions {
		t, ok = l.seen[Decision{Allowed: d.Allowed}]
	}
	if !ok || !l.Now().Before(t.until) {
		return false
	}
	t.repeats++
	return true
}

// Record writes ev, the first of its kind, and lets Repeats count the next ones
// until then. It returns when ev is durable; without that there is no answer.
func (l *Ledger) Record(d Decision, ev audit.Event, until time.Time) error {
	ev.Time, ev.Allowed = l.Now(), d.Allowed
	// A caller who hangs up is no reason to forget what was decided.
	if err := l.Log.Record(context.Background(), ev); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[Decision]*tally{}
	}
	if len(l.seen) >= maxDecisions {
		l.forgetEnded()
	}
	if len(l.seen) >= maxDecisions {
		d = Decision{Allowed: d.Allowed}
	}
	if before := l.seen[d]; before != nil {
		l.count(before)
	}
	l.seen[d] = &tally{event: ev, until: until}
	return nil
}

// forgetEnded makes room; l.mu is held.
func (l *Ledger) forgetEnded() {
	now := l.Now()
	for d, t := range l.seen {
		if !now.Before(t.until) {
			l.count(t)
			delete(l.seen, d)
		}
	}
}

// count begins to write how often t was repeated; l.mu is held.
func (l *Ledger) count(t *tally) func(context.Context) error {
	if t.repeats == 0 {
		return func(context.Context) error { return nil }
	}
	ev := t.event
	ev.Time = l.Now()
	ev.Detail = maps.Clone(ev.Detail)
	if ev.Detail == nil {
		ev.Detail = map[string]string{}
	}
	ev.Detail["repeats"] = strconv.Itoa(t.repeats)
	t.repeats = 0
	return l.Log.Append(ev)
}

// Close writes the counts that are still open.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, t := range l.seen {
		errs = append(errs, l.count(t)(context.Background()))
	}
	l.seen = nil
	return errors.Join(errs...)
}
