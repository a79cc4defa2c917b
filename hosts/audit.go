package hosts

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"innate/audit"
	"innate/audit/ship"
	"innate/rest"
	"innate/store"
)

// What a host may send of its audit log, in bytes: so much at once and a second.
// An agent records far less; one that sends as fast as it may fills no disk soon.
const (
	shippedBurst = 4 << 20
	shippedRate  = 8 << 10
	shippedCost  = 1 << 10 // of a request, whatever is in it
)

// shipped says how far the audit log of a machine has been received, by machine key.
const shipped store.Table[audit.Place] = "hosts/shipped/"

// takeAudit takes what a host's agent recorded into this platform's own audit log
// (see package ship). Each event is marked as that machine's word: it cannot speak
// as another, nor as the server.
func (h *Hosts) takeAudit(w http.ResponseWriter, r *http.Request) {
	at, err := h.receive(w, r)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, ship.Answer{At: at})
}

func (h *Hosts) receive(w http.ResponseWriter, r *http.Request) (at audit.Place, err error) {
	p, err := h.peer(r, 0)
	if err != nil {
		return at, err
	}
	q, err := ship.ReadRequest(w, r)
	if err != nil {
		return at, badShipment(err)
	}
	if wait := h.flood.spend(p.machine.Key(), len(q.Lines)+shippedCost, h.config.Now()); wait > 0 {
		return at, &rest.Error{
			Status: http.StatusTooManyRequests, Code: "TooManyRecords", RetryAfter: wait,
			Message: fmt.Sprintf("this host sends more audit records than %d bytes a second: keep them, and send them later", shippedRate),
		}
	}
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, err := current(tx, p)
		if err != nil {
			return err
		}
		was, _, err := shipped.Get(tx, m.Machine.Key())
		if err != nil {
			return err
		}
		events, to, err := ship.Take(was, q, h.config.Now())
		if err != nil {
			return badShipment(err)
		}
		for _, ev := range events {
			ev.Host, ev.From = string(m.Machine), string(m.Machine)
			if err := audit.Leave(tx, ev); err != nil {
				return badShipment(err)
			}
		}
		if at = to; at == was {
			return nil
		}
		return shipped.Put(tx, m.Machine.Key(), at)
	})
	if err != nil {
		return at, h.refused(r, byHost(r, p.machine, "ship-audit"), err)
	}
	h.saw(p)
	return at, nil
}

func badShipment(err error) error {
	return rest.Errorf(http.StatusBadRequest, "InvalidAuditRecords", "the audit records: %v", err)
}

// A flood bounds what each host may send to this process.
type flood struct {
	mu sync.Mutex
	of map[string]*rate.Limiter // by machine key
}

// spend takes n bytes from what a host may send, or says how long to wait for them.
func (f *flood) spend(host string, n int, now time.Time) (wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.of[host]
	if !ok {
		l = rate.NewLimiter(shippedRate, shippedBurst)
		f.of[host] = l
	}
	if l.AllowN(now, n) {
		return 0
	}
	missing := float64(n) - l.TokensAt(now)
	return time.Duration(missing / shippedRate * float64(time.Second))
}
