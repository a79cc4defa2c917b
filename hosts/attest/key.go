package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// maxArea bounds a public area, in bytes; those of the keys we want have 86 to 88.
const maxArea = 256

// A Key is the public area of an ECDSA P-256 key in a TPM: the key, and what the
// chip lets be done with it. Its name is the hash of both, so that a proof about
// the name is a proof about each.
type Key struct {
	area       []byte
	public     *ecdsa.PublicKey
	attributes tpm2.TPMAObject
}

// ParseAttestationKey reads the public area (TPMT_PUBLIC) of a key that signs
// nothing but what its chip itself states: restricted.
func ParseAttestationKey(area []byte) (Key, error) {
	k, err := parseKey(area)
	if err != nil {
		return Key{}, fmt.Errorf("attestation key: %w", err)
	}
	if !k.attributes.Restricted {
		return Key{}, errors.New("attestation key: it is not restricted, so it would sign a statement that somebody made up")
	}
	return k, nil
}

// ParseHostKey reads the public area (TPMT_PUBLIC) of a key that signs what its
// owner says.
func ParseHostKey(area []byte) (Key, error) {
	k, err := parseKey(area)
	if err != nil {
		return Key{}, fmt.Errorf("host key: %w", err)
	}
	if k.attributes.Restricted {
		return Key{}, errors.New("host key: it is restricted, so it signs no certificate request")
	}
	return k, nil
}

// parseKey reads a public area, and refuses a key that did not begin in its chip
// or may leave it. A restricted key must say itself that it signs by ECDSA with SHA-256.
func parseKey(area []byte) (Key, error) {
	if len(area) > maxArea {
		return Key{}, fmt.Errorf("a public area of %d bytes: want at most %d", len(area), maxArea)
	}
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](area)
	if err != nil {
		return Key{}, err
	}
	if p.Type != tpm2.TPMAlgECC || p.NameAlg != tpm2.TPMAlgSHA256 {
		return Key{}, errors.New("want an ECC key named by SHA-256")
	}
	if !bytes.Equal(tpm2.Marshal(p), area) {
		return Key{}, errors.New("the public area is not in its one encoding")
	}
	if err := inChip(p.ObjectAttributes); err != nil {
		return Key{}, err
	}
	curve, err := p.Parameters.ECCDetail()
	if err != nil {
		return Key{}, err
	}
	if err := signsWithSHA256(curve.Scheme, p.ObjectAttributes.Restricted); err != nil {
		return Key{}, err
	}
	point, err := p.Unique.ECC()
	if err != nil {
		return Key{}, err
	}
	if curve.CurveID != tpm2.TPMECCNistP256 || len(point.X.Buffer) > 32 || len(point.Y.Buffer) > 32 {
		return Key{}, errors.New("want a key on the curve P-256")
	}
	uncompressed := make([]byte, 65)
	uncompressed[0] = 4
	copy(uncompressed[33-len(point.X.Buffer):], point.X.Buffer)
	copy(uncompressed[65-len(point.Y.Buffer):], point.Y.Buffer)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	if err != nil {
		return Key{}, err
	}
	return Key{bytes.Clone(area), public, p.ObjectAttributes}, nil
}

// inChip checks the attributes that make a key its chip's for ever (TPM 2.0
// Library, Part 2 §8.3).
func inChip(a tpm2.TPMAObject) error {
	switch {
	case !a.FixedTPM || !a.FixedParent:
		return errors.New("it may leave its chip: want fixedTPM and fixedParent")
	case !a.SensitiveDataOrigin:
		return errors.New("it was made elsewhere: want sensitiveDataOrigin")
	case !a.SignEncrypt || a.Decrypt:
		return errors.New("want a key that signs and does not decrypt")
	}
	return nil
}

func signsWithSHA256(s tpm2.TPMTECCScheme, must bool) error {
	if s.Scheme == tpm2.TPMAlgNull && !must {
		return nil // whoever signs chooses
	}
	if s.Scheme != tpm2.TPMAlgECDSA {
		return errors.New("want a key that signs by ECDSA")
	}
	d, err := s.Details.ECDSA()
	if err != nil || d.HashAlg != tpm2.TPMAlgSHA256 {
		return errors.New("want a key that signs with SHA-256")
	}
	return nil
}

// Public is the key.
func (k Key) Public() *ecdsa.PublicKey { return k.public }

// Area is the TPMT_PUBLIC that k was read from.
func (k Key) Area() []byte { return k.area }

// Name is what a TPM calls the key: the hash's algorithm, and the SHA-256 of the
// public area (TPM 2.0 Library, Part 1 §16).
func (k Key) Name() []byte {
	sum := sha256.Sum256(k.area)
	return append([]byte{0, byte(tpm2.TPMAlgSHA256)}, sum[:]...)
}

// signed reports whether k signed message.
func (k Key) signed(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	return ecdsa.VerifyASN1(k.public, sum[:], signature)
}
