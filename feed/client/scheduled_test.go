package client_test

import (
	"testing"
	"time"

	"innate/feed/client"
)

func TestTheIncarnationGrowsWheneverSomethingOfItChanges(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	s := client.Scheduled{}
	last := s.Incarnation(at)
	grown := func(what string, want bool) {
		t.Helper()
		n := s.Incarnation(at)
		if n < last || want != (n > last) {
			t.Errorf("%s: from %d to %d, want it to grow: %v", what, last, n, want)
		}
		last = n
	}
	announce := func(id string) {
		s.Events = append(s.Events, client.ScheduledEvent{ID: id, NotBefore: at.Add(time.Hour)})
		s.Changes++
	}
	complete := func() { s.Events, s.Changes = s.Events[1:], s.Changes+2 }
	announce("a")
	grown("announced", true)
	s.Approve([]string{"A"}, at)
	grown("approved", true)
	s.Approve([]string{"a"}, at)
	grown("approved again", false)
	announce("b")
	announce("c")
	grown("two more", true)
	at = at.Add(time.Hour)
	grown("both are due", true)
	if approved := s.Approve([]string{"b"}, at); approved != nil {
		t.Errorf("approved %v, which has begun", approved)
	}
	grown("approved too late", false)
	for range 3 {
		complete()
		grown("one is over", true)
	}
}
