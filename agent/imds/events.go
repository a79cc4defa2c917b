package imds

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"

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

// serveEvents answers GET and POST /metadata/scheduledevents.
//
// Nothing here plans to stop, move or freeze a VM: whoever runs the VM does that,
// and we do not hear of it. So the list is empty and never changes, and an
// approval is of an event that is over, which is no mistake.
func (s *Server) serveEvents(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		s.approve(w, r)
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET, POST")
	}
	if _, _, ok := s.enter(w, r, eventVersions, endpoint.Composed); ok {
		writeJSON(w, http.StatusOK, struct {
			DocumentIncarnation int
			Events              []struct{}
		}{1, []struct{}{}})
	}
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
	if _, _, ok := s.query(w, r, eventVersions); !ok {
		return
	}
	if err := readApproval(w, r); err != nil {
		s.badInstance(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// readApproval refuses what is not {"StartRequests":[{"EventId":"…"},…]}.
func readApproval(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength < 0 {
		// Chunks and a length that disagree are two requests to who reads on.
		return badRequest("the body comes with a Content-Length, not in chunks")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxApproval))
	if err != nil {
		return &innate.Refusal{Status: http.StatusBadRequest, Text: "reading the body: it is cut off, or longer than 16 kB", Cause: err}
	}
	var approval struct {
		StartRequests []struct {
			EventID string `json:"EventId"`
		}
	}
	if json.Unmarshal(body, &approval) != nil || len(approval.StartRequests) == 0 {
		return badRequest(`the body is {"StartRequests":[{"EventId":"..."}]}`)
	}
	for _, event := range approval.StartRequests {
		if _, err := innate.ParseGUID(event.EventID); err != nil {
			return badRequest("an EventId is the GUID that a scheduled event has")
		}
	}
	return nil
}
