package main

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"innate/admin"
)

func (v *vaultSecrets) list() *cobra.Command {
	var deleted bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the secrets, without their values", Args: cobra.NoArgs,
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			if deleted {
				return v.listDeleted(cmd, c)
			}
			all, err := v.pages(cmd, c, "/secrets")
			if err != nil {
				return err
			}
			var rows [][]string
			for _, b := range all {
				name, _ := b.named()
				rows = append(rows, []string{name, when(b.Attributes.Updated), fmt.Sprint(b.Attributes.Enabled), when(b.Attributes.Expires)})
			}
			return v.print(all, "NAME UPDATED ENABLED EXPIRES", rows)
		}),
	}
	cmd.Flags().BoolVar(&deleted, "deleted", false, "those that were deleted and can be recovered")
	return cmd
}

func (v *vaultSecrets) listDeleted(cmd *cobra.Command, c *admin.Client) error {
	all, err := v.pages(cmd, c, "/deletedsecrets")
	if err != nil {
		return err
	}
	var rows [][]string
	for _, b := range all {
		name, _ := b.named()
		rows = append(rows, []string{name, when(b.Deleted), when(b.Purge)})
	}
	return v.print(all, "NAME DELETED RECOVERABLE-UNTIL", rows)
}

func (v *vaultSecrets) versions() *cobra.Command {
	return v.simple("versions NAME", "List a secret's versions, oldest first", func(cmd *cobra.Command, c *admin.Client, name string) error {
		all, err := v.pages(cmd, c, secretPath(name)+"/versions")
		if err != nil {
			return err
		}
		var rows [][]string
		for _, b := range all {
			name, version := b.named()
			rows = append(rows, []string{name, version, when(b.Attributes.Created), fmt.Sprint(b.Attributes.Enabled), when(b.Attributes.Expires)})
		}
		return v.print(all, "NAME VERSION CREATED ENABLED EXPIRES", rows)
	})
}

// pages reads a list of the vault's to its end.
func (v *vaultSecrets) pages(cmd *cobra.Command, c *admin.Client, from string) ([]secretBundle, error) {
	all := []secretBundle{}
	for from != "" {
		var page struct {
			Value []secretBundle `json:"value"`
			Next  string         `json:"nextLink"`
		}
		if err := v.ask(cmd, c, http.MethodGet, from, nil, &page); err != nil {
			return nil, err
		}
		all, from = append(all, page.Value...), ""
		if page.Next != "" {
			u, err := url.Parse(page.Next)
			if err != nil {
				return nil, err
			}
			q := u.Query()
			q.Del("api-version") // which the client adds
			from = u.Path + "?" + q.Encode()
		}
	}
	return all, nil
}
