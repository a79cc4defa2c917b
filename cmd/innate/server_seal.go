package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"innate/admin"
	"innate/agent/tpm"
	"innate/seal"
)

// keepers are who may keep a master key on this machine, beside a file.
type keepers struct {
	tpm   string
	token token
}

func (k *keepers) flags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&k.tpm, "tpm-device", tpm.DefaultDevice, "`path` of the TPM that keeps the master key, if one does")
	k.token.flags(cmd)
}

func (k *keepers) all() []seal.Keeper { return append(k.token.keepers(), tpmKeeper(k.tpm)) }

// A tpmKeeper keeps a master key in the TPM at that path.
type tpmKeeper string

func (tpmKeeper) Name() string { return "tpm" }

// Keep seals the key to the chip.
func (k tpmKeeper) Keep(key []byte) ([]byte, error) {
	d, err := tpm.Find(string(k))
	if err != nil {
		return nil, err
	}
	return d.Seal(key)
}

// Key asks the chip for it.
func (k tpmKeeper) Key(kept []byte) ([]byte, error) {
	d, err := tpm.Find(string(k))
	if err != nil {
		return nil, err
	}
	return d.Unseal(kept)
}

// named finds a keeper; nil is the file.
func (k *keepers) named(name string) (seal.Keeper, error) {
	if name == seal.InFile {
		return nil, nil
	}
	names := []string{seal.InFile}
	for _, one := range k.all() {
		if one.Name() == name {
			return one, nil
		}
		names = append(names, one.Name())
	}
	return nil, fmt.Errorf("--seal %q: want one of %s", name, strings.Join(names, ", "))
}

func (s *session) serverReseal() *cobra.Command {
	var in string
	cmd := &cobra.Command{
		Use: "reseal", Short: "Replace the master key, while the server serves", Args: cobra.NoArgs,
		Long: `Makes a new master key, seals all that the old one seals again in one
transaction, and puts the new key's file in the place of the old. Nothing stops
meanwhile, and what stops it half-way loses nothing: the next start goes on.

With the old key alone, or with a copy of the store from before and the new key
alone, nobody reads a secret. Who has both the old key and a copy of the store
from before has what was in it: put new values in their place.`,
		Example: "  innate server reseal --in tpm",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var now struct {
				In string `json:"in"`
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, "/seal/reseal", map[string]string{"in": in}, &now); err != nil {
				return err
			}
			return s.say(now, "The master key is a new one, kept by: %s. Copies of the old one open nothing that is written from now on.", now.In)
		}),
	}
	cmd.Flags().StringVar(&in, "in", seal.InFile, "who shall `keep` the new key: "+kinds)
	return cmd
}
