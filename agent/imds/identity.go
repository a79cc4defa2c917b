package imds

import (
	"net"
	"net/http"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/audit"
)

// A question is a checked request for a token.
type question struct {
	which    innate.Selector
	resource string
	selector string // as the caller spelled it: client_id, object_id, …; empty for none
	value    string // of the selector, as sent
}

// serveToken answers GET /metadata/identity/oauth2/token.
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	q, err := s.readQuestion(r)
	if err != nil {
		s.refuseToken(w, r, q, err)
		return
	}
	m, placed := s.machine()
	if !placed {
		s.refuseToken(w, r, q, innate.ErrNoIdentity)
		return
	}
	token, err := s.tokens.Token(r.Context(), m.Resource, q.which, q.resource, s.assurance)
	if err == nil {
		err = endpoint.Valid(token, s.now())
	}
	if err == nil {
		err = s.record(r, m.Resource, token, q.resource)
	}
	if err != nil {
		s.refuseToken(w, r, q, err)
		return
	}
	s.answer(w, q, token)
}

// readQuestion checks in the order in which a client learns most: the header
// that its probe leaves out comes before everything about identities.
func (s *Server) readQuestion(r *http.Request) (q question, err error) {
	if err := s.check(r, endpoint.FromMemory); err != nil {
		return q, err
	}
	query, err := s.readIdentityQuery(r)
	if err != nil {
		return q, err
	}
	if q.resource, err = query.Resource(); err != nil {
		return q, err
	}
	if q.resource == "" {
		return q, badRequest("Required query variable 'resource' is missing")
	}
	q.which, q.selector, err = query.Selector("client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id", "msi-res-id")
	q.value = query.Get(q.selector)
	return q, err
}

func (s *Server) readIdentityQuery(r *http.Request) (endpoint.Query, error) {
	query, err := endpoint.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	if err := query.Misprint(); err != nil {
		return nil, err
	}
	switch v := query.Get("api-version"); {
	case v == "":
		return nil, badRequest("Required query variable 'api-version' is missing")
	case !known(v) || v < firstIdentityVersion:
		return nil, badRequest("api-version is not supported here: use " + firstIdentityVersion)
	}
	return query, nil
}

func badRequest(text string) error {
	return &innate.Refusal{Status: http.StatusBadRequest, OAuth: "invalid_request", Text: text}
}

func (s *Server) answer(w http.ResponseWriter, q question, t innate.Token) {
	endpoint.AnswerToken(w, func(b []byte) []byte {
		return endpoint.MetadataToken(b, t, q.resource, q.selector, q.value, s.now())
	})
}

// serveInfo answers GET /metadata/identity/info; its body is exactly one key.
func (s *Server) serveInfo(w http.ResponseWriter, r *http.Request) {
	err := s.check(r, endpoint.FromMemory)
	if err == nil {
		_, err = s.readIdentityQuery(r)
	}
	m, placed := s.machine()
	if err == nil && (!placed || !m.HasIdentity) {
		err = innate.ErrNoIdentity
	}
	if err != nil {
		s.refuse(w, r, endpoint.GradeMetadata(err))
		return
	}
	endpoint.Answer(w, http.StatusOK, endpoint.JSON(map[string]innate.TenantID{"tenantId": m.Tenant}))
}

// record is in the audit log before the answer: the first use of each token, then counts.
func (s *Server) record(r *http.Request, vm innate.ResourceID, token innate.Token, resource string) error {
	d := endpoint.Decision{Allowed: true, Who: peer(r), Target: resource, Client: token.Client}
	if s.ledger.Repeats(d) {
		return nil
	}
	s.allowance.Owe(endpoint.Decided)
	ev := s.event(r, vm)
	ev.Target, ev.Client, ev.Principal = resource, token.Client, token.Object
	return s.ledger.Record(d, ev, token.Expires)
}

func (s *Server) event(r *http.Request, vm innate.ResourceID) audit.Event {
	return audit.Event{
		Action:      "get-token",
		Hosting:     string(vm),
		Assurance:   s.assurance,
		Correlation: endpoint.RequestID(r),
		Address:     r.RemoteAddr,
	}
}

func peer(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return host
}

// refuseToken records a refusal of the token route, then answers it.
func (s *Server) refuseToken(w http.ResponseWriter, r *http.Request, q question, err error) {
	no := endpoint.GradeMetadata(err)
	m, _ := s.machine()
	ev := s.event(r, m.Resource)
	ev.Target, ev.Why, ev.Trace = q.resource, no.Error(), no.Trace
	d := endpoint.Decision{Who: peer(r), Target: ev.Target, Why: ev.Why}
	if !s.ledger.Repeats(d) {
		s.allowance.Owe(endpoint.Decided)
		if err := s.ledger.Record(d, ev, s.now().Add(time.Second)); err != nil {
			s.log.Error("recording a refusal", "error", err) // the answer is no either way
		}
		if no.Status >= http.StatusInternalServerError {
			s.log.Warn("no token", "vm", m.Resource, "status", no.Status, "correlation", ev.Correlation, "error", no.Error(), "cause", no.Cause)
		}
	}
	s.refuse(w, r, no)
}

func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no innate.Refusal) {
	endpoint.Headers(w.Header(), no)
	endpoint.Answer(w, no.Status, endpoint.JSON(endpoint.NewMetadataFailure(no, endpoint.RequestID(r), s.now())))
}
