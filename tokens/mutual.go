package tokens

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"sync"
	"time"

	"innate"
	"innate/ca"
)

// byCertificate proves a managed identity by the certificate of the TLS
// connection (RFC 8705 §2). It must be ours, be held by the principal now, and
// say what the directory says: which identity, for which resource, on which host.
func (s *Service) byCertificate(q *request) (caller, error) {
	q.credential = "certificate"
	p, err := s.peers.of(s.config.CA, q.certificate, q.now)
	if err != nil {
		return caller{}, unproved(700027, "The client certificate is not one of a managed identity of this platform: %v", err)
	}
	q.key = p.thumbprint
	held, ok := s.config.Directory.Holder(p.thumbprint)
	if !ok {
		return caller{}, unproved(700027, "The certificate with thumbprint %s is no longer held by an identity: the host must ask for a new one", p.thumbprint)
	}
	if held.Principal != p.id || !held.Hosting.Equal(p.hosting) || !held.Host.Equal(p.host) || !q.now.Before(held.NotAfter) {
		return caller{}, unproved(700027, "The certificate with thumbprint %s is not that of its holder: the host must ask for a new one", p.thumbprint)
	}
	object, ok := s.config.Directory.Object(held.Principal)
	if !ok {
		return caller{}, unknownClient(q.client, s.config.Tenant)
	}
	if object.Client != q.client {
		return caller{}, unproved(700027, "The certificate is that of another client than %s", q.client)
	}
	return caller{
		object: object, acr: acrKey, hosting: held.Hosting, host: held.Host, assurance: q.assurance,
	}, nil
}

// A peer is what a certificate of ours says.
type peer struct {
	thumbprint          string
	id                  innate.ObjectID
	hosting, host       innate.ResourceID
	notBefore, notAfter time.Time
}

// peers remembers certificates that were found to be ours, because checking the
// authority's signature takes longer than making the token's. What may change,
// the time and who holds one, is checked at every request.
type peers struct {
	mu   sync.RWMutex
	seen map[string]*peer // by the certificate itself, which is found sooner than its hash is made
}

// maxPeers bounds the memory, some 15 MB: when full, all is forgotten and found again.
const maxPeers = 1 << 14

func (ps *peers) of(authorities *ca.Authorities, cert *x509.Certificate, now time.Time) (*peer, error) {
	ps.mu.RLock()
	p := ps.seen[string(cert.Raw)]
	ps.mu.RUnlock()
	if p != nil && !now.Before(p.notBefore) && !now.After(p.notAfter) {
		return p, nil
	}
	if err := authorities.Verify(ca.Identities, cert, now); err != nil {
		return nil, err
	}
	id, hosting, host, err := ca.ParseIdentityURIs(cert)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(cert.Raw)
	p = &peer{hex.EncodeToString(sum[:]), id, hosting, host, cert.NotBefore, cert.NotAfter}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.seen == nil || len(ps.seen) >= maxPeers {
		ps.seen = map[string]*peer{}
	}
	ps.seen[string(cert.Raw)] = p
	return p, nil
}
