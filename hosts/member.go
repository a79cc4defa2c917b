package hosts

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"slices"
	"time"

	"innate"
	"innate/ca"
	"innate/rest"
	"innate/store"
)

// A member is a machine that has joined, or may.
type member struct {
	Machine innate.ResourceID `json:"machine"`
	// Certificates that are good now, newest last. There are two after a
	// renewal: the answer may have been lost on its way to the host.
	Certificates []certificate `json:"certificates,omitempty"`
	Ticket       string        `json:"ticket,omitempty"` // row of the join token made last
	Joined       time.Time     `json:"joined,omitzero"`
	Evicted      time.Time     `json:"evicted,omitzero"`
}

// A certificate of a host, as it is remembered.
type certificate struct {
	Thumbprint string    `json:"thumbprint"`
	NotAfter   time.Time `json:"notAfter"`
}

// members are keyed by machine key.
const members store.Table[member] = "hosts/members/"

func (m member) holds(thumbprint string) bool {
	return slices.ContainsFunc(m.Certificates, func(c certificate) bool { return c.Thumbprint == thumbprint })
}

// remember is how a certificate just signed is kept in a member's row.
func remember(cert *x509.Certificate) certificate {
	return certificate{Thumbprint: ca.Thumbprint(cert.Raw), NotAfter: cert.NotAfter}
}

// A peer is the host at the other end of a connection, by its certificate.
type peer struct {
	machine    innate.ResourceID // lower case, as the certificate has it
	thumbprint string
	notAfter   time.Time
}

// peer reads who is asking from the client certificate: signed by the authority
// for hosts and not ended longer than grace ago. Whether it is still the one on
// record is current's to say.
func (h *Hosts) peer(r *http.Request, grace time.Duration) (peer, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return peer{}, badCertificate("this needs the host's certificate, and the connection has none")
	}
	cert := r.TLS.PeerCertificates[0]
	at := h.config.Now()
	if ended := at.Sub(cert.NotAfter); ended > 0 && ended <= grace {
		at = cert.NotAfter
	}
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: h.config.CA.Pool(ca.Hosts), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: at,
	})
	if err != nil {
		return peer{}, badCertificate("the host's certificate is not good: %v; %s", err, joinAgain)
	}
	machine, err := ca.ParseHostURI(cert)
	if err != nil {
		return peer{}, badCertificate("the client certificate is not a host's: %v", err)
	}
	return peer{machine, ca.Thumbprint(cert.Raw), cert.NotAfter}, nil
}

// current returns the member that holds p's certificate, or refuses one that an
// eviction, a later joining or the machine's deletion has ended.
func current(r store.Reader, p peer) (member, error) {
	m, ok, err := members.Get(r, p.machine.Key())
	switch {
	case err != nil:
		return m, err
	case !ok:
		return m, badCertificate("machine %s does not exist any more", p.machine)
	case !m.Evicted.IsZero():
		return m, badCertificate("this host was evicted at %s; %s", m.Evicted.UTC().Format(time.RFC3339), joinAgain)
	case !m.holds(p.thumbprint):
		return m, badCertificate("this certificate is not the host's any more: it has joined again, or renewed twice since; %s", joinAgain)
	}
	return m, nil
}

// caller is peer and current at once, for requests without a transaction of their own.
func (h *Hosts) caller(ctx context.Context, p peer) (m member, err error) {
	look := func(r store.Reader) (err error) { m, err = current(r, p); return err }
	if err = h.config.DB.View(ctx, look); err == nil {
		return m, nil
	}
	if err := h.config.DB.Sync(ctx); err != nil {
		return m, err
	}
	return m, h.config.DB.View(ctx, look)
}

// saw notes that a host was heard.
func (h *Hosts) saw(p peer) { h.seen.Store(p.machine.Key(), h.config.Now()) }

const joinAgain = "join again with the line that 'innate host add NAME' prints"

func badCertificate(format string, args ...any) error {
	return rest.Errorf(http.StatusUnauthorized, "InvalidHostCertificate", "%s", fmt.Sprintf(format, args...))
}

// renew gives a host its next certificate. The one it came with stays good
// until the renewal after this, in case the answer is lost.
func (h *Hosts) renew(r *http.Request) (Grant, error) {
	p, err := h.peer(r, expiredGrace)
	if err != nil {
		return Grant{}, err
	}
	var q struct {
		CSR []byte `json:"csr"`
	}
	if err := rest.Read(r, &q); err != nil {
		return Grant{}, err
	}
	pub, err := publicKey(q.CSR)
	if err != nil {
		return Grant{}, err
	}
	var g Grant
	err = h.insist(r.Context(), func(tx store.Tx) error {
		m, err := current(tx, p)
		if err != nil {
			return err
		}
		var cert *x509.Certificate
		if g, cert, err = h.grant(m.Machine, pub); err != nil {
			return err
		}
		m.Certificates = []certificate{{p.thumbprint, p.notAfter}, remember(cert)}
		if err := members.Put(tx, m.Machine.Key(), m); err != nil {
			return err
		}
		return h.leave(tx, byHost(r, m.Machine, "renew-host"), map[string]string{"thumbprint": ca.Thumbprint(cert.Raw)})
	})
	if err != nil {
		return Grant{}, h.refused(r, byHost(r, p.machine, "renew-host"), err)
	}
	h.saw(p)
	return g, nil
}
