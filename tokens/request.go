package tokens

import (
	"crypto/x509"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"innate"
	"innate/audit"
	"innate/rest"
)

// assertionType is the one client_assertion_type (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// A request is one call of the token endpoint, parsed and not yet believed.
type request struct {
	now         time.Time // read once, before anything is decided: see issue
	version     int       // of the endpoint; decides the answer's shape
	trace       string
	correlation string
	echo        bool   // return-client-request-id
	address     string // of the peer

	client   innate.ClientID
	resource string // without /.default
	wanted   wanted // of the token

	// Exactly one of these is the client's proof.
	secret      string
	assertion   string
	certificate *x509.Certificate // of the TLS connection

	basic     bool             // the secret came by HTTP Basic
	assurance innate.Assurance // how surely the agent recognised its caller; only beside a certificate

	presented *assertion // assertion, read when it is first looked at

	exchange *exchange // nil unless the client asks for another's token

	credential string // what kind of proof it is, and which: for the record
	key        string
	proved     bool              // it holds
	federated  map[string]string // what the record says of a federated assertion
}

// begin reads what a request says about itself whatever its body says.
func (s *Service) begin(r *http.Request, version int) *request {
	q := &request{
		now: s.config.Now(), version: version, trace: rest.RequestID(r.Context()),
		echo: strings.EqualFold(r.Header.Get("Return-Client-Request-Id"), "true"), address: r.RemoteAddr,
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		q.address = host
	}
	if q.trace == "" {
		q.trace = innate.NewGUID()
	}
	asked := r.Header.Get(clientRequestID)
	if asked == "" && r.URL.RawQuery != "" {
		asked = r.URL.Query().Get("client-request-id") // where MSAL for Node puts it
	}
	if asked != "" {
		q.correlation, _ = innate.ParseGUID(asked)
	}
	if q.correlation == "" {
		q.correlation = q.trace
	}
	return q
}

// writeHeader sets the headers of every answer of the token endpoint.
func (q *request) writeHeader(w http.ResponseWriter) {
	h := w.Header()
	h["Cache-Control"], h["Pragma"] = noStore, noCache
	h["X-Ms-Request-Id"] = []string{q.trace}
	if q.echo {
		h.Set(clientRequestID, q.correlation)
	}
}

// clientRequestID is by which a client names its request, as net/http spells it.
const clientRequestID = "Client-Request-Id"

// Shared by all answers: do not modify.
var (
	noStore = []string{"no-store, no-cache"} // RFC 6749 §5.1
	noCache = []string{"no-cache"}
)

// refused is the record of a "no".
func (q *request) refused(no *innate.Refusal) audit.Event {
	return q.event(audit.Event{Why: no.Error()})
}

// event fills in what the request alone says.
func (q *request) event(ev audit.Event) audit.Event {
	ev.Time, ev.Action, ev.Target = q.now, "issue-token", printable(q.resource)
	ev.Address = q.address
	if ev.Client == "" {
		ev.Client = q.client
	}
	ev.Trace, ev.Correlation = q.trace, q.correlation
	if ev.Detail == nil {
		ev.Detail = map[string]string{}
	}
	maps.Copy(ev.Detail, q.federated)
	if q.credential != "" {
		ev.Detail["credential"] = q.credential
	}
	if q.key != "" {
		ev.Detail["key"] = q.key
	}
	if x := q.exchange; x != nil {
		ev.Detail["actor"] = string(q.client)
		if x.tokenID != "" {
			ev.Detail["subject"], ev.Detail["subjectToken"] = string(x.subject), x.tokenID
		}
	}
	return ev
}

// parse reads r into q. What it has read when it refuses stays in q, for the record.
func (s *Service) parse(r *http.Request, q *request, mutual bool) error {
	if tenant := r.PathValue("tenant"); !s.home(tenant) {
		return s.unknownTenant(tenant)
	}
	if r.Method != http.MethodPost {
		return refusal(http.StatusMethodNotAllowed, "invalid_request", 900561,
			"The endpoint only accepts POST requests. Received a %s request", shown(r.Method))
	}
	if err := checkQuery(r.URL); err != nil {
		return err
	}
	form, err := readForm(r)
	if err != nil {
		return err
	}
	if err := q.readClient(r, form); err != nil {
		return err
	}
	if err := q.readProof(r, form, mutual); err != nil {
		return err
	}
	if err := s.readGrant(q, form); err != nil {
		return err
	}
	return q.readClaims(form)
}

// readGrant reads what is asked for, in the way of the grant.
func (s *Service) readGrant(q *request, form parameters) error {
	switch grant := form.value("grant_type"); grant {
	case "client_credentials":
		return q.readResource(form)
	case grantExchange:
		return s.readExchange(q, form)
	case "":
		return missing("grant_type", "client_credentials")
	default:
		return refusal(http.StatusBadRequest, "unsupported_grant_type", 70003,
			"The grant type %s is not supported: a workload asks with client_credentials", shown(grant))
	}
}

