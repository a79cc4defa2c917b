package attest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"innate/hosts/attest"
)

// A key is what a TPM would hold; here, a forger's program holds it.
type key struct {
	private *ecdsa.PrivateKey
	public  tpm2.TPMTPublic
}

// newKey makes a key whose public area says all that it should.
func newKey(t testing.TB, restricted bool) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	scheme := tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull}
	if restricted {
		scheme = signing(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA256)
	}
	return key{k, tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, Restricted: restricted,
		},
		Parameters: parameters(tpm2.TPMECCNistP256, scheme),
		Unique:     point(k),
	}}
}

func signing(scheme tpm2.TPMIAlgECCScheme, hash tpm2.TPMIAlgHash) tpm2.TPMTECCScheme {
	s := tpm2.TPMSSigSchemeECDSA{HashAlg: hash}
	if scheme == tpm2.TPMAlgECDH {
		return tpm2.TPMTECCScheme{Scheme: scheme, Details: tpm2.NewTPMUAsymScheme(scheme, &tpm2.TPMSKeySchemeECDH{HashAlg: hash})}
	}
	return tpm2.TPMTECCScheme{Scheme: scheme, Details: tpm2.NewTPMUAsymScheme(scheme, &s)}
}

func parameters(curve tpm2.TPMIECCCurve, scheme tpm2.TPMTECCScheme) tpm2.TPMUPublicParms {
	return tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve, Scheme: scheme})
}

func point(k *ecdsa.PrivateKey) tpm2.TPMUPublicID {
	return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: k.X.FillBytes(make([]byte, 32))},
		Y: tpm2.TPM2BECCParameter{Buffer: k.Y.FillBytes(make([]byte, 32))},
	})
}

func (k key) area() []byte { return tpm2.Marshal(k.public) }

func TestAKeyThatIsNotItsChipsForEverIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*key)
		want   string
	}{
		"as it should be":                {func(*key) {}, ""},
		"it may be given to another TPM": {func(k *key) { k.public.ObjectAttributes.FixedTPM = false }, "may leave"},
		"it may get another parent":      {func(k *key) { k.public.ObjectAttributes.FixedParent = false }, "may leave"},
		"it was imported":                {func(k *key) { k.public.ObjectAttributes.SensitiveDataOrigin = false }, "made elsewhere"},
		"it does not sign":               {func(k *key) { k.public.ObjectAttributes.SignEncrypt = false }, "signs"},
		"it decrypts":                    {func(k *key) { k.public.ObjectAttributes.Decrypt = true }, "does not decrypt"},
		"its name is a SHA-1":            {func(k *key) { k.public.NameAlg = tpm2.TPMAlgSHA1 }, "named by SHA-256"},
		"it signs SHA-1": {func(k *key) {
			k.public.Parameters = parameters(tpm2.TPMECCNistP256, signing(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA1))
		}, "SHA-256"},
		"it agrees on keys": {
			func(k *key) {
				k.public.Parameters = parameters(tpm2.TPMECCNistP256, signing(tpm2.TPMAlgECDH, tpm2.TPMAlgSHA256))
			}, "ECDSA"},
		"its curve is another": {func(k *key) {
			k.public.Parameters = parameters(tpm2.TPMECCNistP384, signing(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA256))
		}, "P-256"},
		"its point is not on the curve": {func(k *key) {
			k.public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: []byte{1}}, Y: tpm2.TPM2BECCParameter{Buffer: []byte{1}},
			})
		}, "attestation key"},
		"its point is too large": {func(k *key) {
			k.public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: make([]byte, 33)}, Y: tpm2.TPM2BECCParameter{Buffer: make([]byte, 32)},
			})
		}, "P-256"},
		"it is RSA": {func(k *key) {
			k.public.Type = tpm2.TPMAlgRSA
			k.public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 1024})
			k.public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 128)})
		}, "ECC"},
	} {
		k := newKey(t, true)
		c.change(&k)
		_, err := attest.ParseAttestationKey(k.area())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestAnAttestationKeyIsRestrictedAndAHostKeyIsNot(t *testing.T) {
	if _, err := attest.ParseAttestationKey(newKey(t, false).area()); err == nil || !strings.Contains(err.Error(), "not restricted") {
		t.Errorf("a key that signs anything, as attestation key: %v", err)
	}
	if _, err := attest.ParseHostKey(newKey(t, true).area()); err == nil || !strings.Contains(err.Error(), "restricted") {
		t.Errorf("a restricted key as host key: %v", err)
	}
	own := newKey(t, false)
	k, err := attest.ParseHostKey(own.area())
	if err != nil {
		t.Fatal(err)
	}
	if !k.Public().Equal(own.private.Public()) {
		t.Error("another key was read")
	}
	name, err := tpm2.ObjectName(&own.public)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.Name(), name.Buffer) {
		t.Errorf("name %x, want %x", k.Name(), name.Buffer)
	}
	if _, err := attest.ParseHostKey(append(own.area(), 0)); err == nil {
		t.Error("an area with more behind it was read: the name would be another's")
	}
}

