package hosts

import (
	"context"
	"crypto"
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
	// Certificates that are good now, newest last. Those before the last renewal
	// are among them: its answer may have been lost on its way to the host.
	Certificates []certificate `json:"certificates,omitempty"`
	Ticket       string        `json:"ticket,omitempty"` // row of the join token made last
	EK           string        `json:"ek,omitempty"`     // hash of the endorsement key of the TPM that it is; empty: none
	Joined       time.Time     `json:"joined,omitzero"`
	Evicted      time.Time     `json:"evicted,omitzero"`
}

// A certificate of a host, as it is remembered.
type certificate struct {
	Thumbprint string    `json:"thumbprint"`
	NotAfter   time.Time `json:"notAfter"`
	Key        place     `json:"key,omitempty"`
}

// A place is where a host has the key of a certificate. With a TPM there are two
// keys: that in the chip, slow and safe, is used to renew and for nothing else;
// each renewal certifies one in memory for daily traffic (host-attestation §6).
type place string

const (
	onDisk   place = ""
	inTPM    place = "tpm"
	inMemory place = "memory" // may not renew: who reads it out has it for a day
)

// members are keyed by machine key.
const members store.Table[member] = "hosts/members/"

// held returns the certificate with that thumbprint.
func (m member) held(thumbprint string) (certificate, bool) {
	i := slices.IndexFunc(m.Certificates, func(c certificate) bool { return c.Thumbprint == thumbprint })
	if i < 0 {
		return certificate{}, false
	}
	return m.Certificates[i], true
}

// newest returns the certificate issued last of those whose key is there.
func (m member) newest(key place) (c certificate, ok bool) {
	for _, c := range slices.Backward(m.Certificates) {
		if c.Key == key {
			return c, true
		}
	}
	return c, false
}

// byTPM reports whether the machine joined by its TPM.
func (m member) byTPM() bool {
	_, ok := m.newest(inTPM)
	return ok
}

// remember is how a certificate just signed is kept in a member's row.
func remember(cert *x509.Certificate, key place) certificate {
	return certificate{Thumbprint: ca.Thumbprint(cert.Raw), NotAfter: cert.NotAfter, Key: key}
}

// A peer is the host at the other end of a connection, by its certificate.
type peer struct {
	machine    innate.ResourceID // lower case, as the certificate has it
	thumbprint string
	notAfter   time.Time
	key        crypto.PublicKey
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
	return peer{machine, ca.Thumbprint(cert.Raw), cert.NotAfter, cert.PublicKey}, nil
}

// current returns the member that holds p's certificate, or refuses one that an
// eviction, a later joining or the machine's deletion has ended.
func current(r store.Reader, p peer) (member, error) {
	m, ok, err := members.Get(r, p.machine.Key())
	if err != nil {
		return m, err
	}
	_, held := m.held(p.thumbprint)
	switch {
	case !ok:
		return m, badCertificate("machine %s does not exist any more", p.machine)
	case !m.Evicted.IsZero():
		return m, badCertificate("this host was evicted at %s; %s", m.Evicted.UTC().Format(time.RFC3339), joinAgain)
	case !held:
		return m, badCertificate("this certificate is not the host's any more: it has joined again, or renewed twice since; %s", joinAgain)
	}
	return m, nil
}

// caller is current for requests without a transaction of their own.
func (h *Hosts) caller(ctx context.Context, p peer) (m member, err error) {
	err = h.look(ctx, func(r store.Reader) (err error) { m, err = current(r, p); return err })
	return m, err
}

// saw notes that a host was heard.
func (h *Hosts) saw(p peer) { h.seen.Store(p.machine.Key(), h.config.Now()) }

const joinAgain = "join again with the line that 'innate host add NAME' or 'innate host allow NAME --ek HASH' prints"

func badCertificate(format string, args ...any) error {
	return rest.Errorf(http.StatusUnauthorized, "InvalidHostCertificate", "%s", fmt.Sprintf(format, args...))
}
