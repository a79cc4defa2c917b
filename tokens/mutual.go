package tokens

import (
	"crypto/x509"
	"time"

	"innate"
	"innate/ca"
)

// byCertificate proves a managed identity by the certificate of the TLS
// connection (RFC 8705 §2). It must be ours, be held by the principal now, and
// say what the directory says: which identity, for which resource, on which host.
func (s *Service) byCertificate(q *request) (caller, error) {
	q.credential = "certificate"
	p, err := s.peerOf(q.certificate, q.now)
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

// A peer is what a certificate of ours says, once its signature was found to be ours.
type peer struct {
	thumbprint          string
	id                  innate.ObjectID
	hosting, host       innate.ResourceID
	notBefore, notAfter time.Time
}

// maxPeers bounds the memory for certificates of ours, some 15 MB.
const maxPeers = 1 << 14

// peerOf reads cert when it is ours. The time is looked at in every request, as
// is who holds the certificate.
func (s *Service) peerOf(cert *x509.Certificate, now time.Time) (*peer, error) {
	if p, ok := s.peers.get(cert.Raw); ok && !now.Before(p.notBefore) && !now.After(p.notAfter) {
		return p, nil
	}
	if err := s.config.CA.Verify(ca.Identities, cert, now); err != nil {
		return nil, err
	}
	id, hosting, host, err := ca.ParseIdentityURIs(cert)
	if err != nil {
		return nil, err
	}
	p := &peer{ca.Thumbprint(cert.Raw), id, hosting, host, cert.NotBefore, cert.NotAfter}
	s.peers.put(cert.Raw, p)
	return p, nil
}
