package hosts

import (
	"net/http"

	"innate/audit"
	"innate/audit/ship"
	"innate/rest"
	"innate/store"
)

// shippedRate is what a host may send of its audit log, in bytes a second. An agent
// records far less.
const shippedRate = 8 << 10

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
	if wait := h.shipping.Spend(p.machine.Key(), len(q.Lines), h.config.Now()); wait > 0 {
		return at, &rest.Error{Status: http.StatusTooManyRequests, Code: "TooManyRecords", RetryAfter: wait, Message: h.shipping.TooMany()}
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
