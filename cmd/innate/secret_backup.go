package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"innate/admin"
)

// mostBackup bounds what is read as one; a vault refuses less.
const mostBackup = 64 << 20

func (v *vaultSecrets) backup() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "backup NAME", Short: "Print a secret with all its versions, sealed: only this platform can open it", Args: cobra.ExactArgs(1),
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var b struct {
				Value string `json:"value"`
			}
			if err := v.ask(cmd, c, http.MethodPost, secretPath(args[0])+"/backup", nil, &b); err != nil {
				return err
			}
			if file == "" {
				return v.say(b, "%s", b.Value)
			}
			if err := writeOwn(file, b.Value+"\n"); err != nil {
				return err
			}
			return v.say(map[string]string{"name": args[0], "file": file}, "%s with all its versions is in %s.", args[0], file)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "write it to a `file` instead")
	return cmd
}

func (v *vaultSecrets) restore() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "restore", Short: "Bring back what 'backup' printed, from standard input or --file", Args: cobra.NoArgs,
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			in := v.in
			if file != "" {
				f, err := os.Open(file)
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			sealed, err := readUpTo(in, mostBackup)
			if err != nil {
				return fmt.Errorf("reading the backup: %w", err)
			}
			var b secretBundle
			if err := v.ask(cmd, c, http.MethodPost, "/secrets/restore", map[string]string{"value": strings.TrimSpace(sealed)}, &b); err != nil {
				return err
			}
			name, version := b.named()
			return v.say(b, "%s is back; its latest version is %s.", name, version)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "read it from a `file`")
	return cmd
}
