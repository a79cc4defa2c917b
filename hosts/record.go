package hosts

import (
	"errors"
	"fmt"
	"net/http"

	"innate"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// leave puts the event of an allowed change in the change's own transaction.
func (h *Hosts) leave(tx store.Tx, ev audit.Event, detail map[string]string) error {
	ev.Time, ev.Allowed, ev.Detail = h.config.Now(), true, detail
	return audit.Leave(tx, ev)
}

// refused records a refusal before the answer, and returns the answer. Faults
// of our own are not decisions and pass.
func (h *Hosts) refused(r *http.Request, ev audit.Event, err error) error {
	var no *rest.Error
	if !errors.As(err, &no) {
		return err
	}
	ev.Time, ev.Allowed, ev.Why = h.config.Now(), false, no.Code+": "+no.Message
	if err := h.config.Audit.Record(r.Context(), ev); err != nil {
		return fmt.Errorf("recording the refusal: %w", err)
	}
	return err
}

// by is the beginning of an event about what a person or program asked for.
func by(r *http.Request, who innate.Principal, action string, machine innate.ResourceID) audit.Event {
	return audit.Event{
		Action: action, Target: string(machine), Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Assurance: who.Assurance, Token: who.Token,
		Address: r.RemoteAddr, Correlation: rest.RequestID(r.Context()),
	}
}
