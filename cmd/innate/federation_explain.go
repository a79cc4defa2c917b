package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"innate/admin"
	"innate/tokens"
)

// maxAssertion bounds what is read of a token; the server takes less.
const maxAssertion = 1 << 20

// federationTest holds a token against federated credentials. It issues nothing.
func (s *session) federationTest() *cobra.Command {
	var at holderFlags
	cmd := &cobra.Command{
		Use: "test [FILE]", Short: "Say, clause by clause, why a token is taken as proof or is not",
		Long: `Reads a token from FILE, or from standard input, and holds it against the federated
credentials. Ends with 0 when one of them admits it, and with 1 when none does.
The token itself is never shown.`,
		Example: `  innate federation test --identity build token.jwt
  kubectl create token web -n shop --audience api://AzureADTokenExchange | innate federation test --identity web`,
		Args: cobra.MatchAll(cobra.MaximumNArgs(1), func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && strings.Count(args[0], ".") == 2 && strings.HasPrefix(args[0], "eyJ") {
				return errors.New("a token does not belong on a command line, where every process can read it: pipe it in, or name its file")
			}
			return nil
		}),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			assertion, err := s.assertion(args)
			if err != nil {
				return err
			}
			h, err := at.find(cmd.Context(), c)
			if err != nil {
				return err
			}
			var is tokens.Explanation
			if err := c.ARM(cmd.Context(), http.MethodPost, "/federation/test",
				map[string]any{"clientId": h.client, "assertion": assertion}, &is); err != nil {
				return err
			}
			if err := s.explain(is); err != nil {
				return err
			}
			if is.Verdict != tokens.Admitted {
				return exitCode(1)
			}
			return nil
		}),
	}
	at.add(cmd)
	return cmd
}

// assertion reads the token that is to be tested.
func (s *session) assertion(args []string) (string, error) {
	from := s.in
	if len(args) == 1 && args[0] != "-" {
		f, err := os.Open(args[0])
		if err != nil {
			return "", err
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxAssertion))
	return strings.TrimSpace(string(b)), err
}

// explain prints what held and what did not.
func (s *session) explain(is tokens.Explanation) error {
	var rows [][]string
	for _, credential := range is.Credentials {
		for _, clause := range credential.Clauses {
			holds := "no"
			if clause.Holds {
				holds = "yes"
			}
			rows = append(rows, []string{credential.Name, holds, plain(clause.Claim), plain(clause.Presented), string(clause.Operator), plain(clause.Wanted)})
		}
	}
	if s.output == "json" || len(rows) > 0 {
		if err := s.print(is, "CREDENTIAL HOLDS CLAIM PRESENTED OPERATOR WANTED", rows); err != nil {
			return err
		}
	}
	if s.output == "json" {
		return nil
	}
	if is.More > 0 {
		fmt.Fprintf(s.out, "and %d credentials that come less close\n", is.More)
	}
	if is.Keys != "" {
		fmt.Fprintf(s.out, "keys: %s\n", plain(is.Keys))
	}
	verdict := is.Verdict
	if is.Credential != "" {
		verdict += " by " + is.Credential
	}
	_, err := fmt.Fprintf(s.out, "%s: %s\n", verdict, plain(is.Why))
	return err
}

// plain is a text of a stranger's for a terminal, which must not obey it.
func plain(text string) string {
	if strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return strconv.Quote(text)
	}
	return text
}
