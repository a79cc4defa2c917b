package tpm

import (
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// sealable says that a TSS2 key is sealed data (draft-bottomley-tpm2-keys).
var sealable = asn1.ObjectIdentifier{2, 23, 133, 10, 1, 5}

// sealing is the template of data that this chip alone opens.
func sealing() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
	}
}

// Seal makes of a secret of at most 128 bytes one (DER) that this chip alone
// opens, until it is cleared.
func (d *Device) Seal(secret []byte) (sealed []byte, err error) {
	err = d.use(func(t transport.TPM) error {
		parent, err := storage(t)
		if err != nil {
			return err
		}
		defer parent.flush(t)
		r, err := tpm2.Create{
			ParentHandle: tpm2.AuthHandle{Handle: parent.Handle, Name: parent.Name, Auth: tpm2.PasswordAuth(nil)},
			InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
				Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
			}},
			InPublic: tpm2.New2B(sealing()),
		}.Execute(t, veiled(parent, true))
		if err != nil {
			return fmt.Errorf("sealing: %w", err)
		}
		sealed, err = asn1.Marshal(tssKey{
			Type: sealable, EmptyAuth: true, Parent: int64(tpm2.TPMRHOwner),
			Public: tpm2.Marshal(r.OutPublic), Private: tpm2.Marshal(r.OutPrivate),
		})
		return err
	})
	return sealed, err
}

// Unseal opens what Seal sealed.
func (d *Device) Unseal(sealed []byte) (secret []byte, err error) {
	var s tssKey
	if rest, err := asn1.Unmarshal(sealed, &s); err != nil || len(rest) > 0 || !s.Type.Equal(sealable) || s.Parent != int64(tpm2.TPMRHOwner) {
		return nil, errors.New("this is not what a TPM sealed for this program")
	}
	public, err := tpm2.Unmarshal[tpm2.TPM2BPublic](s.Public)
	if err != nil {
		return nil, fmt.Errorf("sealed by a TPM: %w", err)
	}
	private, err := tpm2.Unmarshal[tpm2.TPM2BPrivate](s.Private)
	if err != nil {
		return nil, fmt.Errorf("sealed by a TPM: %w", err)
	}
	err = d.use(func(t transport.TPM) error {
		item, err := blob{*public, *private}.load(t)
		if err != nil {
			return err
		}
		defer item.flush(t)
		parent, err := storage(t)
		if err != nil {
			return err
		}
		defer parent.flush(t)
		r, err := tpm2.Unseal{
			ItemHandle: tpm2.AuthHandle{Handle: item.Handle, Name: item.Name, Auth: veiled(parent, false)},
		}.Execute(t)
		if err != nil {
			return fmt.Errorf("unsealing: %w", err)
		}
		secret = r.OutData.Buffer
		return nil
	})
	return secret, err
}

// veiled is a session that encrypts what is secret on the wires to the chip, for
// whoever listens there: with in what goes to it, or else what comes back.
func veiled(parent loaded, in bool) tpm2.Session {
	direction := tpm2.EncryptOut
	if in {
		direction = tpm2.EncryptIn
	}
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, direction), tpm2.Salted(parent.Handle, *parent.public))
}
