package client

import (
	"slices"
	"strings"
	"time"
)

// Scheduled is what is going to happen to a VM (managed-identity-endpoints §1.12).
type Scheduled struct {
	// Changes grows with each change, and by one more for an event that is taken
	// away, so that together with the events begun by themselves it only grows.
	Changes int              `json:"changes"`
	Events  []ScheduledEvent `json:"events"`
}

// A ScheduledEvent is one thing that is going to happen to a VM. It begins when
// the VM approves it, and otherwise at NotBefore.
type ScheduledEvent struct {
	ID          string    `json:"eventId"` // GUID
	Type        string    `json:"eventType"`
	Source      string    `json:"eventSource"` // Platform or User
	Description string    `json:"description,omitempty"`
	NotBefore   time.Time `json:"notBefore"`
	Duration    int       `json:"durationInSeconds"` // of what the VM will notice; -1: nobody knows
	Approved    time.Time `json:"approved,omitzero"`
}

// Started reports whether the event has begun.
func (ev ScheduledEvent) Started(now time.Time) bool {
	return !ev.Approved.IsZero() || !now.Before(ev.NotBefore)
}

// Incarnation is a number that grows whenever what a VM reads of s changes.
func (s Scheduled) Incarnation(now time.Time) int {
	n := 1 + s.Changes
	for _, ev := range s.Events {
		if ev.Approved.IsZero() && ev.Started(now) {
			n++
		}
	}
	return n
}

// Approve notes that the VM is ready for the events with those ids that have not
// begun, and returns which these are.
func (s *Scheduled) Approve(ids []string, now time.Time) (approved []string) {
	s.Events = slices.Clone(s.Events)
	for i, ev := range s.Events {
		same := func(id string) bool { return strings.EqualFold(id, ev.ID) }
		if ev.Started(now) || !slices.ContainsFunc(ids, same) {
			continue
		}
		s.Events[i].Approved = now
		s.Changes++
		approved = append(approved, ev.ID)
	}
	return approved
}
