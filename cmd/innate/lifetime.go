package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"innate/admin"
	"innate/tokens"
)

func (s *session) lifetimeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "lifetime", Short: "How long tokens are good",
		Long: `How long tokens are good, from 10m to 24h.

A lifetime can be set for an audience (a service that tokens are for), for an
identity (a program that asks for them) and for the tenant. A token gets that of
its audience or of its identity, and of both the shorter. Where neither is set
it gets that of the tenant, and else one hour.

A change is for tokens issued after it. Those that are out end when they say:
to end them before, disable the identity or delete it.`,
	}
	cmd.AddCommand(s.lifetimeList(), s.lifetimeSet(), s.lifetimeClear())
	return cmd
}

func (s *session) lifetimeList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List what is set, and what holds where nothing is", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var page struct {
				Value []tokens.Lifetime `json:"value"`
				Usual tokens.Life       `json:"usual"`
			}
			if err := c.Get(cmd.Context(), "/lifetimes", &page); err != nil {
				return err
			}
			var rows [][]string
			for _, l := range page.Value {
				rows = append(rows, []string{l.Of, l.Name, l.ID, short(l.Life)})
			}
			rows = append(rows, []string{"otherwise", "", "", short(page.Usual)})
			return s.print(page, "OF NAME ID LIFETIME", rows)
		}),
	}
}

func (s *session) lifetimeSet() *cobra.Command {
	var of lifetimeFlags
	cmd := &cobra.Command{
		Use: "set DURATION", Short: "Set it: of the tenant, or of one audience or identity", Args: cobra.ExactArgs(1),
		Example: "  innate lifetime set 30m\n  innate lifetime set 10m --audience https://vault.azure.net\n  innate lifetime set 8h --identity nightly-report",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil || d <= 0 || d%time.Second != 0 {
				return fmt.Errorf("%q is no lifetime: want hours, minutes or whole seconds, such as 8h, 30m or 1h30m", args[0])
			}
			path, err := of.path(cmd, c)
			if err != nil {
				return err
			}
			var l tokens.Lifetime
			iso := fmt.Sprintf("PT%dS", d/time.Second)
			if err := c.ARM(cmd.Context(), http.MethodPut, path, map[string]string{"lifetime": iso}, &l); err != nil {
				return err
			}
			return s.say(l, "New tokens %s are good for %s.", of, short(l.Life))
		}),
	}
	of.add(cmd)
	return cmd
}

func (s *session) lifetimeClear() *cobra.Command {
	var of lifetimeFlags
	cmd := &cobra.Command{
		Use: "clear", Short: "Set it no longer: of the tenant, or of one audience or identity", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			path, err := of.path(cmd, c)
			if err != nil {
				return err
			}
			if err := c.ARM(cmd.Context(), http.MethodDelete, path, nil, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"cleared": true}, "No lifetime is set for tokens %s.", of)
		}),
	}
	of.add(cmd)
	return cmd
}

// lifetimeFlags say what a lifetime is of; without either it is the tenant's.
type lifetimeFlags struct{ audience, identity string }

func (f *lifetimeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.audience, "audience", "", "of tokens for this service: its `URI` or app id; 'innate services' lists them")
	cmd.Flags().StringVar(&f.identity, "identity", "", "of tokens of `who`: the name of a VM, app, identity or app registration, or an object id")
	cmd.MarkFlagsMutuallyExclusive("audience", "identity")
}

// path is where the server has that lifetime.
func (f *lifetimeFlags) path(cmd *cobra.Command, c *admin.Client) (string, error) {
	for _, flag := range []string{"audience", "identity"} {
		// A script's empty variable must not come to mean the tenant.
		if given := cmd.Flag(flag); given.Changed && given.Value.String() == "" {
			return "", fmt.Errorf("--%s is empty: leave it away to mean the tenant", flag)
		}
	}
	switch {
	case f.audience != "":
		return "/lifetimes/" + tokens.OfAudience + "?of=" + url.QueryEscape(f.audience), nil
	case f.identity != "":
		id, err := c.Identity(cmd.Context(), f.identity)
		return "/lifetimes/" + tokens.OfIdentity + "?of=" + string(id), err
	}
	return "/lifetimes/" + tokens.OfTenant, nil
}

// String says of which tokens, in the words of a sentence.
func (f lifetimeFlags) String() string {
	switch {
	case f.audience != "":
		return "for " + f.audience
	case f.identity != "":
		return "of " + f.identity
	}
	return "of the tenant"
}

// short is a life as people type it: 30m, not 30m0s.
func short(l tokens.Life) string {
	text := time.Duration(l).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
