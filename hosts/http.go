package hosts

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/url"

	"innate"
	"innate/audit"
	"innate/ca"
	"innate/rest"
)

// maxBody bounds a request of an agent: a CSR and a few names.
const maxBody = 64 << 10

// Handler serves what agents ask for on https://hosts.<domain>. Bodies are
// JSON, certificates and CSRs DER in base64, errors the envelope of package rest.
//
//	POST /v1/join {token, csr}
//	  No client certificate: the one-time token is the credential. Answers a Grant.
//	POST /v1/tpm/challenge {ek, certificate, ak, token}
//	  No client certificate. ek is an endorsement key (SubjectPublicKeyInfo),
//	  certificate its vendor's or absent, ak an attestation key (TPMT_PUBLIC),
//	  token a one-time token or absent. Answers a Challenge.
//	POST /v1/tpm/join {challenge, secret, key, attest, signature}
//	  No client certificate: the answer to a challenge is the credential. secret is
//	  what the credential held, key a key in that TPM (TPMT_PUBLIC), attest what ak
//	  states of it (TPMS_ATTEST, TPM2_Certify) and signature ak's (ASN.1). Answers
//	  a Grant for key.
//	POST /v1/renew {csr}
//	  With the host certificate, which may have ended up to 30 days ago; of a host
//	  with a TPM, with that of the key in it. Answers a Grant.
//	POST /v1/identities {resource, identity, csr}
//	  With the host certificate. Answers {certificate} for that identity (object
//	  id) as held by that resource on this host, or 403: NotPlacedHere,
//	  IdentityNotAttached, IdentityDisabled.
//	POST /v1/logins {resource, identity, server, csr}
//	  With the host certificate. Answers {certificate} by which that identity logs in
//	  at that PostgreSQL server, or 403: as of /v1/identities, NotMapped,
//	  NotByCertificate.
//	POST /v1/documents {resource, csr}
//	  With the host certificate. Answers {certificate} for the attested documents
//	  of a VM placed on this host, or 403 NotPlacedHere.
//	POST /v1/events/approve {resource, events}
//	  With the host certificate. A VM placed on this host is ready for the scheduled
//	  events with those ids. Answers {}, or 403 NotPlacedHere.
//	POST /v1/audit?at=PLACE
//	  With the host certificate: lines of its agent's audit log (audit/ship).
//	GET /v1/feed?from=REVISION
//	  With the host certificate. Newline-delimited events (feed/client.Event):
//	  key <resource id, lower case, no leading slash>: a feed/client.Placement;
//	  key revoked/identity/<object id>: a feed/client.Revocation: forget the
//	  identity's tokens; key revoked/key/<kid>: the same for that signing key: forget
//	  every token. The answer ends when the certificate does.
//
// Names in a CSR are ignored. The TLS layer must ask for a client certificate and not
// check it (tls.RequestClientCert): an expired one may renew, and every check is made here.
func (h *Hosts) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", answer(h.join))
	mux.HandleFunc("POST /v1/tpm/challenge", answer(h.challenge))
	mux.HandleFunc("POST /v1/tpm/join", answer(h.joinTPM))
	mux.HandleFunc("POST /v1/renew", answer(h.renew))
	mux.HandleFunc("POST /v1/identities", answer(h.identity))
	mux.HandleFunc("POST /v1/logins", answer(h.login))
	mux.HandleFunc("POST /v1/documents", answer(h.document))
	mux.HandleFunc("POST /v1/events/approve", answer(h.approve))
	mux.HandleFunc("POST /v1/audit", h.takeAudit)
	mux.HandleFunc("GET /v1/feed", h.serveFeed)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		rest.WriteError(w, r, rest.Errorf(http.StatusNotFound, "NotFound",
			"%s %s is not served here: want POST /v1/join, /v1/tpm/challenge, /v1/tpm/join, /v1/renew, /v1/identities, /v1/logins, /v1/documents, /v1/events/approve or /v1/audit, or GET /v1/feed", r.Method, r.URL.Path))
	})
	return mux
}

// answer makes a handler of a function from a request to what to answer.
func answer[T any](fn func(*http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := fn(r)
		if err != nil {
			rest.WriteError(w, r, err)
			return
		}
		rest.Write(w, http.StatusOK, v)
	}
}

// A Grant is what a host gets when it joins or renews.
type Grant struct {
	Certificate []byte            `json:"certificate"`     // DER
	Daily       []byte            `json:"daily,omitempty"` // DER: for the key in memory of a host with a TPM, when it renews
	Machine     innate.ResourceID `json:"machine"`
	Tenant      innate.TenantID   `json:"tenant"`
	Domain      string            `json:"domain"`
	CA          string            `json:"ca"`            // PEM: whom to believe to be the control plane, and nobody else
	Token       string            `json:"tokenEndpoint"` // where an identity's certificate is the credential (RFC 8705 §2)
}

// grant signs a host certificate for pub, and says what a host has to know.
func (h *Hosts) grant(machine innate.ResourceID, pub crypto.PublicKey) (Grant, *x509.Certificate, error) {
	cert, err := h.certify(machine, pub)
	if err != nil {
		return Grant{}, nil, err
	}
	return Grant{
		Certificate: cert.Raw, Machine: machine, Tenant: h.config.Tenant, Domain: h.config.Domain,
		CA:    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.config.CA.Certificate(ca.Servers).Raw})),
		Token: h.config.Mutual + "/" + string(h.config.Tenant) + "/oauth2/token",
	}, cert, nil
}

// certify signs a host certificate for pub.
func (h *Hosts) certify(machine innate.ResourceID, pub crypto.PublicKey) (*x509.Certificate, error) {
	der, err := h.config.CA.Issue(ca.Hosts, pub, ca.Subject{
		CommonName: machine.Name(),
		URIs:       []*url.URL{ca.HostURI(h.config.Domain, machine)},
		Life:       certificateLife,
	})
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// publicKey reads the key of a CSR that came in a request.
func publicKey(csr []byte) (crypto.PublicKey, error) {
	pub, err := ca.CSR(csr)
	if err != nil {
		return nil, rest.Errorf(http.StatusBadRequest, "InvalidCertificateRequest", "csr: %v", err)
	}
	return pub, nil
}

// byHost is the beginning of an event about what a host asked for.
func byHost(r *http.Request, machine innate.ResourceID, action string) audit.Event {
	return audit.Event{
		Action: action, Target: string(machine), Host: string(machine), Name: machine.Name(),
		Address: r.RemoteAddr, Correlation: rest.RequestID(r.Context()),
	}
}
