package imds

import (
	"errors"
	"net/http"
	"slices"

	"innate"
	"innate/agent/endpoint"
)

// What all categories but identity have in common: the api-version that they
// ask for, and errors that are a sentence where identity's have a code.

// enter checks a GET for one of the api-versions (oldest first), and returns its
// query and whom it is about. Otherwise it has answered.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, accepted []string, cost endpoint.Cost) (q endpoint.Query, m Machine, ok bool) {
	if err := s.check(r, cost); err != nil {
		s.badInstance(w, err)
		return nil, m, false
	}
	return s.query(w, r, accepted)
}

// query is enter for a request that was let in.
func (s *Server) query(w http.ResponseWriter, r *http.Request, accepted []string) (q endpoint.Query, m Machine, ok bool) {
	q, err := endpoint.ParseQuery(r.URL.RawQuery)
	if err != nil {
		s.badInstance(w, err)
		return nil, m, false
	}
	if !slices.Contains(accepted, q.Get("api-version")) {
		s.badVersion(w, accepted, q.Misprint())
		return nil, m, false
	}
	if m, ok = s.machine(); !ok {
		notFound(w, "Not found")
	}
	return q, m, ok
}

// serveVersions answers GET /metadata/versions, the one route without an api-version.
func (s *Server) serveVersions(w http.ResponseWriter, r *http.Request) {
	if err := s.check(r, endpoint.Composed); err != nil {
		s.badInstance(w, err)
		return
	}
	endpoint.Answer(w, http.StatusOK, endpoint.JSON(map[string][]string{"apiVersions": versions}))
}

// serveLoadBalancer answers GET /metadata/loadbalancer: the platform has none to put before a VM.
func (s *Server) serveLoadBalancer(w http.ResponseWriter, r *http.Request) {
	if _, _, ok := s.enter(w, r, since("2020-10-01"), endpoint.Composed); ok {
		notFound(w, "No load balancer metadata is found: no load balancer of the platform stands before this VM")
	}
}

func (s *Server) badInstance(w http.ResponseWriter, err error) {
	no := endpoint.Grade(err)
	text := no.Text
	switch no.Status {
	case http.StatusBadRequest:
		text = "Bad request. " + text
	case http.StatusInternalServerError:
		text = "the agent could not tell; its log says why"
		s.log.Error("metadata", "error", no.Cause)
	}
	endpoint.Headers(w.Header(), no)
	endpoint.Answer(w, no.Status, endpoint.JSON(map[string]string{"error": text}))
}

// badVersion names the versions to use, and the misprint if that is why there is none.
func (s *Server) badVersion(w http.ResponseWriter, accepted []string, misprint error) {
	text := "api-version is invalid or was not specified in the request. For more information refer to aka.ms/azureimds"
	var r *innate.Refusal
	if errors.As(misprint, &r) {
		text = r.Text
	}
	newest := slices.Clone(accepted[max(len(accepted)-3, 0):])
	slices.Reverse(newest)
	endpoint.Headers(w.Header(), innate.Refusal{Status: http.StatusBadRequest})
	endpoint.Answer(w, http.StatusBadRequest, endpoint.JSON(struct {
		Error  string   `json:"error"`
		Newest []string `json:"newest-versions"`
	}{"Bad request. " + text, newest}))
}

func notFound(w http.ResponseWriter, text string) {
	endpoint.Headers(w.Header(), innate.Refusal{Status: http.StatusNotFound})
	endpoint.Answer(w, http.StatusNotFound, endpoint.JSON(map[string]string{"error": text}))
}
