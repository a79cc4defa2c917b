package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"innate/admin"
)

// A signingKey is a key of the token service as /keys lists it.
type signingKey struct {
	ID        string    `json:"kid"`
	Alg       string    `json:"alg"`
	State     string    `json:"state"`
	Published time.Time `json:"published"`
	Active    time.Time `json:"active"`
	Retired   time.Time `json:"retired,omitzero"`
	Until     time.Time `json:"until,omitzero"`
}

// signingKeys is a page of them; there is one.
type signingKeys struct {
	Value []signingKey `json:"value"`
}

func (s *session) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "The keys that tokens are signed with",
		Long: `Tokens are signed with a key of the platform's, one for each algorithm. A key
signs for 30 days; the next is published a day before, so that whoever verifies
tokens has it by then, and the old one stays published until two days after, when
every token that it signed has ended. The server does all that by itself.`,
	}
	cmd.AddCommand(s.keyList(), s.keyRoll())
	return cmd
}

func (s *session) keyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys: next, signing, verifying or withdrawn, and until when", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var all signingKeys
			if err := c.Get(cmd.Context(), "/keys", &all); err != nil {
				return err
			}
			return s.printKeys(all)
		}),
	}
}

func (s *session) keyRoll() *cobra.Command {
	var compromised bool
	cmd := &cobra.Command{
		Use: "roll", Short: "Sign with new keys at once", Args: cobra.NoArgs,
		Long: `Makes new keys, which are published and sign at once. No token stops working:
the old keys verify what they have signed until that has ended.

With --compromised the old keys are withdrawn. Every token that they signed is
refused within a second by vaults, gateways and services that hear revocations,
and elsewhere as soon as the service reads the published keys again. Agents get
new tokens when asked; a program that keeps a token of its own goes on with it,
and is refused, until it asks again or is restarted.`,
		Example: "  innate key roll --compromised",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			var all signingKeys
			if err := c.ARM(cmd.Context(), http.MethodPost, "/keys/roll", map[string]bool{"compromised": compromised}, &all); err != nil {
				return err
			}
			return s.printKeys(all)
		}),
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "someone else may have a key: withdraw the old ones and end every token")
	return cmd
}

func (s *session) printKeys(all signingKeys) error {
	var rows [][]string
	for _, k := range all.Value {
		rows = append(rows, []string{k.ID, k.Alg, k.State, stamp(k.Published), stamp(k.Active), stamp(k.Until)})
	}
	return s.print(all.Value, "KID ALG STATE PUBLISHED SIGNS-FROM UNTIL", rows)
}
