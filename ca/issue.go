package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

const (
	authorityLife = 5 * 365 * 24 * time.Hour
	backdate      = 5 * time.Minute // for clocks that are behind ours
	minRSA        = 2048            // bits
)

// use is what the certificates of a purpose are for.
func (p Purpose) use() x509.ExtKeyUsage {
	switch p {
	case Servers:
		return x509.ExtKeyUsageServerAuth
	case Documents:
		// What verifiers of PKCS #7 ask for; no TLS library takes it.
		return x509.ExtKeyUsageEmailProtection
	}
	return x509.ExtKeyUsageClientAuth
}

// newAuthority makes the CA for p. Its certificate itself says what it may
// sign, so that even its stolen key makes nothing for another purpose or domain.
func newAuthority(p Purpose, domain string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{CommonName: "Innate " + string(p) + " of " + domain},
		NotBefore:                   now.Add(-backdate),
		NotAfter:                    now.Add(authorityLife),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{p.use()},
		PermittedDNSDomainsCritical: true, // of all name constraints, despite its name
	}
	switch p {
	case Servers:
		template.PermittedDNSDomains = []string{domain, "localhost"}
		template.PermittedIPRanges = []*net.IPNet{
			{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
			{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
		}
	case Documents:
		template.PermittedDNSDomains = []string{"metadata." + domain}
		template.PermittedURIDomains = []string{domain}
		template.PermittedEmailAddresses = []string{"metadata." + domain} // nobody's mail
	default:
		template.PermittedURIDomains = []string{domain}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return ready(cert, key), nil
}

// serial is 128 random bits.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return new(big.Int).SetBytes(b[:])
}

// A Subject is what a certificate says. The authority copies nothing from a CSR but its key.
type Subject struct {
	CommonName string
	Units      []string // OU
	DNS        []string
	IPs        []net.IP
	URIs       []*url.URL
	Life       time.Duration // cut where the authority's own ends
}

func (s Subject) name() pkix.Name {
	name := pkix.Name{CommonName: s.CommonName}
	if len(s.Units) == 0 {
		return name
	}
	// The CN first: of a client's name pg_stat_ssl shows 63 bytes, and who that is
	// must be among them. pkix.Name by itself has the OUs before it.
	name.ExtraNames = []pkix.AttributeTypeAndValue{{Type: oidCommonName, Value: s.CommonName}}
	for _, unit := range s.Units {
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: oidUnit, Value: unit})
	}
	return name
}

var (
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidUnit       = asn1.ObjectIdentifier{2, 5, 4, 11}
)

// Issue signs a certificate (DER) for pub. Whether it may be had is the caller's decision.
func (a *Authorities) Issue(p Purpose, pub crypto.PublicKey, s Subject) ([]byte, error) {
	by, ok := a.of[p]
	if !ok {
		return nil, fmt.Errorf("ca: there is no authority for %q", p)
	}
	if err := checkKey(pub); err != nil {
		return nil, err
	}
	now := a.now()
	ends := now.Add(s.Life)
	if ends.After(by.cert.NotAfter) {
		ends = by.cert.NotAfter
	}
	if !ends.After(now) {
		return nil, fmt.Errorf("ca: a certificate for %s would end at %s, and it is %s",
			p, ends.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               s.name(),
		NotBefore:             now.Add(-backdate),
		NotAfter:              ends,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{p.use()},
		BasicConstraintsValid: true,
		DNSNames:              s.DNS,
		IPAddresses:           s.IPs,
		URIs:                  s.URIs,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, pub, by.key)
	if err != nil {
		return nil, fmt.Errorf("signing a certificate for %s: %w", p, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if err := a.Verify(p, cert, now); err != nil {
		return nil, fmt.Errorf("ca: a name is outside what the authority for %s may sign: %w", p, err)
	}
	return der, nil
}

// Verify checks that the authority for p signed cert, for that purpose and
// within its names, and that it is good at now.
func (a *Authorities) Verify(p Purpose, cert *x509.Certificate, now time.Time) error {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: a.of[p].pool, KeyUsages: []x509.ExtKeyUsage{p.use()}, CurrentTime: now,
	})
	return err
}

// CSR checks a certificate request's (DER) own signature and returns its key,
// which must be ECDSA P-256 or RSA of at least 2048 bits. Every name in it is ignored.
func CSR(der []byte) (crypto.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its own key: %w", err)
	}
	return csr.PublicKey, nil
}

func checkKey(pub crypto.PublicKey) error {
	switch key := pub.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return fmt.Errorf("key on the curve %s: want P-256", key.Params().Name)
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA {
			return fmt.Errorf("RSA key of %d bits: want at least %d", bits, minRSA)
		}
	default:
		return errors.New("want an ECDSA P-256 or RSA key")
	}
	return nil
}
