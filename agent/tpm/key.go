package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A blob is a key of ours as it is kept outside the chip: useless elsewhere.
type blob struct {
	public  tpm2.TPM2BPublic
	private tpm2.TPM2BPrivate
}

// signing is the template of a P-256 key that signs by ECDSA with SHA-256.
func signing(restricted bool) tpm2.TPMTPublic {
	scheme := tpm2.TPMTECCScheme{} // chosen at each signature
	if restricted {
		scheme = tpm2.TPMTECCScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
		}
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			SignEncrypt: true, Restricted: restricted,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: scheme}),
	}
}

// create makes a key that stays in this chip.
func create(t transport.TPM, template tpm2.TPMTPublic) (blob, error) {
	parent, err := storage(t)
	if err != nil {
		return blob{}, err
	}
	defer parent.flush(t)
	r, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(template)}.Execute(t)
	if err != nil {
		return blob{}, fmt.Errorf("making a key: %w", err)
	}
	return blob{r.OutPublic, r.OutPrivate}, nil
}

func (b blob) load(t transport.TPM) (loaded, error) {
	parent, err := storage(t)
	if err != nil {
		return loaded{}, err
	}
	defer parent.flush(t)
	r, err := tpm2.Load{ParentHandle: parent, InPublic: b.public, InPrivate: b.private}.Execute(t)
	if err != nil {
		return loaded{}, fmt.Errorf("loading a key (is it of this TPM, and has that not been cleared since?): %w", err)
	}
	return loaded{NamedHandle: tpm2.NamedHandle{Handle: r.ObjectHandle, Name: r.Name}}, nil
}

// area is the TPMT_PUBLIC of the key.
func (b blob) area() []byte { return b.public.Bytes() }

// A Key is a private key that never leaves the chip. It is a crypto.Signer.
type Key struct {
	device *Device
	blob
	key *ecdsa.PublicKey
}

func newKey(d *Device, b blob) (*Key, error) {
	public, err := b.public.Contents()
	if err != nil {
		return nil, fmt.Errorf("key of a TPM: %w", err)
	}
	key, err := tpm2.Pub(*public)
	if err != nil {
		return nil, fmt.Errorf("key of a TPM: %w", err)
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("key of a TPM: want ECDSA")
	}
	return &Key{d, b, ec}, nil
}

// Public is the *ecdsa.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.key }

// Sign signs a SHA-256 digest. The chip has its own randomness.
func (k *Key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("a TPM's key signs SHA-256 digests, not %v", opts.HashFunc())
	}
	err = k.device.use(func(t transport.TPM) error {
		key, err := k.load(t)
		if err != nil {
			return err
		}
		defer key.flush(t)
		r, err := tpm2.Sign{
			KeyHandle: key.NamedHandle, Digest: tpm2.TPM2BDigest{Buffer: digest},
			InScheme: tpm2.TPMTSigScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
			},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("signing: %w", err)
		}
		signature, err = ecdsaSignature(r.Signature)
		return err
	})
	return signature, err
}

// ecdsaSignature is a TPM's signature as everybody else writes it.
func ecdsaSignature(s tpm2.TPMTSignature) ([]byte, error) {
	e, err := s.Signature.ECDSA()
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer),
	})
}

// PEMType is the type of the PEM block in which a key is kept, as OpenSSL's
// provider for TPMs and others read it too.
const PEMType = "TSS2 PRIVATE KEY"

// tssKey is TPMKey of draft-bottomley-tpm2-keys: public and private part are
// TPM2B_PUBLIC and TPM2B_PRIVATE.
type tssKey struct {
	Type      asn1.ObjectIdentifier
	EmptyAuth bool `asn1:"explicit,tag:0,optional"`
	Parent    int64
	Public    []byte
	Private   []byte
}

var loadable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 3}

// Marshal is what to keep of the key (DER). There is nothing secret in it for
// whoever has not the chip.
func (k *Key) Marshal() ([]byte, error) {
	return asn1.Marshal(tssKey{
		Type: loadable, EmptyAuth: true, Parent: int64(tpm2.TPMRHOwner),
		Public: tpm2.Marshal(k.public), Private: tpm2.Marshal(k.private),
	})
}

// Key reads what Marshal wrote. That it is this chip's shows when it signs.
func (d *Device) Key(der []byte) (*Key, error) {
	var s tssKey
	if rest, err := asn1.Unmarshal(der, &s); err != nil || len(rest) > 0 || !s.Type.Equal(loadable) || s.Parent != int64(tpm2.TPMRHOwner) {
		return nil, errors.New("this is no key of a TPM as this program keeps it")
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.Public)
	if err != nil {
		return nil, fmt.Errorf("key of a TPM: %w", err)
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](s.Private)
	if err != nil {
		return nil, fmt.Errorf("key of a TPM: %w", err)
	}
	if !bytes.Equal(tpm2.Marshal(public), s.Public) || !bytes.Equal(tpm2.Marshal(private), s.Private) {
		return nil, errors.New("key of a TPM: there is more than a key")
	}
	return newKey(d, blob{*public, *private})
}