// A statement is what an attestation key signs, and what a forger changes in it.
type statement struct {
	tpm2.TPMSAttest
	by *ecdsa.PrivateKey
}

func stated(t testing.TB, about key, by key, nonce string) statement {
	t.Helper()
	name, err := tpm2.ObjectName(&about.public)
	if err != nil {
		t.Fatal(err)
	}
	return statement{tpm2.TPMSAttest{
		Magic: tpm2.TPMGeneratedValue, Type: tpm2.TPMSTAttestCertify, ExtraData: tpm2.TPM2BData{Buffer: []byte(nonce)},
		Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: *name}),
	}, by.private}
}

func (s statement) sign(t testing.TB) attest.Statement {
	t.Helper()
	b := tpm2.Marshal(s.TPMSAttest)
	sum := sha256.Sum256(b)
	signature, err := ecdsa.SignASN1(rand.Reader, s.by, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return attest.Statement{Attest: b, Signature: signature}
}

func TestAStatementIsAboutTheKeyAndInAnswerToTheNonce(t *testing.T) {
	ak, own, other := newKey(t, true), newKey(t, false), newKey(t, true)
	reads := func(area []byte, parse func([]byte) (attest.Key, error)) attest.Key {
		t.Helper()
		k, err := parse(area)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	by, about := reads(ak.area(), attest.ParseAttestationKey), reads(own.area(), attest.ParseHostKey)
	good := stated(t, own, ak, "nonce")
	cut := good.sign(t)
	cut.Signature = cut.Signature[:10]
	notGenerated := good
	notGenerated.Magic = 0x12345678
	quote := good
	quote.Type = tpm2.TPMSTAttestQuote
	quote.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &tpm2.TPMSQuoteInfo{})
	for name, c := range map[string]struct {
		s    attest.Statement
		want string
	}{
		"as it should be":                   {good.sign(t), ""},
		"another nonce":                     {stated(t, own, ak, "other").sign(t), "nonce"},
		"no nonce":                          {stated(t, own, ak, "").sign(t), "nonce"},
		"about another key":                 {stated(t, other, ak, "nonce").sign(t), "another key"},
		"about itself":                      {stated(t, ak, ak, "nonce").sign(t), "another key"},
		"signed by another attestation key": {stated(t, own, other, "nonce").sign(t), "not signed"},
		"half a signature":                  {cut, "not signed"},
		"no signature":                      {attest.Statement{Attest: cut.Attest}, "not signed"},
		"that no TPM generated":             {notGenerated.sign(t), "no TPM generated"},
		"of the chip's state, not of a key": {quote.sign(t), "certifies no key"},
		"nothing at all":                    {attest.Statement{}, "not signed"},
	} {
		err := c.s.Certifies(about, by, []byte("nonce"))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("a statement, %s: got %v, want %q", name, err, c.want)
		}
	}
}

