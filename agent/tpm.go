package agent

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"fmt"
	"path/filepath"

	"innate/agent/tpm"
)

// JoinTPM joins with the TPM at device as the proof of which host this is; the
// host's key is made in it. The join string's token, if there is one, says which
// machine a TPM is that the operator did not allow by its own hash, but by its vendor.
func JoinTPM(ctx context.Context, dir, join, device string) error {
	t, err := parseTicket(join)
	if err != nil {
		return err
	}
	if device, err = filepath.Abs(device); err != nil {
		return err
	}
	chip, err := tpm.Find(device)
	if err != nil {
		return err
	}
	if err := ownFolder(dir); err != nil {
		return err
	}
	key, g, err := enrol(ctx, t, chip)
	if err != nil {
		return err
	}
	return t.keep(dir, g, key, device)
}

// enrol makes a key in the TPM and gets its certificate, by credential
// activation (host-attestation §6).
func enrol(ctx context.Context, t ticket, chip *tpm.Device) (*tpm.Key, grant, error) {
	offer, err := chip.Offer()
	if err != nil {
		return nil, grant{}, err
	}
	var c struct {
		Challenge, Credential, Encrypted, Nonce []byte
	}
	ask := t.asker()
	if err := ask.post(ctx, "/v1/tpm/challenge", map[string]any{
		"ek": offer.Key, "certificate": offer.Certificate, "ak": offer.Attestation, "token": t.token,
	}, &c); err != nil {
		return nil, grant{}, fmt.Errorf("joining at %s: %w", t.address, err)
	}
	proof, err := chip.Prove(offer, tpm.Challenge{Credential: c.Credential, Encrypted: c.Encrypted, Nonce: c.Nonce})
	if err != nil {
		return nil, grant{}, err
	}
	var g grant
	if err := ask.post(ctx, "/v1/tpm/join", map[string]any{
		"challenge": c.Challenge, "secret": proof.Secret, "key": proof.Area, "attest": proof.Attest, "signature": proof.Signature,
	}, &g); err != nil {
		return nil, grant{}, fmt.Errorf("joining at %s: %w", t.address, err)
	}
	return proof.Key, g, nil
}

// useDaily goes on with a key in memory, and keeps the next certificate of the
// one in the TPM.
func (a *Agent) useDaily(key *ecdsa.PrivateKey, g grant) error {
	daily, err := keyPair(key, g.Daily)
	if err != nil {
		return err
	}
	chip, err := keyPair(a.upstream.chip.PrivateKey.(crypto.Signer), g.Certificate)
	if err != nil {
		return err
	}
	if err := writeState(a.config.State, a.machine, chip); err != nil {
		return err
	}
	a.upstream.chip = chip
	a.upstream.use(daily)
	return nil
}
