package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"innate/agent/tpm"
	"innate/agent/tpm/tpmtest"
	"innate/hosts/attest"
)

func device(t *testing.T) *tpm.Device {
	t.Helper()
	d, err := tpm.Find(tpmtest.Start(t))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// enrol makes a key in d, with this test as the server that is shown the proof.
func enrol(t *testing.T, d *tpm.Device) *tpm.Key {
	t.Helper()
	offer, err := d.Offer()
	if err != nil {
		t.Fatal(err)
	}
	ek, err := attest.ParseEndorsement(offer.Key)
	if err != nil {
		t.Fatal(err)
	}
	if ek.Hash() != offer.Hash() {
		t.Errorf("the host calls its TPM %s, the server %s", offer.Hash(), ek.Hash())
	}
	ak, err := attest.ParseAttestationKey(offer.Attestation)
	if err != nil {
		t.Fatal(err)
	}
	c := tpm.Challenge{Nonce: []byte("nonce")}
	if c.Credential, c.Encrypted, err = ek.Challenge(ak.Name(), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	p, err := d.Prove(offer, c)
	if err != nil {
		t.Fatal(err)
	}
	if string(p.Secret) != "secret" {
		t.Errorf("the challenge's secret came back as %q", p.Secret)
	}
	key, err := attest.ParseHostKey(p.Area)
	if err != nil {
		t.Fatal(err)
	}
	if err := (attest.Statement{Attest: p.Attest, Signature: p.Signature}).Certifies(key, ak, c.Nonce); err != nil {
		t.Error(err)
	}
	if !key.Public().Equal(p.Key.Public()) {
		t.Error("the key that signs is not the one that was certified")
	}
	return p.Key
}

func TestAKeyProvedToBeInATPMSignsAndIsKeptAsABlob(t *testing.T) {
	d := device(t)
	key := enrol(t, d)
	der, err := key.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.Key(der)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	signature, err := again.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], signature) {
		t.Error("the kept key signs for another")
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), again)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := x509.ParseCertificateRequest(csr); err != nil || r.CheckSignature() != nil {
		t.Errorf("a certificate request by it: %v, %v", err, r.CheckSignature())
	}
	if _, err := again.Sign(nil, digest[:20], crypto.SHA1); err == nil {
		t.Error("it signed a SHA-1 digest")
	}
}

func TestAStolenBlobIsUselessInAnotherTPM(t *testing.T) {
	der, err := enrol(t, device(t)).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := device(t).Key(der)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	if _, err := stolen.Sign(nil, digest[:], crypto.SHA256); err == nil || !strings.Contains(err.Error(), "is it of this TPM") {
		t.Errorf("got %v, want that the key is another TPM's", err)
	}
}

func TestAChallengeIsReadOnlyByTheTPMAndWithTheKeyThatItIsFor(t *testing.T) {
	d := device(t)
	challenge := func(who, key tpm.Offer) (c tpm.Challenge) {
		t.Helper()
		ek, err := attest.ParseEndorsement(who.Key)
		if err != nil {
			t.Fatal(err)
		}
		ak, err := attest.ParseAttestationKey(key.Attestation)
		if err != nil {
			t.Fatal(err)
		}
		if c.Credential, c.Encrypted, err = ek.Challenge(ak.Name(), []byte("secret")); err != nil {
			t.Fatal(err)
		}
		return c
	}
	offer := func(d *tpm.Device) tpm.Offer {
		t.Helper()
		o, err := d.Offer()
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	mine, other, another := offer(d), offer(d), offer(device(t))
	for name, c := range map[string]tpm.Challenge{
		"for another key of this TPM":  challenge(mine, other),
		"for another TPM":              challenge(another, mine),
		"for a key of another TPM":     challenge(mine, another),
		"that somebody made up":        {Credential: []byte{0, 0}, Encrypted: make([]byte, 256)},
		"of an empty credential alone": {},
	} {
		if p, err := d.Prove(mine, c); err == nil {
			t.Errorf("a challenge %s was answered with %q", name, p.Secret)
		}
	}
	if _, err := d.Prove(mine, challenge(mine, mine)); err != nil {
		t.Errorf("after that, its own: %v", err)
	}
}

// handles counts what is in the slots of a TPM, of a kind.
func handles(t *testing.T, d *tpm.Device, kind tpm2.TPMHT) int {
	t.Helper()
	c, err := linuxudstpm.Open(d.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(kind) << 24, PropertyCount: 16}.Execute(c)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.CapabilityData.Data.Handles()
	if err != nil {
		t.Fatal(err)
	}
	return len(list.Handle)
}

func TestNothingStaysInTheTPMAlsoAfterARefusal(t *testing.T) {
	d := device(t)
	key := enrol(t, d)
	digest := sha256.Sum256(nil)
	if _, err := key.Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	offer, err := d.Offer()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // more than there are slots
		if _, err := d.Prove(offer, tpm.Challenge{Credential: []byte{0, 0}, Encrypted: make([]byte, 256)}); err == nil {
			t.Fatal("a made-up challenge was answered")
		}
	}
	for name, kind := range map[string]tpm2.TPMHT{"keys": tpm2.TPMHTTransient, "policy sessions": tpm2.TPMHTLoadedSession} {
		if n := handles(t, d, kind); n != 0 {
			t.Errorf("%d %s are left in it", n, name)
		}
	}
}

func TestTheVendorsCertificateIsReadFromTheTPM(t *testing.T) {
	d := device(t)
	want := bytes.Repeat([]byte("certificate "), 100) // longer than one read
	tpmtest.Certify(t, d.Path(), want)
	e, err := d.Endorsement()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.Certificate, want) {
		t.Errorf("%d bytes came, want %d", len(e.Certificate), len(want))
	}
}

func TestAMissingTPMSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	if _, err := tpm.Find(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "--tpm-device") {
		t.Errorf("no such device: got %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.Find(file); err == nil {
		t.Error("a plain file was taken for a TPM")
	}
}

func FuzzKey(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte("0\x1a\x06\x06g\x81\x05\n\x01\x03\x02\x04@\x00\x00\x01\x04\x02\x00\x00\x04\x02\x00\x00"))
	d := new(tpm.Device)
	f.Fuzz(func(t *testing.T, der []byte) {
		k, err := d.Key(der)
		if err != nil {
			return
		}
		again, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Key(again); err != nil {
			t.Errorf("a key that was read is not read again: %v", err)
		}
	})
}
