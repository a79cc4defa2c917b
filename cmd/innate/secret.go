package main

import (
	"fmt"
	"net/http"
	"net/url"
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

// A vaultSecrets is the commands about the secrets of one vault.
type vaultSecrets struct {
	*session
	vault string // its name
}

func (s *session) secretCommand() *cobra.Command {
	v := &vaultSecrets{session: s}
	cmd := &cobra.Command{
		Use: "secret", Short: "Secrets in a vault",
		Long: `Secrets in a vault.

A value is read from standard input or a file, never from the command line,
where every process of the machine could read it, and is not shown as it is
typed. Only 'get' prints one.`,
	}
	cmd.PersistentFlags().StringVar(&v.vault, "vault", "", "`name` of the vault")
	cmd.MarkPersistentFlagRequired("vault")
	cmd.AddCommand(v.set(), v.get(), v.list(), v.versions(), v.update(), v.delete(), v.recover(), v.purge(), v.backup(), v.restore(), v.diff(), v.watch())
	return cmd
}

// ask sends a request to the vault.
func (v *vaultSecrets) ask(cmd *cobra.Command, c *admin.Client, method, path string, in, out any) error {
	return c.Vault(cmd.Context(), v.vault, method, path, in, out)
}

// A secretBundle is a secret as the vault answers it.
type secretBundle struct {
	ID          string            `json:"id"`
	Value       string            `json:"value,omitempty"`
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Attributes  struct {
		Enabled bool  `json:"enabled"`
		Created int64 `json:"created"`
		Updated int64 `json:"updated"`
		Expires int64 `json:"exp,omitempty"`
	} `json:"attributes"`
	Deleted int64 `json:"deletedDate,omitempty"`
	Purge   int64 `json:"scheduledPurgeDate,omitempty"`
}

// named are the name and the version in the id; a list of secrets has no version.
func (b secretBundle) named() (name, version string) {
	u, err := url.Parse(b.ID)
	if err != nil {
		return b.ID, ""
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) == 3 {
		return parts[1], parts[2]
	}
	return path.Base(u.Path), ""
}

// when writes seconds since 1970; 0 is never.
func when(seconds int64) string {
	if seconds == 0 {
		return ""
	}
	return time.Unix(seconds, 0).UTC().Format(time.RFC3339)
}

func secretPath(name string) string  { return "/secrets/" + url.PathEscape(name) }
func deletedPath(name string) string { return "/deletedsecrets/" + url.PathEscape(name) }

// one takes a secret's name and nothing after it: what people put there is the value.
func one(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("'%s' takes a name and no more; a value comes by standard input or --file, for every process of the machine can read a command line", cmd.CommandPath())
	}
	return cobra.ExactArgs(1)(cmd, args)
}

func (v *vaultSecrets) set() *cobra.Command {
	var file string
	var about about
	cmd := &cobra.Command{
		Use: "set NAME", Short: "Store a new version; the value comes by standard input or --file", Args: one,
		Example: "  pwgen 32 1 | innate secret set db-password --vault kv1\n  innate secret set tls-key --vault kv1 --file key.pem --expires 2027-01-31",
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			body, err := about.body(cmd)
			if err != nil {
				return err
			}
			if body["value"], err = v.value(cmd.Context(), file); err != nil {
				return err
			}
			var b secretBundle
			if err := v.ask(cmd, c, http.MethodPut, secretPath(args[0]), body, &b); err != nil {
				return err
			}
			b.Value = ""
			name, version := b.named()
			return v.say(b, "%s has a new version, %s.", name, version)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "read the value from a `file`, byte for byte")
	about.flags(cmd)
	return cmd
}

func (v *vaultSecrets) get() *cobra.Command {
	var version, file string
	cmd := &cobra.Command{
		Use: "get NAME", Short: "Print a secret's value", Args: cobra.ExactArgs(1),
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			b, err := v.read(cmd, c, args[0], version)
			if err != nil {
				return err
			}
			if file == "" {
				return v.say(b, "%s", b.Value)
			}
			if err := writeOwn(file, b.Value); err != nil {
				return err
			}
			b.Value = ""
			return v.say(b, "%s is in %s, which only you can read.", args[0], file)
		}),
	}
	cmd.Flags().StringVar(&version, "version", "", "an older `version`")
	cmd.Flags().StringVar(&file, "file", "", "write the value to a `file` that only you can read, byte for byte, instead")
	return cmd
}

// read gets a version with its value; an empty version is the latest.
func (v *vaultSecrets) read(cmd *cobra.Command, c *admin.Client, name, version string) (b secretBundle, err error) {
	err = v.ask(cmd, c, http.MethodGet, secretPath(name)+"/"+url.PathEscape(version), nil, &b)
	return b, err
}

