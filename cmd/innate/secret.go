package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"innate/admin"
)

func (s *session) vaultCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "vault", Short: "Vaults, which keep secrets"}
	var p placing
	create := &cobra.Command{
		Use: "create NAME", Short: "Make one", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return s.create(cmd.Context(), c, p, typeVault, args[0], map[string]any{"properties": map[string]any{
				"tenantId": c.Info.Tenant, "enableRbacAuthorization": true,
				"sku": map[string]string{"family": "A", "name": "standard"},
			}})
		}),
	}
	p.flags(create, false)
	cmd.AddCommand(create, s.listCommand(typeVault), s.showCommand(typeVault), s.deleteCommand(typeVault, "every secret in it, until it is recovered or purged"),
		s.vaultDeleted(), s.vaultRecover(), s.vaultPurge())
	return cmd
}

// A secretBundle is a secret as the vault answers it.
type secretBundle struct {
	ID          string `json:"id"`
	Value       string `json:"value,omitempty"`
	ContentType string `json:"contentType,omitempty"`
	Attributes  struct {
		Enabled bool  `json:"enabled"`
		Created int64 `json:"created"`
		Updated int64 `json:"updated"`
		Expires int64 `json:"exp,omitempty"`
	} `json:"attributes"`
}

func (b secretBundle) row() []string {
	u, err := url.Parse(b.ID)
	if err != nil {
		return []string{b.ID}
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	name, version := path.Base(u.Path), ""
	if len(parts) == 3 {
		name, version = parts[1], parts[2]
	}
	return []string{name, version, time.Unix(b.Attributes.Updated, 0).UTC().Format(time.RFC3339), fmt.Sprint(b.Attributes.Enabled)}
}

func (s *session) secretCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Secrets in a vault"}
	var vault, version, file string
	cmd.PersistentFlags().StringVar(&vault, "vault", "", "`name` of the vault")
	cmd.MarkPersistentFlagRequired("vault")
	verb := func(use, short string, args int, do func(cmd *cobra.Command, c *admin.Client, args []string) error) *cobra.Command {
		v := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(args), RunE: s.asking(do)}
		cmd.AddCommand(v)
		return v
	}

	set := verb("set NAME", "Store a new version; the value is read from standard input or --file, never from the command line", 1,
		func(cmd *cobra.Command, c *admin.Client, args []string) error {
			value, err := s.value(file)
			if err != nil {
				return err
			}
			var b secretBundle
			if err := c.Vault(cmd.Context(), vault, http.MethodPut, "/secrets/"+url.PathEscape(args[0]), map[string]string{"value": value}, &b); err != nil {
				return err
			}
			b.Value = ""
			return s.say(b, "%s has a new version, %s.", args[0], path.Base(b.ID))
		})
	set.Flags().StringVar(&file, "file", "", "read the value from a `file`, byte for byte")

	get := verb("get NAME", "Print a secret's value", 1, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		var b secretBundle
		if err := c.Vault(cmd.Context(), vault, http.MethodGet, "/secrets/"+url.PathEscape(args[0])+"/"+url.PathEscape(version), nil, &b); err != nil {
			return err
		}
		return s.say(b, "%s", b.Value)
	})
	get.Flags().StringVar(&version, "version", "", "an older `version`")

	verb("list", "List the secrets, without their values", 0, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		return s.secrets(cmd, c, vault, "/secrets")
	})
	verb("versions NAME", "List a secret's versions", 1, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		return s.secrets(cmd, c, vault, "/secrets/"+url.PathEscape(args[0])+"/versions")
	})
	verb("delete NAME", "Delete a secret; it can be recovered", 1, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		var b secretBundle
		if err := c.Vault(cmd.Context(), vault, http.MethodDelete, "/secrets/"+url.PathEscape(args[0]), nil, &b); err != nil {
			return err
		}
		return s.say(b, "%s is deleted; 'innate secret recover %s --vault %s' brings it back.", args[0], args[0], vault)
	})
	verb("recover NAME", "Bring a deleted secret back", 1, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		var b secretBundle
		if err := c.Vault(cmd.Context(), vault, http.MethodPost, "/deletedsecrets/"+url.PathEscape(args[0])+"/recover", nil, &b); err != nil {
			return err
		}
		return s.say(b, "%s is back.", args[0])
	})
	verb("purge NAME", "Remove a deleted secret for good", 1, func(cmd *cobra.Command, c *admin.Client, args []string) error {
		if err := c.Vault(cmd.Context(), vault, http.MethodDelete, "/deletedsecrets/"+url.PathEscape(args[0]), nil, nil); err != nil {
			return err
		}
		return s.say(map[string]any{"purged": args[0]}, "%s is gone for good.", args[0])
	})
	return cmd
}

// mostValue is more than a vault takes, so that its own refusal is what people read.
const mostValue = 64 << 10

// value reads a secret from a file, or from standard input with one final newline cut off.
func (s *session) value(file string) (string, error) {
	if file != "" {
		b, err := os.ReadFile(file)
		return string(b), err
	}
	if f, ok := s.in.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(s.diagnostics, "Type the value, then Ctrl-D. (It is shown as you type; use --file or a pipe where that matters.)")
		}
	}
	b, err := io.ReadAll(io.LimitReader(s.in, mostValue))
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), err
}

// secrets lists items of a vault, page by page.
func (s *session) secrets(cmd *cobra.Command, c *admin.Client, vault, from string) error {
	all := []secretBundle{}
	var rows [][]string
	for from != "" {
		var page struct {
			Value []secretBundle `json:"value"`
			Next  string         `json:"nextLink"`
		}
		if err := c.Vault(cmd.Context(), vault, http.MethodGet, from, nil, &page); err != nil {
			return err
		}
		for _, b := range page.Value {
			all, rows = append(all, b), append(rows, b.row())
		}
		from = ""
		if page.Next != "" {
			u, err := url.Parse(page.Next)
			if err != nil {
				return err
			}
			q := u.Query()
			q.Del("api-version")
			from = u.Path + "?" + q.Encode()
		}
	}
	return s.print(all, "NAME VERSION UPDATED ENABLED", rows)
}
