package hosts

import (
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"innate"
	"innate/feed/client"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// Rights at a VM about its scheduled events.
const (
	announceAction = "Microsoft.Compute/virtualMachines/announceEvent/action"
	completeAction = "Microsoft.Compute/virtualMachines/completeEvent/action"
	eventsAction   = "Microsoft.Compute/virtualMachines/events/read"
)

const (
	mostEvents      = 16  // of a VM at a time
	mostDescription = 500 // bytes
	furthest        = 366 * 24 * time.Hour
)

// notice is what programs in a VM rely on between hearing of an event and its
// beginning (managed-identity-endpoints §1.12).
var notice = map[string]time.Duration{
	"Freeze": 15 * time.Minute, "Reboot": 15 * time.Minute, "Redeploy": 10 * time.Minute,
	"Preempt": 30 * time.Second, "Terminate": 5 * time.Minute,
}

// scheduled says what is going to happen to a VM, by its key. The row stays when
// all of it is over, for its count of changes.
const scheduled store.Table[client.Scheduled] = "hosts/events/"

// announce tells a VM of something that is going to happen to it:
//
//	POST {vm}/announceEvent {eventType, notBefore, durationInSeconds, description, eventSource} → client.ScheduledEvent
//
// Without notBefore it is the shortest notice there is for that type; without a
// duration that is unknown (-1).
func (h *Hosts) announce(w http.ResponseWriter, r *http.Request, who innate.Principal, vm *resources.Resource) {
	ev, err := h.readEvent(r)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	h.change(w, r, who, announceAction, vm.ID, func(s *client.Scheduled) (any, error) {
		if len(s.Events) >= mostEvents {
			return nil, rest.Errorf(http.StatusConflict, "TooManyEvents", "%s has %d scheduled events: complete some of them first", vm.ID.Name(), mostEvents)
		}
		s.Events = append(s.Events, ev)
		s.Changes++
		return ev, nil
	}, map[string]string{"event": ev.ID, "eventType": ev.Type, "notBefore": ev.NotBefore.Format(time.RFC3339)})
}

func (h *Hosts) readEvent(r *http.Request) (client.ScheduledEvent, error) {
	q := struct {
		Type        string     `json:"eventType"`
		NotBefore   *time.Time `json:"notBefore"`
		Duration    *int       `json:"durationInSeconds"`
		Description string     `json:"description"`
		Source      string     `json:"eventSource"`
	}{Source: "Platform"}
	if err := rest.Read(r, &q); err != nil {
		return client.ScheduledEvent{}, err
	}
	no := func(format string, args ...any) (client.ScheduledEvent, error) {
		return client.ScheduledEvent{}, rest.Errorf(http.StatusBadRequest, "InvalidEvent", format, args...)
	}
	now := h.config.Now().UTC().Truncate(time.Second) // as fine as the VM reads it
	ev := client.ScheduledEvent{ID: innate.NewGUID(), Type: q.Type, Source: q.Source, Description: q.Description, Duration: -1}
	least, known := notice[q.Type]
	ev.NotBefore = now.Add(least)
	if q.NotBefore != nil {
		ev.NotBefore = q.NotBefore.UTC().Truncate(time.Second)
	}
	if q.Duration != nil {
		ev.Duration = *q.Duration
	}
	switch {
	case !known:
		return no("eventType is '%.40s': want Freeze, Reboot, Redeploy, Preempt or Terminate", q.Type)
	case q.Source != "Platform" && q.Source != "User":
		return no("eventSource is '%.40s': want Platform or User", q.Source)
	case ev.NotBefore.Before(now.Add(least)):
		return no("notBefore is %s: programs rely on a notice of %s before a %s, which is %s", ev.NotBefore.Format(time.RFC3339), least, q.Type, now.Add(least).Format(time.RFC3339))
	case ev.NotBefore.After(now.Add(furthest)):
		return no("notBefore is %s: want a time within a year", ev.NotBefore.Format(time.RFC3339))
	case ev.Duration < -1:
		return no("durationInSeconds is %d: want seconds, or -1 when nobody knows", ev.Duration)
	case len(q.Description) > mostDescription || strings.ContainsFunc(q.Description, unicode.IsControl):
		return no("description: want one line of at most %d bytes", mostDescription)
	}
	return ev, nil
}

// complete ends an event, or calls it off: POST {vm}/completeEvent {eventId} → {}.
func (h *Hosts) complete(w http.ResponseWriter, r *http.Request, who innate.Principal, vm *resources.Resource) {
	var q struct {
		ID string `json:"eventId"`
	}
	if err := rest.Read(r, &q); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	h.change(w, r, who, completeAction, vm.ID, func(s *client.Scheduled) (any, error) {
		i := slices.IndexFunc(s.Events, func(ev client.ScheduledEvent) bool { return strings.EqualFold(ev.ID, q.ID) })
		if i < 0 {
			return nil, rest.Errorf(http.StatusNotFound, "EventNotFound", "%s has no scheduled event '%.40s'", vm.ID.Name(), q.ID)
		}
		s.Events = slices.Delete(slices.Clone(s.Events), i, i+1)
		s.Changes += 2 // one for the event that may have begun by itself
		return struct{}{}, nil
	}, map[string]string{"event": strings.ToLower(q.ID)})
}

// change changes what is going to happen to a VM, and tells its host.
func (h *Hosts) change(w http.ResponseWriter, r *http.Request, who innate.Principal, action string, vm innate.ResourceID,
	fn func(*client.Scheduled) (any, error), detail map[string]string) {
	if err := h.config.Require(r.Context(), who, action, vm.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	var answer any
	err := h.insist(r.Context(), func(tx store.Tx) error {
		s, _, err := scheduled.Get(tx, vm.Key())
		if err != nil {
			return err
		}
		if answer, err = fn(&s); err != nil {
			return err
		}
		if err := h.tellEvents(tx, vm, s); err != nil {
			return err
		}
		return h.leave(tx, by(r, who, action, vm), detail)
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, answer)
}

// tellEvents writes what is going to happen to a VM, also to where it is placed.
func (h *Hosts) tellEvents(tx store.Tx, vm innate.ResourceID, s client.Scheduled) error {
	if err := scheduled.Put(tx, vm.Key(), s); err != nil {
		return err
	}
	machines, _, err := places.Get(tx, vm.Key())
	if err != nil {
		return err
	}
	for _, m := range machines {
		p, ok, err := placedOn(tx, m, vm)
		if err != nil {
			return err
		}
		if p.Scheduled = &s; !ok {
			continue
		}
		if err := h.tell(tx, m, p); err != nil {
			return err
		}
	}
	return nil
}

// events answers POST {vm}/events: client.Scheduled.
func (h *Hosts) events(w http.ResponseWriter, r *http.Request, who innate.Principal, vm *resources.Resource) {
	if err := h.config.Require(r.Context(), who, eventsAction, vm.ID.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	var s client.Scheduled
	err := h.config.DB.View(r.Context(), func(v store.Reader) (err error) {
		s, _, err = scheduled.Get(v, vm.ID.Key())
		return err
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	if s.Events == nil {
		s.Events = []client.ScheduledEvent{}
	}
	rest.Write(w, http.StatusOK, s)
}

// approve notes that a VM on the host that asks is ready for events: whoever
// announced them need wait no longer. Events that are over are no mistake.
func (h *Hosts) approve(r *http.Request) (struct{}, error) {
	p, err := h.peer(r, 0)
	if err != nil {
		return struct{}{}, err
	}
	var q struct {
		Resource innate.ResourceID `json:"resource"`
		Events   []string          `json:"events"`
	}
	if err := rest.Read(r, &q); err != nil {
		return struct{}{}, err
	}
	vm, err := innate.ParseResourceID(string(q.Resource))
	if err != nil {
		return struct{}{}, rest.Errorf(http.StatusBadRequest, "InvalidResourceId", "resource: %v", err)
	}
	ev := byHost(r, p.machine, "approve-event")
	ev.Target, ev.Hosting, ev.Name = string(vm), string(vm), ""
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, err := current(tx, p)
		if err != nil {
			return err
		}
		if _, ok, err := placedOn(tx, m.Machine, vm); err != nil {
			return err
		} else if !ok {
			return rest.Errorf(http.StatusForbidden, "NotPlacedHere", "%s is not placed on %s", vm, m.Machine.Name())
		}
		s, _, err := scheduled.Get(tx, vm.Key())
		if err != nil {
			return err
		}
		approved := s.Approve(q.Events, h.config.Now().UTC())
		if len(approved) == 0 {
			return nil
		}
		if err := h.tellEvents(tx, vm, s); err != nil {
			return err
		}
		return h.leave(tx, ev, map[string]string{"events": strings.Join(approved, " ")})
	})
	if err != nil {
		return struct{}{}, h.refused(r, ev, err)
	}
	h.saw(p)
	return struct{}{}, nil
}
