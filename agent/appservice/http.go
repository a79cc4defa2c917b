package appservice

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/audit"
)

// A version is one dialect of the protocol.
type version struct {
	header    string   // carries the secret, in canonical form
	selectors []string // how the query names an identity; none: there is no such version
}

var (
	version2019 = version{"X-Identity-Header", []string{"client_id", "object_id", "principal_id", "mi_res_id", "msi_res_id"}}
	version2017 = version{"Secret", []string{"clientid"}}
)

func versionOf(q endpoint.Query) version {
	switch q.Get("api-version") {
	case "2017-09-01":
		return version2017
	case "2019-08-01":
		return version2019
	}
	return version{header: version2019.header}
}

// serve answers GET /msi/token. The order of its checks is part of the
// contract: without the secret nobody learns anything, and without the kernel's
// word nobody who stole it does (host-attestation §0).
func (e *Endpoint) serve(w http.ResponseWriter, r *http.Request) {
	p := r.Context().Value(peerKey{}).(*peer)
	q, queryErr := endpoint.ParseQuery(r.URL.RawQuery)
	v := versionOf(q)
	if !e.knows(r.Header[v.header]) {
		e.refuse(w, r, p, "", innate.Refusal{Status: http.StatusUnauthorized, Text: "Unauthorized: send this process's own IDENTITY_HEADER as " + strings.ToUpper(v.header)})
		return
	}
	if p.stranger != nil {
		// It proves a leak: the alarm that operators watch for.
		e.refuse(w, r, p, "", innate.Refusal{Status: http.StatusForbidden, Text: "Forbidden: this endpoint belongs to another process", Cause: errStolen})
		return
	}
	if !strings.EqualFold(endpoint.Path(r.URL.Path), "/msi/token") {
		e.refuse(w, r, p, "", innate.Refusal{Status: http.StatusNotFound, Text: "there is nothing here: ask for /msi/token"})
		return
	}
	which, resource, err := e.read(r, v, q, queryErr)
	if err != nil {
		e.refuse(w, r, p, resource, render(err, which))
		return
	}
	token, err := e.tokens.Token(r.Context(), e.generation.App, which, resource, e.generation.Proof)
	if err == nil {
		err = endpoint.Valid(token, e.now())
	}
	if err != nil {
		e.refuse(w, r, p, resource, render(err, which))
		return
	}
	if err := e.record(r, p, token, resource); err != nil {
		e.refuse(w, r, p, resource, render(err, which))
		return
	}
	e.answer(w, token, resource)
}

var errStolen = errors.New("right secret, wrong caller")

// read checks the request of a proved caller.
func (e *Endpoint) read(r *http.Request, v version, q endpoint.Query, queryErr error) (which innate.Selector, resource string, err error) {
	if err := endpoint.Check(r, e.hosts); err != nil {
		return which, "", err
	}
	if queryErr != nil {
		return which, "", queryErr
	}
	if err := q.Misprint(); err != nil {
		return which, "", err
	}
	if v.selectors == nil {
		return which, "", &innate.Refusal{Status: http.StatusBadRequest, Text: "The parameter 'api-version' is required: 2019-08-01, or 2017-09-01 with the header 'secret'"}
	}
	if resource, err = q.Resource(); err != nil {
		return which, "", err
	}
	if resource == "" {
		return which, "", &innate.Refusal{Status: http.StatusBadRequest, Text: "The parameter 'resource' is required: the identifier URI of what the token is for"}
	}
	which, given, err := q.Selector(v.selectors...)
	if given == "" {
		which.System = true // unlike IMDS, no selector never means a user-assigned identity
	}
	return which, resource, err
}

// render is an error in this endpoint's words.
func render(err error, which innate.Selector) innate.Refusal {
	// SDKs' own tests look for the first text.
	const noUser = "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId."
	const noSystem = "No Managed Identity found for specified ClientId/ResourceId/PrincipalId. The system-assigned identity is not enabled."
	if !errors.Is(err, innate.ErrNoIdentity) && !errors.Is(err, innate.ErrManyIdentities) {
		return endpoint.Grade(err)
	}
	no := innate.Refusal{Status: http.StatusBadRequest, Text: noUser, Cause: err}
	if which.System {
		no.Text = noSystem
	}
	return no
}

