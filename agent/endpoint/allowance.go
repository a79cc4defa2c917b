package endpoint

import (
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"innate"
)

// A Cost is what an answer takes of its caller's Allowance.
type Cost int

// The costs. The unit is an answer from memory, some 50 µs of one core; what
// takes the disk or the control plane is dearer than its own time on the core.
const (
	FromMemory Cost = 1    // a token that is kept
	Composed   Cost = 20   // a document made for this request
	Signed     Cost = 500  // with a private key
	Decided    Cost = 500  // a decision that is the first of its kind: fetched upstream, recorded on disk
	perSecond  Cost = 20e3 // of one caller: 20 000 answers from memory, 1 000 documents, 40 signatures or decisions
)

// An Allowance keeps one caller from starving the others: it is wide enough
// that only a flood meets it, for Azure's 20 requests a second are not our limit
// (managed-identity-endpoints §1.1), and every caller has one of its own.
type Allowance struct {
	bucket *rate.Limiter
	now    func() time.Time
}

// NewAllowance is one caller's; now is the clock.
func NewAllowance(now func() time.Time) *Allowance {
	return &Allowance{rate.NewLimiter(rate.Limit(perSecond), int(perSecond)), now}
}

// Spend takes the cost of an answer, or refuses it with 429 and says when to come again.
func (a *Allowance) Spend(c Cost) error {
	now := a.now()
	r := a.bucket.ReserveN(now, int(c))
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return &innate.Refusal{
		Status: http.StatusTooManyRequests, RetryAfter: wait,
		Text: "too many requests: this caller has used what one caller may; ask again after Retry-After, and keep what was answered",
	}
}

// Owe takes a cost that is known only afterwards; the next answers wait for it.
func (a *Allowance) Owe(c Cost) { a.bucket.ReserveN(a.now(), int(c)) }
