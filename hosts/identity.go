package hosts

import (
	"crypto"
	"crypto/x509"
	"net/http"

	"innate"
	"innate/ca"
	"innate/directory"
	"innate/feed/client"
	"innate/rest"
	"innate/store"
)

// An identityCertificate is what makes a host able to ask for tokens as an
// identity, for one resource placed on it.
type identityCertificate struct {
	Certificate []byte `json:"certificate"` // DER
}

// A certificateRequest is what a host asks for on behalf of a resource placed on
// it: a certificate of an identity, or one by which that logs in at a server.
type certificateRequest struct {
	Resource innate.ResourceID `json:"resource"`
	Identity innate.ObjectID   `json:"identity"`
	Server   innate.ResourceID `json:"server"` // of a log-in
	CSR      []byte            `json:"csr"`

	key crypto.PublicKey
}

// asked reads a certificateRequest, and which host it is of.
func (h *Hosts) asked(r *http.Request) (p peer, q certificateRequest, err error) {
	if p, err = h.peer(r, 0); err != nil {
		return p, q, err
	}
	if err := rest.Read(r, &q); err != nil {
		return p, q, err
	}
	resource, err := innate.ParseResourceID(string(q.Resource))
	if err != nil {
		return p, q, rest.Errorf(http.StatusBadRequest, "InvalidResourceId", "resource: %v", err)
	}
	q.Resource = resource
	q.key, err = publicKey(q.CSR)
	return p, q, err
}

// identity signs the certificate of an identity as held by a resource on the
// host that asks. That the resource is placed there and holds the identity is
// read in the transaction that makes the directory believe the certificate.
func (h *Hosts) identity(r *http.Request) (identityCertificate, error) {
	p, q, err := h.asked(r)
	if err != nil {
		return identityCertificate{}, err
	}
	var der []byte
	ev := byHost(r, p.machine, "issue-identity-certificate")
	ev.Target, ev.Hosting, ev.Principal, ev.Name = string(q.Resource), string(q.Resource), q.Identity, ""
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, err := current(tx, p)
		if err != nil {
			return err
		}
		id, hosting, err := identityOn(tx, m.Machine, q.Resource, q.Identity)
		if err != nil {
			return err
		}
		der, err = h.config.CA.Issue(ca.Identities, q.key, ca.Subject{
			CommonName: string(id.Client),
			URIs:       ca.IdentityURIs(h.config.Domain, id.Object, hosting, m.Machine),
			Life:       certificateLife,
		})
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		key := directory.Key{
			Thumbprint: ca.Thumbprint(der), Principal: id.Object, Hosting: hosting, Host: m.Machine,
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
		}
		if err := directory.AddKey(tx, key, h.config.Now()); err != nil {
			return err
		}
		return h.leave(tx, ev, map[string]string{"thumbprint": key.Thumbprint})
	})
	if err != nil {
		return identityCertificate{}, h.refused(r, ev, err)
	}
	h.saw(p)
	return identityCertificate{der}, nil
}

// identityOn returns an identity that a resource holds on a machine, and that
// resource's id as stored; or the 403 that says what is missing.
func identityOn(r store.Reader, machine, resource innate.ResourceID, id innate.ObjectID) (client.Identity, innate.ResourceID, error) {
	no := func(code, format string, args ...any) (client.Identity, innate.ResourceID, error) {
		return client.Identity{}, "", rest.Errorf(http.StatusForbidden, code, format, args...)
	}
	p, ok, err := placedOn(r, machine, resource)
	if err != nil {
		return client.Identity{}, "", err
	}
	if !ok {
		return no("NotPlacedHere", "%s is not placed on %s", resource, machine.Name())
	}
	for _, held := range p.Identities {
		if held.Object != id {
			continue
		}
		o, ok, err := directory.Find(r, id)
		if err != nil {
			return client.Identity{}, "", err
		}
		if !ok || !o.Enabled {
			return no("IdentityDisabled", "identity %s (%s) is disabled", o.Name, id)
		}
		return held, p.Resource, nil
	}
	return no("IdentityNotAttached", "%s does not hold identity %s", resource, id)
}