func (v *vaultSecrets) update() *cobra.Command {
	var version string
	var enabled bool
	var about about
	cmd := &cobra.Command{
		Use: "update NAME", Short: "Change what stands beside a value, or take a version out of use", Args: cobra.ExactArgs(1),
		Example: "  innate secret update db-password --vault kv1 --enabled=false\n  innate secret update db-password --vault kv1 --tag owner=shop --tag stage=live",
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			body, err := about.body(cmd)
			if err != nil {
				return err
			}
			if cmd.Flags().Changed("enabled") {
				attributes(body)["enabled"] = enabled
			}
			if len(body) == 0 {
				return fmt.Errorf("nothing to change: '%s --help' lists what can be", cmd.CommandPath())
			}
			to := secretPath(args[0])
			if version != "" {
				to += "/" + url.PathEscape(version)
			}
			var b secretBundle
			if err := v.ask(cmd, c, http.MethodPatch, to, body, &b); err != nil {
				return err
			}
			name, changed := b.named()
			return v.say(b, "Version %s of %s is changed.", changed, name)
		}),
	}
	cmd.Flags().StringVar(&version, "version", "", "an older `version`")
	cmd.Flags().BoolVar(&enabled, "enabled", true, "whether the version can be read")
	about.flags(cmd)
	return cmd
}

func (v *vaultSecrets) delete() *cobra.Command {
	return v.simple("delete NAME", "Delete a secret with all its versions; it can be recovered", func(cmd *cobra.Command, c *admin.Client, name string) error {
		var b secretBundle
		if err := v.ask(cmd, c, http.MethodDelete, secretPath(name), nil, &b); err != nil {
			return err
		}
		return v.say(b, "%s is deleted; until %s 'innate secret recover %s --vault %s' brings it back.", name, when(b.Purge), name, v.vault)
	})
}

func (v *vaultSecrets) recover() *cobra.Command {
	return v.simple("recover NAME", "Bring a deleted secret back", func(cmd *cobra.Command, c *admin.Client, name string) error {
		var b secretBundle
		if err := v.ask(cmd, c, http.MethodPost, deletedPath(name)+"/recover", nil, &b); err != nil {
			return err
		}
		return v.say(b, "%s is back.", name)
	})
}

func (v *vaultSecrets) purge() *cobra.Command {
	return v.simple("purge NAME", "Remove a deleted secret for good", func(cmd *cobra.Command, c *admin.Client, name string) error {
		if err := v.ask(cmd, c, http.MethodDelete, deletedPath(name), nil, nil); err != nil {
			return err
		}
		return v.say(map[string]any{"purged": name}, "%s is gone for good.", name)
	})
}

// simple is a command about one secret, without flags.
func (v *vaultSecrets) simple(use, short string, do func(cmd *cobra.Command, c *admin.Client, name string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error { return do(cmd, c, args[0]) }),
	}
}

// about is the flags for what stands beside a value.
type about struct {
	contentType, expires string
	tags                 map[string]string
}

func (a *about) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.contentType, "content-type", "", "`word` for what the value is, such as application/x-pem-file")
	cmd.Flags().StringToStringVar(&a.tags, "tag", nil, "`NAME=VALUE` of a tag; may be repeated, and replaces all there were")
	cmd.Flags().StringVar(&a.expires, "expires", "", "`date` after which it should not be used, such as 2027-01-31 or 2027-01-31T12:00:00Z; only a mark, as in Azure: the vault goes on answering")
}

// body is a request's with what was said.
func (a *about) body(cmd *cobra.Command) (map[string]any, error) {
	body := map[string]any{}
	if cmd.Flags().Changed("content-type") {
		body["contentType"] = a.contentType
	}
	if cmd.Flags().Changed("tag") {
		body["tags"] = a.tags
	}
	if a.expires != "" {
		at, err := readDate("expires", a.expires)
		if err != nil {
			return nil, err
		}
		attributes(body)["exp"] = at.Unix()
	}
	return body, nil
}

// readDate reads the value of a flag that is a day, which begins at midnight UTC, or a time.
func readDate(flag, text string) (time.Time, error) {
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		at, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		return at, fmt.Errorf("--%s %q: want a date such as 2027-01-31, or 2027-01-31T12:00:00Z", flag, text)
	}
	return at, nil
}

// attributes are those of a request's body.
func attributes(body map[string]any) map[string]any {
	a, ok := body["attributes"].(map[string]any)
	if !ok {
		a = map[string]any{}
		body["attributes"] = a
	}
	return a
}
