package hosts

import (
	"crypto/x509"
	"net/http"
	"strings"

	"innate"
	"innate/ca"
	"innate/directory"
	"innate/feed/client"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// LoginsChanged brings the rows of the resources that hold an identity up to
// date, since where it may log in has changed.
func (h *Hosts) LoginsChanged(tx store.Tx, id innate.ObjectID) error {
	o, ok, err := directory.Find(tx, id)
	if err != nil || !ok || o.Kind != directory.ManagedIdentity {
		return err // of one that is gone the holders are being rewritten
	}
	for _, user := range holders(tx, o) {
		machines, placed, err := places.Get(tx, user.Key())
		if err != nil {
			return err
		}
		r, there, err := resources.Get(tx, user)
		if err != nil {
			return err
		}
		if !placed || !there {
			continue
		}
		if err := h.place(tx, r, machines...); err != nil {
			return err
		}
	}
	return nil
}

// holders are the resources that have a managed identity.
func holders(r store.Reader, o directory.Object) []innate.ResourceID {
	if o.Shared {
		return resources.UsersOf(r, o.Owner)
	}
	return []innate.ResourceID{o.Owner}
}

// A loginCertificate is what an identity logs in by at one PostgreSQL server.
type loginCertificate struct {
	Certificate []byte `json:"certificate"` // DER
}

// login signs the certificate by which an identity, as held by a resource on the
// host that asks, logs in at a PostgreSQL server: that it may is read in the
// transaction that leaves the record. The certificate's CN is the identity's
// object id, and its OUs are the place that it is for and the server's name in lower
// case: what is compared by PostgreSQL, which looks at no SAN.
func (h *Hosts) login(r *http.Request) (loginCertificate, error) {
	p, q, err := h.asked(r)
	if err != nil {
		return loginCertificate{}, err
	}
	server, err := innate.ParseResourceID(string(q.Server))
	if err != nil {
		return loginCertificate{}, rest.Errorf(http.StatusBadRequest, "InvalidResourceId", "server: %v", err)
	}

	var der []byte
	ev := byHost(r, p.machine, "issue-login-certificate")
	ev.Target, ev.Hosting, ev.Principal, ev.Name = string(server), string(q.Resource), q.Identity, ""
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, err := current(tx, p)
		if err != nil {
			return err
		}
		at, err := loginOn(tx, m.Machine, q.Resource, q.Identity, server)
		if err != nil {
			return err
		}
		place, err := h.config.Place(tx, at.Server, client.DatabasePlace{Object: at.Identity, Hosting: q.Resource, Host: m.Machine})
		if err != nil {
			return err
		}
		der, err = h.config.CA.Issue(ca.Databases, q.key, ca.Subject{
			CommonName: string(at.Identity), Units: []string{place, strings.ToLower(at.Server.Name())},
			URIs: ca.LoginURIs(h.config.Domain, at.Identity, at.Server),
			Life: certificateLife,
		})
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		return h.leave(tx, ev, map[string]string{"thumbprint": ca.Thumbprint(der), "serial": cert.SerialNumber.Text(16)})
	})
	if err != nil {
		return loginCertificate{}, h.refused(r, ev, err)
	}
	h.saw(p)
	return loginCertificate{der}, nil
}

// loginOn returns a log-in by certificate of an identity that a resource holds on
// a machine; or the 403 that says what is missing.
func loginOn(r store.Reader, machine, resource innate.ResourceID, id innate.ObjectID, server innate.ResourceID) (client.Login, error) {
	if _, _, err := identityOn(r, machine, resource, id); err != nil {
		return client.Login{}, err
	}
	p, _, err := placedOn(r, machine, resource)
	if err != nil {
		return client.Login{}, err
	}
	for _, l := range p.Logins {
		if l.Identity != id || !l.Server.Equal(server) {
			continue
		}
		if !l.Certificate {
			return client.Login{}, rest.Errorf(http.StatusForbidden, "NotByCertificate",
				"at %s one logs in by token: its property authentication is not certificate", l.Server.Name())
		}
		return l, nil
	}
	return client.Login{}, rest.Errorf(http.StatusForbidden, "NotMapped",
		"identity %s may not log in at %s: neither it nor a group of it is mapped to a role there", id, server)
}
