package databases

import (
	"net/http"
	"strings"

	"innate/access"
	"innate/audit"
	"innate/audit/ship"
	"innate/rest"
	"innate/store"
)

// shippedRate is what a gateway may send of its audit log, in bytes a second: about
// a hundred log-ins, each of which it records.
const shippedRate = 64 << 10

// takeAudit takes what a server's gateway recorded into this platform's own
// audit log (see package ship). Each event is marked as the word of that server,
// about that server, by that gateway: whatever it says itself.
func (d *Databases) takeAudit(c call) error {
	if err := d.maySend(c); err != nil {
		return err
	}
	q, err := ship.ReadRequest(c.w, c.Request)
	if err != nil {
		return badShipment(err)
	}
	row := rowOf(c.server) + "//" + string(c.who.Object) + "/" + strings.TrimPrefix(c.who.Host.Key(), "/")
	if wait := d.shipping.Spend(row, len(q.Lines), d.config.Now()); wait > 0 {
		return &rest.Error{Status: http.StatusTooManyRequests, Code: "TooManyRecords", RetryAfter: wait, Message: d.shipping.TooMany()}
	}
	var at audit.Place
	if _, err := d.config.DB.Update(c.Context(), func(tx store.Tx) error {
		server, err := c.find(tx)
		if err != nil {
			return err
		}
		was, _, err := shipped.Get(tx, row)
		if err != nil {
			return err
		}
		events, to, err := ship.Take(was, q, d.config.Now())
		if err != nil {
			return badShipment(err)
		}
		for _, ev := range events {
			ev.From, ev.Target = string(server.Resource), string(server.Resource)
			if ev.Detail == nil {
				ev.Detail = map[string]string{}
			}
			ev.Detail["gateway"] = string(c.who.Object)
			if err := audit.Leave(tx, ev); err != nil {
				return badShipment(err)
			}
		}
		if at = to; at == was {
			return nil
		}
		return shipped.Put(tx, row, at)
	}); err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, ship.Answer{At: at})
	return nil
}

// maySend is need for who comes several times a second: only a refusal is on the
// record, since what it sends will be.
func (d *Databases) maySend(c call) error {
	may, err := d.config.Access.Allowed(c.Context(), c.who, access.Control(gatewayAction), c.server.Scope())
	switch {
	case err != nil:
		return err
	case !may.Allowed:
		return d.need(c, "gateway/action")
	}
	return d.config.DB.Sync(c.Context())
}

func badShipment(err error) error {
	return rest.Errorf(http.StatusBadRequest, "InvalidAuditRecords", "the audit records: %v", err)
}
