package imds

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"

	"innate"
	"innate/agent/endpoint"
)

// eventVersions are the api-versions of scheduled events, which are dated apart
// from the others (managed-identity-endpoints §1.12), oldest first. The dates of
// the other categories are taken too.
var eventVersions = slices.Compact(slices.Sorted(slices.Values(
	append([]string{"2017-11-01", "2019-01-01", "2019-04-01", "2019-08-01", "2020-07-01"}, versions...))))

// maxApproval bounds the body of an approval.
const maxApproval = 16 << 10

// Scheduled is what is going to happen to the VM.
type Scheduled struct {
	Incarnation int // grows whenever any of it changes
	Events      []Event
}

// An Event is one thing that is going to happen to the VM.
type Event struct {
	ID, Type, Source, Description string
	NotBefore                     time.Time
	Duration                      int // seconds; -1: nobody knows
	Started                       bool
}

// An eventShape is an Event as a VM reads it.
type eventShape struct {
	ID          string   `json:"EventId"`
	Type        string   `json:"EventType"`
	Kind        string   `json:"ResourceType"`
	Resources   []string `json:"Resources"`
	Status      string   `json:"EventStatus"`
	NotBefore   string   `json:"NotBefore"` // empty once it has begun
	Description string   `json:"Description"`
	Source      string   `json:"EventSource"`
	Duration    int      `json:"DurationInSeconds"`
}

func (m Machine) shapeOf(ev Event) eventShape {
	shape := eventShape{
		ID: ev.ID, Type: ev.Type, Kind: "VirtualMachine", Resources: []string{m.Resource.Name()},
		Status: "Scheduled", NotBefore: ev.NotBefore.UTC().Format(http.TimeFormat),
		Description: ev.Description, Source: ev.Source, Duration: ev.Duration,
	}
	if ev.Started {
		shape.Status, shape.NotBefore = "Started", ""
	}
	return shape
}

// serveEvents answers GET and POST /metadata/scheduledevents.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.approve(w, r)
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET, POST")
	}
	_, m, ok := s.enter(w, r, eventVersions, endpoint.Composed)
	if !ok {
		return
	}
	events := []eventShape{}
	for _, ev := range m.Scheduled.Events {
		events = append(events, m.shapeOf(ev))
	}
	endpoint.Answer(w, http.StatusOK, endpoint.JSON(struct {
		DocumentIncarnation int
		Events              []eventShape
	}{max(m.Scheduled.Incarnation, 1), events}))
}

func (s *Server) approve(w http.ResponseWriter, r *http.Request) {
	err := endpoint.Local(r, s.hosts)
	if err == nil {
		err = s.admit(r, endpoint.Composed)
	}
	if err != nil {
		s.badInstance(w, err)
		return
	}
	_, m, ok := s.query(w, r, eventVersions)
	if !ok {
		return
	}
	ids, err := readApproval(w, r)
	if err == nil {
		err = s.begin(r.Context(), m, ids)
	}
	if err != nil {
		s.badInstance(w, err)
		return
	}
	endpoint.Answer(w, http.StatusOK, endpoint.JSON(struct{}{}))
}

// begin approves those of the events that have not begun. One that has, or is
// over, or never was, is no mistake: whoever approves may be late.
func (s *Server) begin(ctx context.Context, m Machine, ids []string) error {
	var waiting []string
	for _, ev := range m.Scheduled.Events {
		if !ev.Started && slices.Contains(ids, ev.ID) {
			waiting = append(waiting, ev.ID)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	return s.approved(ctx, waiting)
}

// readApproval reads {"StartRequests":[{"EventId":"…"},…]} and refuses what is not.
func readApproval(w http.ResponseWriter, r *http.Request) (ids []string, err error) {
	if r.ContentLength < 0 {
		// Chunks and a length that disagree are two requests to who reads on.
		return nil, badRequest("the body comes with a Content-Length, not in chunks")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxApproval))
	if err != nil {
		return nil, &innate.Refusal{Status: http.StatusBadRequest, Text: "reading the body: it is cut off, or longer than 16 kB", Cause: err}
	}
	var approval struct {
		StartRequests []struct {
			EventID string `json:"EventId"`
		}
	}
	if json.Unmarshal(body, &approval) != nil || len(approval.StartRequests) == 0 {
		return nil, badRequest(`the body is {"StartRequests":[{"EventId":"..."}]}`)
	}
	for _, event := range approval.StartRequests {
		id, err := innate.ParseGUID(event.EventID)
		if err != nil {
			return nil, badRequest("an EventId is the GUID that a scheduled event has")
		}
		ids = append(ids, id)
	}
	return ids, nil
}
