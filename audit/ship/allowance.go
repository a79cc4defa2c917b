package ship

import (
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	burst = 4 << 20 // bytes that a sender may send at once
	cost  = 1 << 10 // of a request, in bytes, whatever is in it
)

// An Allowance bounds what each sender may send to this process: who sends as fast
// as it may fills no disk soon. Rate is required.
type Allowance struct {
	Rate int // bytes a second of each sender, once it has sent much at once

	mu sync.Mutex
	of map[string]*rate.Limiter // by sender; who has sent nothing for long is not among them
}

// Spend takes a request with so many bytes of lines from what a sender may
// send, or says how long to wait for that.
func (a *Allowance) Spend(sender string, lines int, now time.Time) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, ok := a.of[sender]
	if !ok {
		if a.of == nil {
			a.of = map[string]*rate.Limiter{}
		}
		maps.DeleteFunc(a.of, func(_ string, l *rate.Limiter) bool { return l.TokensAt(now) >= burst }) // as a new one
		l = rate.NewLimiter(rate.Limit(a.Rate), burst)
		a.of[sender] = l
	}
	n := lines + cost
	if l.AllowN(now, n) {
		return 0
	}
	missing := float64(n) - l.TokensAt(now)
	return time.Duration(missing / float64(a.Rate) * float64(time.Second))
}

// TooMany is what a sender reads when it has to wait.
func (a *Allowance) TooMany() string {
	return fmt.Sprintf("more audit records than %d bytes a second: keep them, and send them later", a.Rate)
}
