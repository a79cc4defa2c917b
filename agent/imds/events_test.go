package imds_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/agent/imds"
)

func TestAnApprovalIsTakenWhateverBecameOfItsEvent(t *testing.T) {
	s, _ := newServer(t, imds.Config{})
	addr := serve(t, s)
	const event = `{"EventId":"602d9444-d2cd-49c7-8624-8643e7171297"}`
	for _, test := range []struct {
		body string
		want int
	}{
		{`{"StartRequests":[` + event + `]}`, 200},
		{`{"StartRequests":[` + event + `,` + event + `]}`, 200},                    // again
		{`{"DocumentIncarnation":5,"StartRequests":[` + event + `]}`, 200},          // as older clients send it
		{`{"StartRequests":[{"EventId":"f5a1"}]}`, 400},                             // no GUID
		{`{"StartRequests":[]}`, 400},                                               // nothing is approved
		{`StartRequests`, 400},                                                      //
		{`{"StartRequests":[` + strings.Repeat(event+",", 400) + event + `]}`, 400}, // more than 16 kB
	} {
		req, err := http.NewRequest("POST", "http://"+addr+"/metadata/scheduledevents?api-version=2020-07-01", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "169.254.169.254"
		req.Header.Set("Metadata", "true")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != test.want || resp.Close != (test.want != 200) {
			t.Errorf("%.80s: got %s, closed %v; want %d", test.body, resp.Status, resp.Close, test.want)
		}
	}
}

func TestEventsAreToldAsSDKsReadThem(t *testing.T) {
	const due, soon = "602d9444-d2cd-49c7-8624-8643e7171297", "7c9e6679-7425-40de-944b-e07fc1f90ae7"
	m := machine
	m.Scheduled = imds.Scheduled{Incarnation: 7, Events: []imds.Event{
		{ID: due, Type: "Reboot", Source: "Platform", Description: "a new kernel", NotBefore: now, Duration: 60, Started: true},
		{ID: soon, Type: "Freeze", Source: "User", NotBefore: now.Add(time.Hour), Duration: -1},
	}}
	var approved []string
	var away bool
	s, _ := newServer(t, imds.Config{
		Machine: func() (imds.Machine, bool) { return m, true },
		Approve: func(_ context.Context, events []string) error {
			if away {
				return &innate.Refusal{Status: 503, RetryAfter: 2 * time.Second, Text: "later"}
			}
			approved = append(approved, events...)
			return nil
		},
	})
	ask := func(method, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, "/metadata/scheduledevents?api-version=2020-07-01", strings.NewReader(body))
		r.Host = "169.254.169.254"
		r.Header.Set("Metadata", "true")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w
	}
	want := `{"DocumentIncarnation":7,"Events":[` +
		`{"EventId":"` + due + `","EventType":"Reboot","ResourceType":"VirtualMachine","Resources":["web-1"],"EventStatus":"Started","NotBefore":"",` +
		`"Description":"a new kernel","EventSource":"Platform","DurationInSeconds":60},` +
		`{"EventId":"` + soon + `","EventType":"Freeze","ResourceType":"VirtualMachine","Resources":["web-1"],"EventStatus":"Scheduled",` +
		`"NotBefore":"Mon, 21 Sep 2026 15:13:20 GMT","Description":"","EventSource":"User","DurationInSeconds":-1}]}`
	if got := strings.TrimSpace(ask("GET", "").Body.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	both := `{"StartRequests":[{"EventId":"` + due + `"},{"EventId":"` + strings.ToUpper(soon) + `"}]}`
	away = true
	if w := ask("POST", both); w.Code != 503 || w.Header().Get("Retry-After") != "2" {
		t.Errorf("while nobody can be told: %d, Retry-After %q; want 503 and 2", w.Code, w.Header().Get("Retry-After"))
	}
	away = false
	if w := ask("POST", both); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if len(approved) != 1 || approved[0] != soon {
		t.Errorf("approved %v, want the one that has not begun", approved)
	}
}
