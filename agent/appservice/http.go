package appservice

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/audit"
)

// A question is a checked request for a token.
type question struct {
	which    innate.Selector
	resource string
	selector string // as the caller spelled it; empty for none
	value    string // of the selector, as sent
}

// serve answers a request for a token. The order of its checks is part of the
// contract: without the secret nobody learns anything, and without the kernel's
// word nobody who stole it does (host-attestation §0).
func (e *Endpoint) serve(w http.ResponseWriter, r *http.Request) {
	p := r.Context().Value(peerKey{}).(*peer)
	query, queryErr := endpoint.ParseQuery(r.URL.RawQuery)
	v := e.dialect.version(query)
	presented := r.Header[v.header]
	challenged := e.challenges != nil && presented == nil && p.proved(e.generation) // Arc's first request of two
	if !challenged && !e.secret.knows(presented) {
		e.refuse(w, r, p, "", innate.Refusal{Status: http.StatusUnauthorized, OAuth: "unauthorized", Text: "Unauthorized: " + e.wanted(v), Cause: errSecret})
		return
	}
	if !p.proved(e.generation) {
		// It proves a leak: the alarm that operators watch for.
		e.refuse(w, r, p, "", innate.Refusal{Status: http.StatusForbidden, OAuth: "access_denied", Text: "Forbidden: this endpoint belongs to another process", Cause: errStolen})
		return
	}
	if !strings.EqualFold(endpoint.Path(r.URL.Path), e.dialect.path) {
		e.refuse(w, r, p, "", innate.Refusal{Status: http.StatusNotFound, OAuth: "not_found", Text: "there is nothing here: ask for " + e.dialect.path})
		return
	}
	if challenged {
		e.challenge(w, r, p)
		return
	}
	q, err := e.read(r, v, query, queryErr)
	if err != nil {
		e.refuse(w, r, p, q.resource, e.dialect.refusal(err, q.which))
		return
	}
	if sum, ok := refused(query); ok {
		e.tokens.Refused(e.generation.App, sum)
	}
	token, err := e.tokens.Token(r.Context(), e.generation.App, q.which, q.resource, e.generation.Proof)
	now := e.now()
	if err == nil {
		err = endpoint.Valid(token, now)
	}
	if err == nil {
		err = e.record(r, p, token, q.resource)
	}
	if err != nil {
		e.refuse(w, r, p, q.resource, e.dialect.refusal(err, q.which))
		return
	}
	endpoint.AnswerToken(w, func(b []byte) []byte { return e.dialect.token(b, q, token, now) })
}

// What a refusal was for, where a dialect has a word of its own for it.
var (
	errSecret   = errors.New("no secret, or not this one")
	errStolen   = errors.New("right secret, wrong caller")
	errVersion  = errors.New("no such api-version")
	errResource = errors.New("no resource")
)

// wanted says which secret would do, and where.
func (e *Endpoint) wanted(v version) string {
	variable := "IDENTITY_HEADER"
	switch e.shape {
	case Arc:
		return "ask without AUTHORIZATION, and then once with what the file has that the answer names"
	case AzureML:
		variable = "MSI_SECRET"
	}
	return "send this process's own " + variable + " as " + strings.ToUpper(v.header)
}

// check is about the request, whatever is asked for.
func (e *Endpoint) check(r *http.Request) error {
	if err := endpoint.Check(r, e.hosts); err != nil {
		return err
	}
	if values := r.Header["Metadata"]; e.dialect.metadata && (len(values) != 1 || !strings.EqualFold(strings.TrimSpace(values[0]), "true")) {
		return &innate.Refusal{Status: http.StatusBadRequest, OAuth: "invalid_request", Text: "Required metadata header not specified"}
	}
	return nil
}

// read checks the request of a proved caller.
func (e *Endpoint) read(r *http.Request, v version, query endpoint.Query, queryErr error) (q question, err error) {
	if err := e.check(r); err != nil {
		return q, err
	}
	if queryErr != nil {
		return q, queryErr
	}
	if err := query.Misprint(); err != nil {
		return q, err
	}
	if v.selectors == nil {
		return q, e.dialect.badVersion()
	}
	if q.resource, err = query.Resource(); err != nil {
		return q, err
	}
	if q.resource == "" {
		return q, &innate.Refusal{Status: http.StatusBadRequest, Cause: errResource,
			Text: "The parameter 'resource' is required: the identifier URI of what the token is for"}
	}
	q.which, q.selector, err = query.Selector(v.selectors...)
	if q.selector == "" && !e.dialect.alone {
		q.which.System = true // unlike IMDS, no selector never means a user-assigned identity
	}
	q.value = query.Get(q.selector)
	return q, err
}

// refused is the hash of a token that the caller wants replaced, since a
// resource refused it; .NET sends it (managed-identity-endpoints §3.1). What is
// no such hash names no token.
func refused(q endpoint.Query) (sum [sha256.Size]byte, ok bool) {
	b, err := hex.DecodeString(q.Get("token_sha256_to_refresh"))
	return sum, err == nil && copy(sum[:], b) == len(sum) && len(b) == len(sum)
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
	e.say(w, no, ev.Correlation)
}

// say answers no in the shape's words.
func (e *Endpoint) say(w http.ResponseWriter, no innate.Refusal, correlation string) {
	endpoint.Headers(w.Header(), no)
	endpoint.Answer(w, no.Status, endpoint.JSON(e.dialect.failure(no, correlation, e.now())))
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
