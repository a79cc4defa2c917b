package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
	"innate/audit"
)

// servicesCommand lists what takes a managed identity.
func (s *session) servicesCommand() *cobra.Command {
	return &cobra.Command{
		Use: "services", Short: "List what takes a managed identity, and which resource to ask a token for", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var all []struct {
				Name string          `json:"name"`
				ID   innate.ClientID `json:"appId"`
				URIs []string        `json:"resources"`
			}
			if err := c.Get(cmd.Context(), "/services", &all); err != nil {
				return err
			}
			var rows [][]string
			for _, f := range all {
				for _, u := range f.URIs {
					rows = append(rows, []string{f.Name, u})
				}
			}
			return s.print(all, "SERVICE RESOURCE", rows)
		}),
	}
}

// platformCommand says what a client must know of the platform.
func (s *session) platformCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "platform", Short: "Show the platform's addresses and ids, and the authority that its certificates come from", Args: cobra.NoArgs,
		Example: "  innate platform ca > /usr/local/share/ca-certificates/innate.crt && update-ca-certificates",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			i := c.Info
			return s.print(i, "WHAT VALUE", [][]string{
				{"tenant", string(i.Tenant)}, {"subscription", i.Subscription}, {"domain", i.Domain},
				{"sign-in", i.Login}, {"management", i.Management}, {"graph", i.Graph}, {"hosts", i.Hosts},
				{"vaults", "https://NAME." + i.VaultSuffix},
			})
		}),
	}
	cmd.AddCommand(&cobra.Command{
		Use: "ca", Short: "Print the authority's certificate, PEM: what clients must trust", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return s.say(map[string]string{"ca": c.Info.CA}, "%s", strings.TrimSpace(c.Info.CA))
		}),
	})
	return cmd
}

// auditCommand reads the log of decisions.
func (s *session) auditCommand() *cobra.Command {
	var last int
	var action, who, target, from, trace, correlation string
	var refused bool
	cmd := &cobra.Command{
		Use: "audit", Short: "Read the log of what was decided", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			q := url.Values{
				"last": {fmt.Sprint(last)}, "action": {action}, "principal": {who}, "target": {target},
				"from": {from}, "trace": {trace}, "correlation": {correlation}, "refused": {fmt.Sprint(refused)},
			}
			var page struct {
				Value []audit.Event `json:"value"`
			}
			if err := c.Get(cmd.Context(), "/audit?"+q.Encode(), &page); err != nil {
				return err
			}
			var rows [][]string
			for _, ev := range page.Value {
				decision := "allowed"
				if !ev.Allowed {
					decision = "refused"
				}
				name := ev.Name
				if name == "" {
					name = string(ev.Principal)
				}
				by := "server"
				if ev.From != "" {
					by = innate.ResourceID(ev.From).Name()
				}
				rows = append(rows, []string{ev.Time.UTC().Format(time.RFC3339), by, decision, name, ev.Action, ev.Target, ev.Why})
			}
			return s.print(page.Value, "TIME RECORDED-BY DECISION WHO ACTION TARGET WHY", rows)
		}),
	}
	f := cmd.Flags()
	f.IntVar(&last, "last", 30, "how `many` of the newest")
	f.StringVar(&action, "action", "", "only actions with this `part` in their name")
	f.StringVar(&who, "who", "", "only of `who`: a part of the name or object id")
	f.StringVar(&target, "target", "", "only at a `target` with this part in it")
	f.StringVar(&from, "from", "", "only what a `machine`'s agent, or a PostgreSQL server's gateway, recorded: a part of its name or id; 'server': only what neither did")
	f.StringVar(&trace, "trace", "", "only the request with this trace `id`, which every refused one was told")
	f.StringVar(&correlation, "correlation", "", "only requests with this correlation `id`, which their client chose")
	f.BoolVar(&refused, "refused", false, "only refusals")
	return cmd
}

// tokenCommand shows what a token says.
func (s *session) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens, from inside a workload"}
	var resource, client string
	show := &cobra.Command{
		Use: "show", Short: "Ask the local endpoint for a token and print its claims, never the token",
		Long: `Asks the endpoint that this process would be given a token by, and prints the
claims. With IDENTITY_ENDPOINT and IDENTITY_HEADER in the environment (under
'innate run') that is the app's endpoint, else it is 169.254.169.254, which is
only asked with --imds. A token on standard input is decoded instead with "-".`,
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "-" {
				return errors.New("a token does not belong on a command line, where every process can read it: pipe it in, and say -")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			imds, _ := cmd.Flags().GetBool("imds")
			var token string
			if len(args) == 1 {
				b, err := io.ReadAll(io.LimitReader(s.in, mostValue))
				if err != nil {
					return err
				}
				token = strings.TrimSpace(string(b))
			} else {
				req, err := tokenRequest(resource, client, imds)
				if err != nil {
					return err
				}
				var status int
				if token, status, err = answerOf(req.WithContext(cmd.Context())); status != 0 && err != nil {
					return fmt.Errorf("%d %s: %w", status, http.StatusText(status), err)
				} else if err != nil {
					return err
				}
			}
			claims, err := decodeClaims(token)
			if err != nil {
				return err
			}
			return s.print(claims, "CLAIM VALUE", claimRows(claims))
		},
	}
	show.Flags().StringVar(&resource, "resource", "https://management.azure.com", "what the token is `for`; 'innate services' lists them")
	show.Flags().StringVar(&client, "client-id", "", "which user-assigned `identity`")
	show.Flags().Bool("imds", false, "ask 169.254.169.254, as a VM does")
	cmd.AddCommand(show)
	return cmd
}

// decodeClaims reads a token's payload. Nothing is verified: this is for people to look at.
func decodeClaims(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("that is no token: want three parts with dots between")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("the token's payload: %w", err)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var claims map[string]any
	if err := d.Decode(&claims); err != nil {
		return nil, fmt.Errorf("the token's payload: %w", err)
	}
	return claims, nil
}

// claimRows lists claims by name, times also in words.
func claimRows(claims map[string]any) [][]string {
	var rows [][]string
	for k, v := range claims {
		text := fmt.Sprint(v)
		if n, ok := v.(json.Number); ok && (k == "iat" || k == "nbf" || k == "exp") {
			if sec, err := n.Int64(); err == nil {
				text += " (" + time.Unix(sec, 0).UTC().Format(time.RFC3339) + ")"
			}
		}
		rows = append(rows, []string{k, text})
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i][0] < rows[j][0] })
	return rows
}
