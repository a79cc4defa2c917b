package hosts

import (
	"crypto"
	"crypto/x509"
	"net/http"

	"innate/ca"
	"innate/rest"
	"innate/store"
)

// renew gives a host its next certificate. The one it came with stays good
// until the renewal after this, in case the answer is lost.
//
// A host with a TPM comes with the certificate of the key in it, and the request
// is for one in its memory: it gets the next of each.
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
		if g, err = h.renewed(&m, p, pub); err != nil {
			return err
		}
		if err := members.Put(tx, m.Machine.Key(), m); err != nil {
			return err
		}
		return h.leave(tx, byHost(r, m.Machine, "renew-host"), map[string]string{"thumbprint": ca.Thumbprint(g.Certificate)})
	})
	if err != nil {
		return Grant{}, h.refused(r, byHost(r, p.machine, "renew-host"), err)
	}
	h.saw(p)
	return g, nil
}

// renewed signs what a renewal gives, and makes it what m holds.
func (h *Hosts) renewed(m *member, p peer, pub crypto.PublicKey) (g Grant, err error) {
	came, _ := m.held(p.thumbprint)
	var next, daily *x509.Certificate
	switch came.Key {
	case inMemory:
		return g, badCertificate("this certificate's key is in memory: the key in the TPM renews it")
	case inTPM:
		if g, next, err = h.grant(m.Machine, p.key); err != nil {
			return g, err
		}
		if daily, err = h.certify(m.Machine, pub); err != nil {
			return g, err
		}
		g.Daily = daily.Raw
		kept := []certificate{came}
		if before, ok := m.newest(inMemory); ok {
			kept = append(kept, before)
		}
		kept = append(kept, remember(next, inTPM), remember(daily, inMemory))
		m.Certificates = kept
	default:
		if g, next, err = h.grant(m.Machine, pub); err != nil {
			return g, err
		}
		m.Certificates = []certificate{came, remember(next, onDisk)}
	}
	return g, nil
}
