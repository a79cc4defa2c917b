package ca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/ca"
	"innate/seal"
	"innate/store"
	"innate/store/file"
)

const domain = "innate.test"

var purposes = []ca.Purpose{ca.Servers, ca.Hosts, ca.Identities, ca.Databases, ca.Documents}

func config(t *testing.T) ca.Config {
	t.Helper()
	master, err := seal.CreateMaster(filepath.Join(t.TempDir(), "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	engine, err := file.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return ca.Config{DB: db, Seal: master, Domain: domain}
}

func open(t *testing.T, c ca.Config) *ca.Authorities {
	t.Helper()
	a, err := ca.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestACertificateIsGoodForItsPurposeAlone(t *testing.T) {
	a := open(t, config(t))
	for _, p := range purposes {
		s := ca.Subject{CommonName: "x", URIs: []*url.URL{ca.HostURI(domain, "/subscriptions/s")}, Life: time.Hour}
		if p == ca.Servers {
			s = ca.Subject{CommonName: domain, DNS: []string{"*.vault." + domain, "localhost"}, IPs: []net.IP{net.IPv6loopback, net.IPv4(127, 0, 0, 1)}, Life: time.Hour}
		}
		der, err := a.Issue(p, newKey(t).Public(), s)
		if err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		cert := parse(t, der)
		for _, q := range purposes {
			if err := a.Verify(q, cert, time.Now()); (err == nil) != (p == q) {
				t.Errorf("a certificate for %s at the authority for %s: %v", p, q, err)
			}
		}
		for use, want := range map[x509.ExtKeyUsage]bool{
			x509.ExtKeyUsageServerAuth: p == ca.Servers, x509.ExtKeyUsageClientAuth: p == ca.Hosts || p == ca.Identities || p == ca.Databases,
			x509.ExtKeyUsageEmailProtection: p == ca.Documents,
		} {
			_, err := cert.Verify(x509.VerifyOptions{Roots: a.Pool(purposes...), KeyUsages: []x509.ExtKeyUsage{use}})
			if (err == nil) != want {
				t.Errorf("a certificate for %s used for %v: %v", p, use, err)
			}
		}
	}
}

func TestAnAuthoritySignsOnlyNamesOfItsDomain(t *testing.T) {
	a := open(t, config(t))
	for _, c := range []struct {
		p ca.Purpose
		s ca.Subject
	}{
		{ca.Servers, ca.Subject{DNS: []string{"example.org"}}},
		{ca.Servers, ca.Subject{DNS: []string{"notinnate.test"}}}, // a shared suffix is not a sub-domain
		{ca.Servers, ca.Subject{IPs: []net.IP{net.IPv4(192, 0, 2, 1)}}},
		{ca.Identities, ca.Subject{URIs: []*url.URL{{Scheme: "innate", Host: "example.org", Path: "/identities/x"}}}},
		{ca.Hosts, ca.Subject{URIs: []*url.URL{{Scheme: "innate", Host: "example.org", Path: "/hosts/x"}}}},
		{ca.Documents, ca.Subject{DNS: []string{"login.innate.test"}}}, // its names are metadata's alone
		{ca.Documents, ca.Subject{URIs: []*url.URL{{Scheme: "innate", Host: "example.org", Path: "/resources/x"}}}},
	} {
		c.s.Life = time.Hour
		if _, err := a.Issue(c.p, newKey(t).Public(), c.s); err == nil {
			t.Errorf("the authority for %s signed %v %v %v", c.p, c.s.DNS, c.s.IPs, c.s.URIs)
		}
	}
}

func TestALeafCannotSignAndDoesNotOutliveItsAuthority(t *testing.T) {
	c := config(t)
	start := time.Now().Truncate(time.Second)
	now := start
	c.Now = func() time.Time { return now }
	a := open(t, c)
	end := a.Certificate(ca.Servers).NotAfter

	key := newKey(t)
	der, err := a.Issue(ca.Servers, key.Public(), ca.Subject{DNS: []string{domain}, Life: 100 * 365 * 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(t, der)
	if !leaf.NotAfter.Equal(end) {
		t.Errorf("ends %s: want the authority's %s", leaf.NotAfter, end)
	}
	if want := start.Add(-5 * time.Minute); !leaf.NotBefore.Equal(want.UTC()) {
		t.Errorf("begins %s: want %s", leaf.NotBefore, want)
	}
	if leaf.SerialNumber.BitLen() < 64 {
		t.Errorf("serial %s is not 128 random bits", leaf.SerialNumber)
	}

	below := &x509.Certificate{
		SerialNumber: leaf.SerialNumber, NotAfter: now.Add(time.Hour), NotBefore: now.Add(-time.Hour),
		DNSNames: []string{domain}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if der, err = x509.CreateCertificate(rand.Reader, below, leaf, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	chain := x509.NewCertPool()
	chain.AddCert(leaf)
	if _, err := parse(t, der).Verify(x509.VerifyOptions{Roots: a.Pool(ca.Servers), Intermediates: chain}); err == nil {
		t.Error("a leaf was accepted as an authority")
	}

	now = end.Add(time.Second)
	if _, err := a.Issue(ca.Servers, key.Public(), ca.Subject{DNS: []string{domain}, Life: time.Hour}); err == nil {
		t.Error("an authority that has ended signed")
	}
}

func TestTwoServersThatOpenANewStoreShareItsAuthorities(t *testing.T) {
	c := config(t)
	var got [4]*ca.Authorities
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			a, err := ca.Open(context.Background(), c)
			if err != nil {
				t.Error(err)
			}
			got[i] = a
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, a := range got {
		for _, p := range purposes {
			if !a.Certificate(p).Equal(got[0].Certificate(p)) {
				t.Errorf("two authorities for %s came out", p)
			}
		}
	}
}

func TestTheKeysOfAuthoritiesAreSealed(t *testing.T) {
	c := config(t)
	open(t, c)
	other := config(t)
	c.Seal = other.Seal
	if _, err := ca.Open(t.Context(), c); err == nil {
		t.Error("opened under another master key")
	}
}

const (
	oid     = innate.ObjectID("0f8fad5b-d9cb-469f-a165-70867728950e")
	group   = "/subscriptions/0f8fad5b-d9cb-469f-a165-70867728950e/resourceGroups/RG_(1)/providers/"
	hosting = innate.ResourceID(group + "Microsoft.Web/sites/App")
	host    = innate.ResourceID(group + "Microsoft.HybridCompute/machines/M1")
)

func certificate(t *testing.T, uris ...*url.URL) *x509.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), URIs: uris}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func TestTheNamesInACertificateReadBackAsWritten(t *testing.T) {
	a := open(t, config(t))
	der, err := a.Issue(ca.Identities, newKey(t).Public(), ca.Subject{
		URIs: ca.IdentityURIs("Innate.TEST", oid, hosting, host), Life: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	gotID, gotHosting, gotHost, err := ca.ParseIdentityURIs(parse(t, der))
	if err != nil || gotID != oid || string(gotHosting) != hosting.Key() || string(gotHost) != host.Key() {
		t.Errorf("got %s %s %s %v", gotID, gotHosting, gotHost, err)
	}
	if _, err := ca.ParseHostURI(parse(t, der)); err == nil {
		t.Error("an identity's certificate was read as a host's")
	}

	if der, err = a.Issue(ca.Hosts, newKey(t).Public(), ca.Subject{
		URIs: []*url.URL{ca.HostURI(domain, host)}, Life: time.Hour,
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := ca.ParseHostURI(parse(t, der)); err != nil || string(got) != host.Key() {
		t.Errorf("got %s, %v", got, err)
	}
	if _, _, _, err := ca.ParseIdentityURIs(parse(t, der)); err == nil {
		t.Error("a host's certificate was read as an identity's")
	}
}

func TestACertificateWithOtherNamesSpeaksForNobody(t *testing.T) {
	good := ca.IdentityURIs(domain, oid, hosting, host)
	other := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for name, uris := range map[string][]*url.URL{
		"none":            nil,
		"one missing":     good[:2],
		"one twice":       {good[0], good[1], good[1]},
		"one more":        append(slices.Clone(good), other("https://example.org/")),
		"another scheme":  {other("https://innate.test/identities/" + string(oid)), good[1], good[2]},
		"a query":         {other(good[0].String() + "?x"), good[1], good[2]},
		"no GUID":         {other("innate://innate.test/identities/root"), good[1], good[2]},
		"no resource id":  {good[0], other("innate://innate.test/resources/etc/passwd"), good[2]},
		"a longer prefix": {good[0], other("innate://innate.test/resourcesx" + hosting.Key()), good[2]},
	} {
		if id, _, _, err := ca.ParseIdentityURIs(certificate(t, uris...)); err == nil {
			t.Errorf("%s: read as %s", name, id)
		}
	}
}

func TestOnlyTheKeyOfARequestIsTaken(t *testing.T) {
	request := func(key crypto.Signer) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "admin"}, DNSNames: []string{"login.innate.test"},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	key := newKey(t)
	pub, err := ca.CSR(request(key))
	if err != nil || !key.PublicKey.Equal(pub) {
		t.Fatalf("got %v, %v", pub, err)
	}

	forged := request(key)
	forged[len(forged)-1] ^= 1 // in the signature
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"forged": forged, "P-384": request(p384), "Ed25519": request(ed), "empty": nil, "trailing": append(request(key), 0),
	} {
		if _, err := ca.CSR(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzCSR(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		if pub, err := ca.CSR(der); err == nil && pub == nil {
			t.Error("no error and no key")
		}
	})
}
