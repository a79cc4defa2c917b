//go:build pkcs11

package main

import (
	"github.com/spf13/cobra"

	"innate/seal"
	"innate/seal/pkcs11"
)

// kinds are who may keep a master key.
const kinds = "file, tpm or pkcs11"

// A token is an HSM's, by PKCS #11.
type token struct{ pkcs11.Keeper }

func (t *token) flags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&t.Module, "pkcs11-module", "", "`path` of the library of the HSM that keeps the master key, if one does")
	flags.StringVar(&t.Token, "pkcs11-token", "innate", "`label` of the token in it")
	flags.StringVar(&t.Label, "pkcs11-key", "innate", "`label` of an AES key in the token")
	flags.StringVar(&t.PINFile, "pkcs11-pin-file", "", "`file` with the PIN of the token's user")
}

func (t *token) keepers() []seal.Keeper {
	if t.Module == "" {
		return nil
	}
	return []seal.Keeper{&t.Keeper}
}
