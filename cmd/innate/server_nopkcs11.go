//go:build !pkcs11

package main

import (
	"github.com/spf13/cobra"

	"innate/seal"
)

// kinds are who may keep a master key: this build, without cgo, reaches no HSM.
const kinds = "file or tpm"

type token struct{}

func (token) flags(*cobra.Command)   {}
func (token) keepers() []seal.Keeper { return nil }
