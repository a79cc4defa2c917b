package ship

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// What each sender may send, in bytes: so much at once and a second. A log of
// decisions grows far slower; who sends as fast as it may fills no disk soon.
const (
	burst   = 4 << 20
	perTime = 8 << 10
	cost    = 1 << 10 // of a request, whatever is in it
)

// An Allowance bounds what each sender may send to this process. The zero value
// is ready.
type Allowance struct {
	mu sync.Mutex
	of map[string]*rate.Limiter // by sender
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
		l = rate.NewLimiter(perTime, burst)
		a.of[sender] = l
	}
	n := lines + cost
	if l.AllowN(now, n) {
		return 0
	}
	missing := float64(n) - l.TokensAt(now)
	return time.Duration(missing / perTime * float64(time.Second))
}

// TooMany is what a sender reads when it has to wait.
var TooMany = fmt.Sprintf("more audit records than %d bytes a second: keep them, and send them later", perTime)
