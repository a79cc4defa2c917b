package hosts_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/feed/client"
)

// event posts to the VM as the administrator.
func (w *world) event(action string, in map[string]any, out any) int {
	w.t.Helper()
	if out == nil {
		out = new(any) // a refusal is an answer too
	}
	return w.arm(w.admin, http.MethodPost, string(web)+"/"+action, in, out)
}

func (w *world) announced(kind string) (ev client.ScheduledEvent) {
	w.t.Helper()
	if status := w.event("announceEvent", map[string]any{"eventType": kind, "durationInSeconds": 60}, &ev); status != http.StatusOK {
		w.t.Fatalf("announcing a %s: %d", kind, status)
	}
	return ev
}

func (h *host) approve(events ...string) answer {
	h.w.t.Helper()
	return h.post("/v1/events/approve", map[string]any{"resource": web, "events": events}, new(struct{}))
}

func TestAHostHearsWhatIsGoingToHappenToItsVMAndSaysWhenItIsReady(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	here, elsewhere := w.joined(node1), w.joined(node2)
	feed, _ := here.feed()
	first := w.announced("Reboot")
	feed.until("the event is told", func(ev client.Event) bool { return ev.Key == key(web) })
	told := feed.placement(web).Scheduled
	if diff := cmp.Diff(&client.Scheduled{Changes: 1, Events: []client.ScheduledEvent{first}}, told); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}
	if first.NotBefore.Sub(w.now()) > 15*time.Minute || first.NotBefore.Sub(w.now()) < 14*time.Minute {
		t.Errorf("not before %v, want the 15 minutes of notice that programs rely on", first.NotBefore)
	}

	if a := elsewhere.approve(first.ID); a.status != http.StatusForbidden || a.code != "NotPlacedHere" {
		t.Errorf("another host approves: %+v, want 403 NotPlacedHere", a)
	}
	for range 2 { // a second approval changes nothing
		if a := here.approve(first.ID, innate.NewGUID()); a.status != http.StatusOK {
			t.Fatalf("%+v", a)
		}
	}
	feed.until("the approval is told", func(ev client.Event) bool { return ev.Key == key(web) })
	told = feed.placement(web).Scheduled
	if told.Changes != 2 || !told.Events[0].Started(w.now()) {
		t.Errorf("%+v: want it started by the one approval", told)
	}
	var seen client.Scheduled
	w.event("events", nil, &seen)
	if diff := cmp.Diff(told, &seen); diff != "" {
		t.Errorf("whoever announced it reads another thing (-host +administrator):\n%s", diff)
	}

	// The VM moves, and what is announced moves with it.
	w.vm(node2)
	there, _ := elsewhere.feed()
	if moved := there.placement(web).Scheduled; moved == nil || len(moved.Events) != 1 {
		t.Errorf("after the VM moved its host knows %+v", moved)
	}
	if a := here.approve(first.ID); a.status != http.StatusForbidden {
		t.Errorf("the host that it left approves: %+v, want 403", a)
	}
	if status := w.event("completeEvent", map[string]any{"eventId": first.ID}, nil); status != http.StatusOK {
		t.Errorf("completing: %d", status)
	}
	there.until("it is over", func(ev client.Event) bool { return ev.Key == key(web) })
	if over := there.placement(web).Scheduled; len(over.Events) != 0 || over.Changes != 4 {
		t.Errorf("%+v: want no event, and a count that has grown", over)
	}
	w.delete(web)
	w.vm(node1)
	if again := w.rowOf(feed, "the new VM"); again.Scheduled != nil {
		t.Errorf("a new VM of that name inherits %+v", again.Scheduled)
	}
}

// rowOf is the VM's placement when it is next told.
func (w *world) rowOf(feed *reader, what string) client.Placement {
	feed.until(what, func(ev client.Event) bool { return ev.Key == key(web) && ev.Value != nil })
	return feed.placement(web)
}

func TestAnEventThatCannotBeIsRefusedInWords(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	soon, late := w.now().Add(time.Minute), w.now().Add(400*24*time.Hour)
	for why, in := range map[string]map[string]any{
		"no type":                    {},
		"an unknown type":            {"eventType": "Explode"},
		"less notice than relied on": {"eventType": "Reboot", "notBefore": soon},
		"too far away":               {"eventType": "Reboot", "notBefore": late},
		"a negative duration":        {"eventType": "Freeze", "durationInSeconds": -5},
		"two lines":                  {"eventType": "Freeze", "description": "a\nb"},
		"an unknown source":          {"eventType": "Freeze", "eventSource": "Me"},
	} {
		if status := w.event("announceEvent", in, nil); status != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400", why, status)
		}
	}
	for range 16 {
		w.announced("Preempt")
	}
	if status := w.event("announceEvent", map[string]any{"eventType": "Preempt"}, nil); status != http.StatusConflict {
		t.Errorf("one too many: %d, want 409", status)
	}
	if status := w.event("completeEvent", map[string]any{"eventId": innate.NewGUID()}, nil); status != http.StatusNotFound {
		t.Errorf("completing what is not there: %d, want 404", status)
	}
	nobody := innate.Principal{Tenant: tenant, Object: innate.ObjectID(innate.NewGUID())}
	for _, action := range []string{"announceEvent", "completeEvent", "events"} {
		if status := w.arm(nobody, http.MethodPost, string(web)+"/"+action, map[string]any{"eventType": "Freeze", "eventId": "x"}, new(any)); status != http.StatusForbidden {
			t.Errorf("%s by nobody in particular: %d, want 403", action, status)
		}
	}
}