// record is in the audit log before the answer: the first use of each token, then counts.
func (e *Endpoint) record(r *http.Request, p *peer, token innate.Token, resource string) error {
	d := endpoint.Decision{Allowed: true, Who: p.who, Target: resource, Client: token.Client}
	if e.ledger.Repeats(d) {
		return nil
	}
	ev := e.event(r, p)
	ev.Target, ev.Client, ev.Principal = resource, token.Client, token.Object
	return e.ledger.Record(d, ev, token.Expires)
}

func (e *Endpoint) event(r *http.Request, p *peer) audit.Event {
	return audit.Event{
		Action:      "get-token",
		Hosting:     string(e.generation.App),
		Assurance:   e.generation.Proof,
		Correlation: endpoint.RequestID(r),
		Address:     r.RemoteAddr,
		Detail:      p.detail(e.generation),
	}
}

// A tokenAnswer is a 200; the numbers are strings because SDKs were built
// against the real endpoint's.
type tokenAnswer struct {
	AccessToken string          `json:"access_token"`
	ExpiresOn   string          `json:"expires_on"` // seconds since the epoch
	ExpiresIn   string          `json:"expires_in"` // seconds from now
	NotBefore   string          `json:"not_before"`
	Resource    string          `json:"resource"` // byte for byte as asked: SDKs cache under it
	TokenType   string          `json:"token_type"`
	ClientID    innate.ClientID `json:"client_id"`
}

func (e *Endpoint) answer(w http.ResponseWriter, t innate.Token, resource string) {
	body, _ := json.Marshal(tokenAnswer{ // strings only: cannot fail
		AccessToken: t.Value,
		ExpiresOn:   strconv.FormatInt(t.Expires.Unix(), 10),
		ExpiresIn:   strconv.FormatInt(int64(t.Expires.Sub(e.now())/time.Second), 10),
		NotBefore:   strconv.FormatInt(t.NotBefore.Unix(), 10),
		Resource:    resource,
		TokenType:   "Bearer",
		ClientID:    t.Client,
	})
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Cache-Control"] = noStore
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.Write(body)
}

var (
	jsonType = []string{"application/json; charset=utf-8"}
	noStore  = []string{"no-store"}
)

// refuse records a refusal, answers it and ends the connection.
func (e *Endpoint) refuse(w http.ResponseWriter, r *http.Request, p *peer, resource string, no innate.Refusal) {
	ev := e.event(r, p)
	ev.Target, ev.Why, ev.Trace = resource, no.Error(), no.Trace
	if p.stranger != nil {
		ev.Assurance = innate.Unproved
	}
	if errors.Is(no.Cause, errStolen) {
		ev.Why = errStolen.Error()
	}
	e.recordRefusal(ev, p, no)
	body, _ := json.Marshal(struct { // cannot fail
		StatusCode    int    `json:"statusCode"`
		Message       string `json:"message"`
		CorrelationID string `json:"correlationId"`
	}{no.Status, no.Error(), ev.Correlation})
	endpoint.Headers(w.Header(), no)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(no.Status)
	w.Write(body)
}

// recordRefusal writes the first of a kind, then counts for a second.
func (e *Endpoint) recordRefusal(ev audit.Event, p *peer, no innate.Refusal) {
	d := endpoint.Decision{Who: p.who, Target: ev.Target, Why: ev.Why}
	if e.ledger.Repeats(d) {
		return
	}
	if err := e.ledger.Record(d, ev, e.now().Add(time.Second)); err != nil {
		e.log.Error("recording a refusal", "error", err) // the answer is no either way
	}
	if no.Status >= http.StatusInternalServerError || errors.Is(no.Cause, errStolen) {
		e.log.Warn("no token", "status", no.Status, "why", ev.Why, "caller", p.who, "correlation", ev.Correlation, "cause", no.Cause)
	}
}
