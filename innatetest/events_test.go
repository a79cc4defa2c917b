package innatetest_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"

	"innate/agent/caller"
	"innate/feed/client"
	"innate/innatetest"
)

// A program in a VM waits for what its administrator announces, and says that it is ready.
func TestAVMHearsOfAnEventAndItsAdministratorThatItIsReady(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	vm := p.VM("web-1")
	ns := namespace(t, p, vm)
	inside := &http.Client{Transport: &http.Transport{Dial: func(network, addr string) (c net.Conn, err error) {
		err = caller.InNamespace(ns, func() error { c, err = net.Dial(network, addr); return err })
		return c, err
	}}}
	defer inside.CloseIdleConnections()
	const url = "http://169.254.169.254/metadata/scheduledevents?api-version=2020-07-01"
	var told struct {
		DocumentIncarnation int
		Events              []struct{ EventId, EventType, EventStatus string }
	}
	hears := func(what string, events int, status string) {
		t.Helper()
		eventually(t, what, func() bool {
			if err := json.Unmarshal(fetch(t, inside, url), &told); err != nil {
				t.Fatal(err)
			}
			return len(told.Events) == events && (events == 0 || told.Events[0].EventStatus == status)
		})
	}
	hears("nothing is planned", 0, "")
	before := told.DocumentIncarnation
	var ev client.ScheduledEvent
	p.ARM(http.MethodPost, string(vm.ID())+"/announceEvent", map[string]any{"eventType": "Reboot"}, &ev)
	hears("the VM hears of it", 1, "Scheduled")
	if told.Events[0].EventId != ev.ID || told.DocumentIncarnation <= before {
		t.Errorf("told %+v of %s", told, ev.ID)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(`{"StartRequests":[{"EventId":"`+ev.ID+`"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := inside.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the approval: %s", resp.Status)
	}
	var seen client.Scheduled // at once: the approval was acknowledged
	p.ARM(http.MethodPost, string(vm.ID())+"/events", nil, &seen)
	if len(seen.Events) != 1 || seen.Events[0].Approved.IsZero() {
		t.Errorf("its administrator reads %+v, want it approved", seen)
	}
	hears("it has begun", 1, "Started")
	p.ARM(http.MethodPost, string(vm.ID())+"/completeEvent", map[string]any{"eventId": ev.ID}, nil)
	hears("it is over", 0, "")
}
