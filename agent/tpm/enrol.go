package tpm

import (
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// An Offer is what a host with a TPM shows first: who the chip is, and a key in
// it that will speak for it.
type Offer struct {
	Endorsement
	Attestation []byte // public area (TPMT_PUBLIC) of a restricted signing key, made for this one enrolment

	attestation blob
}

// A Challenge is what comes back: a secret that only this chip reads, and only
// if the attestation key is in it, and a nonce to put into what that key signs.
type Challenge struct {
	Credential []byte // TPMS_ID_OBJECT
	Encrypted  []byte // the seed that it is encrypted under
	Nonce      []byte
}

// A Proof answers a Challenge: the secret, and that Key is in the same chip.
type Proof struct {
	Secret    []byte
	Key       *Key   // new
	Area      []byte // its public area (TPMT_PUBLIC)
	Attest    []byte // TPMS_ATTEST of TPM2_Certify over it
	Signature []byte // of the attestation key over Attest, ASN.1
}

// Offer begins an enrolment. Nothing stays in the chip meanwhile.
func (d *Device) Offer() (o Offer, err error) {
	err = d.use(func(t transport.TPM) error {
		if o.Endorsement, err = endorsement(t); err != nil {
			return err
		}
		o.attestation, err = create(t, signing(true))
		o.Attestation = o.attestation.area()
		return err
	})
	return o, err
}

// Prove answers the challenge that an offer got.
func (d *Device) Prove(o Offer, c Challenge) (p Proof, err error) {
	err = d.use(func(t transport.TPM) error {
		attestation, err := o.attestation.load(t)
		if err != nil {
			return err
		}
		defer attestation.flush(t)
		if p.Secret, err = activate(t, attestation, c); err != nil {
			return err
		}
		own, err := create(t, signing(false))
		if err != nil {
			return err
		}
		if p.Key, err = newKey(d, own); err != nil {
			return err
		}
		p.Area = own.area()
		p.Attest, p.Signature, err = certify(t, own, attestation, c.Nonce)
		return err
	})
	return p, err
}

// activate reads the secret of a challenge.
func activate(t transport.TPM, attestation loaded, c Challenge) ([]byte, error) {
	ek, err := primary(t, tpm2.TPMRHEndorsement, tpm2.RSAEKTemplate)
	if err != nil {
		return nil, fmt.Errorf("making the endorsement key: %w", err)
	}
	defer ek.flush(t)
	r, err := tpm2.ActivateCredential{
		ActivateHandle: attestation.NamedHandle,
		KeyHandle:      tpm2.AuthHandle{Handle: ek.Handle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorsementPolicy)},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: c.Credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: c.Encrypted},
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("reading the challenge, which is for another TPM or another key: %w", err)
	}
	return r.CertInfo.Buffer, nil
}

// endorsementPolicy is the one that the standard template asks for: whoever may
// use the endorsement hierarchy may use the key.
func endorsementPolicy(t transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(t)
	return err
}

// certify makes the attestation key state that a key is in this chip.
func certify(t transport.TPM, own blob, by loaded, nonce []byte) (attest, signature []byte, err error) {
	key, err := own.load(t)
	if err != nil {
		return nil, nil, err
	}
	defer key.flush(t)
	r, err := tpm2.Certify{
		ObjectHandle: key.NamedHandle, SignHandle: by.NamedHandle,
		QualifyingData: tpm2.TPM2BData{Buffer: nonce},
	}.Execute(t)
	if err != nil {
		return nil, nil, fmt.Errorf("certifying the key: %w", err)
	}
	signature, err = ecdsaSignature(r.Signature)
	return r.CertifyInfo.Bytes(), signature, err
}
