// Package attest checks what a TPM 2.0 says of itself and of the keys in it:
// which chip it is, that a key was made in it and never leaves it, that it says
// so now. It is the server's half of credential activation (TPM 2.0 Library,
// Part 1 §24; host-attestation §6), in software alone.
//
// Which chip may be which machine is package hosts' to decide. Nothing here is
// proof by itself: a public area says what anybody wrote into it, until the chip
// has given back the secret of a Challenge for it, or a Statement covers it.
package attest

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// What the standard template of an endorsement key fixes (TCG EK Credential
// Profile, template L-1).
const (
	endorsementBits     = 2048
	endorsementExponent = 65537
)

// An Endorsement is a TPM's endorsement key: made from a seed that the chip was
// given in its factory, and so the chip's identity. It only decrypts.
type Endorsement struct{ key *rsa.PublicKey }

// ParseEndorsement reads an endorsement key from its SubjectPublicKeyInfo (DER).
// Of the key's public area nothing else is asked: it is the standard template's.
func ParseEndorsement(spki []byte) (Endorsement, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return Endorsement{}, fmt.Errorf("endorsement key: %w", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok || key.N.BitLen() != endorsementBits || key.N.Bit(0) == 0 || key.E != endorsementExponent {
		return Endorsement{}, fmt.Errorf("endorsement key: want RSA of %d bits with the exponent %d, as the standard template makes", endorsementBits, endorsementExponent)
	}
	return Endorsement{key}, nil
}

// Hash is the chip's name: the SHA-256 of the key's SubjectPublicKeyInfo, in
// lower-case hexadecimal.
func (e Endorsement) Hash() string {
	der, err := x509.MarshalPKIXPublicKey(e.key)
	if err != nil {
		panic(err) // an RSA key marshals
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// subjectAltName is what vendors put a TPM's make and model into, marked
// critical, in a form of name that the standard library does not read.
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// CertifiedBy checks that a certificate (DER) is for this key and leads to one
// of roots.
func (e Endorsement) CertifiedBy(der []byte, roots *x509.CertPool, now time.Time) error {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("endorsement certificate: %w", err)
	}
	if !e.key.Equal(cert.PublicKey) {
		return errors.New("endorsement certificate: it is for another key")
	}
	cert.UnhandledCriticalExtensions = slices.DeleteFunc(cert.UnhandledCriticalExtensions, subjectAltName.Equal)
	_, err = cert.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // vendors: tcg-kp-EKCertificate, or none
	})
	if err != nil {
		return fmt.Errorf("endorsement certificate: %w", err)
	}
	return nil
}

// Challenge encrypts a secret of at most 32 bytes so that only the chip with
// this endorsement key reads it, and only while it holds the key called name.
func (e Endorsement) Challenge(name, secret []byte) (credential, encrypted []byte, err error) {
	area := tpm2.RSAEKTemplate
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: e.key.N.FillBytes(make([]byte, endorsementBits/8))})
	key, err := tpm2.ImportEncapsulationKey(&area)
	if err != nil {
		return nil, nil, fmt.Errorf("endorsement key: %w", err)
	}
	if credential, encrypted, err = tpm2.CreateCredential(rand.Reader, key, name, secret); err != nil {
		return nil, nil, fmt.Errorf("making a credential: %w", err)
	}
	return credential, encrypted, nil
}

// A Statement is what an attestation key signed about another key in its chip
// (TPM2_Certify).
type Statement struct {
	Attest    []byte // TPMS_ATTEST
	Signature []byte // ECDSA over its SHA-256, ASN.1
}

// Certifies checks that s was made by the chip of ak, in answer to nonce, and
// that it is about key.
func (s Statement) Certifies(key, ak Key, nonce []byte) error {
	if !ak.signed(s.Attest, s.Signature) {
		return errors.New("statement: it is not signed by the attestation key")
	}
	about, answers, err := parseAttest(s.Attest)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(answers, nonce):
		return errors.New("statement: its nonce is not this challenge's")
	case !bytes.Equal(about, key.Name()):
		return errors.New("statement: it is about another key")
	}
	return nil
}

// parseAttest reads a TPMS_ATTEST: the name of the key that it certifies, and
// the nonce that it answers.
func parseAttest(b []byte) (name, nonce []byte, err error) {
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](b)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("statement: %w", err)
	case a.Magic != tpm2.TPMGeneratedValue: // which Unmarshal does not look at
		return nil, nil, errors.New("statement: no TPM generated it")
	case a.Type != tpm2.TPMSTAttestCertify:
		return nil, nil, errors.New("statement: it certifies no key")
	}
	info, err := a.Attested.Certify()
	if err != nil {
		return nil, nil, fmt.Errorf("statement: %w", err)
	}
	return info.Name.Buffer, a.ExtraData.Buffer, nil
}