// checkQuery refuses credentials where every proxy and log on the way sees
// them; whatever else is in the query is passed over.
func checkQuery(u *url.URL) error {
	for pair := range strings.SplitSeq(u.RawQuery, "&") { // url.ParseQuery leaves out a value that is not well formed
		name, _, _ := strings.Cut(pair, "=")
		switch name, _ = url.QueryUnescape(name); name {
		case "client_secret", "client_assertion", "assertion", "password", "refresh_token", "subject_token", "actor_token":
			return invalid("The query of the URL has %s: credentials belong in the body. Take the one that was sent out of use, since logs may have it", name)
		}
	}
	return nil
}

// readClient reads who asks: client_id, or the user of HTTP Basic.
func (q *request) readClient(r *http.Request, form parameters) error {
	if len(r.Header.Values("Authorization")) > 1 {
		return invalid("The request has several Authorization headers: want one or none")
	}
	id := form.value("client_id")
	if user, password, ok := r.BasicAuth(); ok {
		// RFC 6749 §2.3.1: both are form-encoded before they are joined.
		name, err1 := url.QueryUnescape(user)
		secret, err2 := url.QueryUnescape(password)
		if err1 != nil || err2 != nil || secret == "" {
			return invalid("The Authorization header has no form-encoded client id and secret")
		}
		if id != "" && !strings.EqualFold(id, name) {
			return invalid("The Authorization header is of another client than the parameter client_id")
		}
		id, q.secret, q.basic = name, secret, true
	}
	if id == "" {
		return missing("client_id", "the GUID of the application or managed identity")
	}
	guid, err := innate.ParseGUID(id)
	if err != nil {
		return refusal(http.StatusBadRequest, "unauthorized_client", 700016,
			"Application with identifier %s was not found: a client id is a GUID", shown(id))
	}
	q.client = innate.ClientID(guid)
	return nil
}

// readProof reads the client's credential, of which there must be one: with
// two, it would not be clear which of them was checked (RFC 6749 §2.3).
func (q *request) readProof(r *http.Request, form parameters, mutual bool) error {
	if s := form.value("client_secret"); s != "" {
		if q.basic {
			return invalid("The client proves itself twice: by the Authorization header and client_secret")
		}
		q.secret = s
	}
	q.assertion = form.value("client_assertion")
	if mutual && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		q.certificate = r.TLS.PeerCertificates[0]
	}
	proofs := 0
	for _, there := range [...]bool{q.secret != "", q.assertion != "", q.certificate != nil} {
		if there {
			proofs++
		}
	}
	switch {
	case proofs > 1:
		return invalid("The client proves itself in %d ways: want one of a secret, an assertion and a certificate", proofs)
	case mutual && q.certificate == nil:
		return unproved(7000218, "The connection has no client certificate, and that is the one credential taken here")
	case proofs == 0:
		return unproved(7000218, "The request body must contain the following parameter: 'client_assertion' or 'client_secret'")
	}
	if typ := form.value("client_assertion_type"); q.assertion != "" && typ != assertionType {
		return invalid("client_assertion_type is %s: want %s", shown(typ), assertionType)
	}
	return q.readAssurance(form)
}

// readAssurance reads what the agent proved about its caller. Nobody else is asked.
func (q *request) readAssurance(form parameters) (err error) {
	if word := form.value("assurance"); q.certificate != nil && word != "" {
		if q.assurance, err = innate.ParseAssurance(word); err != nil {
			return invalid("The assurance %s is none that is known here", shown(word))
		}
	}
	return nil
}

// readResource reads the audience: scope at the v2 endpoint and resource at the
// v1 endpoint. Each takes the other's where its own is missing, as AD FS does.
func (q *request) readResource(form parameters) error {
	scope, resource := form.value("scope"), form.value("resource")
	switch {
	case resource != "" && (q.version == 1 || scope == ""):
		q.resource = resource
		return nil
	case scope != "":
		return q.readScope(scope)
	case q.version == 1:
		return missing("resource", "the identifier of the service that the token is for, such as https://vault.azure.net")
	default:
		return missing("scope", "the identifier of the service that the token is for and /.default, such as https://vault.azure.net/.default")
	}
}

// readScope reads RESOURCE/.default, beside which SDKs put OpenID's scopes. The
// suffix is cut once: what is left, a slash at its end too, is the resource
// (managed-identity-endpoints §5.1).
func (q *request) readScope(scope string) error {
	for word := range strings.FieldsSeq(scope) {
		switch word {
		case "openid", "profile", "email", "offline_access":
			continue
		}
		if q.resource != "" {
			return refusal(http.StatusBadRequest, "invalid_scope", 70011,
				"The scope %s names several resources: a token is for one", shown(scope))
		}
		resource, ok := strings.CutSuffix(word, "/.default")
		if !ok || resource == "" {
			return refusal(http.StatusBadRequest, "invalid_scope", 1002012,
				"The scope %s is not valid: client credential flows must have a scope of a resource's identifier and /.default, such as https://vault.azure.net/.default", shown(scope))
		}
		q.resource = resource
	}
	if q.resource == "" {
		return refusal(http.StatusBadRequest, "invalid_scope", 1002012, "The scope %s names no resource", shown(scope))
	}
	return nil
}