func spki(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAnEndorsementKeyIsTheStandardTemplates(t *testing.T) {
	k := rsaKey(t, 2048)
	der := spki(t, &k.PublicKey)
	e, err := attest.ParseEndorsement(der)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(der); e.Hash() != hex.EncodeToString(sum[:]) {
		t.Errorf("the hash is %s, want that of the SubjectPublicKeyInfo", e.Hash())
	}
	odd, even := k.PublicKey, k.PublicKey
	odd.E = 3
	even.N = new(big.Int).Add(k.N, big.NewInt(1)) // no RSA library encrypts for it
	for name, der := range map[string][]byte{
		"of 3072 bits": spki(t, &rsaKey(t, 3072).PublicKey), "with another exponent": spki(t, &odd), "that is even": spki(t, &even),
		"on a curve": spki(t, newKey(t, true).private.Public()), "that is none": []byte("x"), "that is absent": nil,
	} {
		if _, err := attest.ParseEndorsement(der); err == nil {
			t.Errorf("a key %s was taken for an endorsement key", name)
		}
	}
}

func TestAVendorsCertificateIsForTheKeyAndLeadsToARootThatIsBelieved(t *testing.T) {
	now := time.Now()
	vendor, stranger := rsaKey(t, 2048), rsaKey(t, 2048)
	authority := func(k *rsa.PrivateKey) *x509.Certificate {
		t.Helper()
		c := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vendor"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(48 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
		if err != nil {
			t.Fatal(err)
		}
		c, err = x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root, other := authority(vendor), authority(stranger)
	roots := x509.NewCertPool()
	roots.AddCert(root)
	ek := rsaKey(t, 2048)
	// As vendors make them: no subject, the model in a critical name that Go does not read, a purpose of the TCG's.
	model, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: []byte{0x30, 0}}})
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(public *rsa.PublicKey, by *x509.Certificate, key *rsa.PrivateKey, extra ...pkix.Extension) []byte {
		t.Helper()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
			UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}},
			ExtraExtensions:    append(extra, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: model}),
		}, by, public, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	e, err := attest.ParseEndorsement(spki(t, &ek.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	good := certificate(&ek.PublicKey, root, vendor)
	if err := e.CertifiedBy(good, roots, now); err != nil {
		t.Errorf("a vendor's certificate: %v", err)
	}
	for name, c := range map[string]struct {
		der []byte
		at  time.Time
	}{
		"for another key":                  {certificate(&stranger.PublicKey, root, vendor), now},
		"of a vendor nobody believes":      {certificate(&ek.PublicKey, other, stranger), now},
		"that has ended":                   {good, now.Add(25 * time.Hour)},
		"with a critical extension unread": {certificate(&ek.PublicKey, root, vendor, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}), now},
		"that is none":                     {[]byte("x"), now},
	} {
		if err := e.CertifiedBy(c.der, roots, c.at); err == nil {
			t.Errorf("a certificate %s was believed", name)
		}
	}
}

func FuzzPublicArea(f *testing.F) {
	f.Add(newKey(f, true).area())
	f.Add(newKey(f, false).area())
	f.Add(tpm2.Marshal(tpm2.RSAEKTemplate))
	f.Add(tpm2.Marshal(tpm2.ECCSRKTemplate))
	f.Fuzz(func(t *testing.T, area []byte) {
		k, err := attest.ParseAttestationKey(area)
		if err != nil {
			k, err = attest.ParseHostKey(area)
		}
		if err != nil {
			return
		}
		if k.Public() == nil || !bytes.Equal(k.Area(), area) || len(k.Name()) != 34 {
			t.Errorf("read as %v, %x, %x", k.Public(), k.Area(), k.Name())
		}
	})
}

func FuzzAttest(f *testing.F) {
	k := newKey(f, true)
	f.Add(tpm2.Marshal(stated(f, k, k, "nonce").TPMSAttest))
	f.Add([]byte("\xffTCG"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, nonce, err := attest.ParseAttest(b)
		if err == nil && len(name)+len(nonce) > len(b) {
			t.Errorf("%d bytes gave a name of %d and a nonce of %d", len(b), len(name), len(nonce))
		}
	})
}

func FuzzEndorsement(f *testing.F) {
	f.Add(spki(f, &rsaKey(f, 2048).PublicKey))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		e, err := attest.ParseEndorsement(der)
		if err != nil {
			return
		}
		if _, _, err := e.Challenge(make([]byte, 34), make([]byte, 32)); err != nil {
			t.Errorf("a key that was read cannot be challenged: %v", err)
		}
	})
}
