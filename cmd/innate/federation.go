package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"innate/admin"
)

func (s *session) federationCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "federation", Short: "Tokens of other issuers (GitHub, Kubernetes, SPIFFE) as proof of an identity",
		Long: `A federated credential lets the tokens of another issuer prove a user-assigned
identity or an app registration: a workload of GitHub Actions, Kubernetes, SPIFFE
or another platform like this one needs no secret then, and no agent.

Issuer, subject and audience are compared exactly. Only --match takes patterns:
  claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main' and claims['environment'] eq 'prod'
where * stands for any characters but ':' and '/', and all conditions must hold.`,
	}
	cmd.AddCommand(s.federationCreate(), s.federationList(), s.federationDelete(), s.federationTest())
	return cmd
}

// trustFlags say whose tokens are taken: an issuer's, and which of them.
type trustFlags struct {
	issuer, subject, match, audience string
	github                           string // ORG/REPO
	branch, environment, tag         string
	kubernetes, account              string // issuer, NAMESPACE/NAME
}

func (t *trustFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.issuer, "issuer", "", "`URL` of the issuer, exactly as in the tokens' iss")
	f.StringVar(&t.subject, "subject", "", "`sub` of the tokens, exactly")
	f.StringVar(&t.match, "match", "", "`expression` that the tokens' claims must satisfy, in the subject's place")
	f.StringVar(&t.audience, "audience", "api://AzureADTokenExchange", "`aud` of the tokens, exactly")
	f.StringVar(&t.github, "github", "", "`ORG/REPO` on GitHub, with --branch, --environment or --tag")
	f.StringVar(&t.branch, "branch", "", "`branch` that the workflow runs on")
	f.StringVar(&t.environment, "environment", "", "`environment` that the workflow's job is for")
	f.StringVar(&t.tag, "tag", "", "`tag` that the workflow runs on")
	f.StringVar(&t.kubernetes, "kubernetes", "", "`URL` of a Kubernetes cluster's issuer, with --service-account")
	f.StringVar(&t.account, "service-account", "", "`NAMESPACE/NAME` of the service account")
	cmd.MarkFlagsMutuallyExclusive("issuer", "github", "kubernetes")
	cmd.MarkFlagsMutuallyExclusive("subject", "match", "branch", "environment", "tag", "service-account")
}

const githubIssuer = "https://token.actions.githubusercontent.com"

var (
	repository = regexp.MustCompile(`^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$`)
	account    = regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9.-]+$`)
)

// credential is what the flags ask for.
func (t trustFlags) credential(name string) (federated, error) {
	c := federated{Name: name, Issuer: t.issuer, Subject: t.subject, Audiences: []string{t.audience}}
	switch {
	case t.github != "" && t.branch+t.environment+t.tag != "":
		if !repository.MatchString(t.github) {
			return c, fmt.Errorf("--github %q: want ORG/REPO", t.github)
		}
		c.Issuer, c.Subject = githubIssuer, "repo:"+t.github+":"+t.ref()
	case t.kubernetes != "" && t.account != "":
		if !account.MatchString(t.account) {
			return c, fmt.Errorf("--service-account %q: want NAMESPACE/NAME", t.account)
		}
		c.Issuer, c.Subject = t.kubernetes, "system:serviceaccount:"+strings.ReplaceAll(t.account, "/", ":")
	case t.issuer != "" && t.match != "":
		c.Matching = &matching{t.match, 1}
	case t.issuer == "" || t.subject == "":
		return c, errors.New("say whose tokens are taken: --issuer with --subject or --match, --github with --branch, --environment or --tag, or --kubernetes with --service-account")
	}
	return c, nil
}

// ref ends the subject of a GitHub workflow's tokens. GitHub writes a colon in a
// name as %3A, so that no name looks like more than one part.
func (t trustFlags) ref() string {
	switch {
	case t.branch != "":
		return "ref:refs/heads/" + t.branch
	case t.tag != "":
		return "ref:refs/tags/" + t.tag
	}
	return "environment:" + strings.ReplaceAll(t.environment, ":", "%3A")
}

func (s *session) federationCreate() *cobra.Command {
	var at holderFlags
	var trust trustFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Take an issuer's tokens as proof", Args: cobra.ExactArgs(1),
		Example: `  innate federation create main --identity build --github contoso/shop --branch main
  innate federation create web --identity web --kubernetes https://oidc.k8s.example.org --service-account shop/web
  innate federation create spire --registration orders --issuer https://spiffe.example.org --subject spiffe://example.org/orders`,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			want, err := trust.credential(args[0])
			if err != nil {
				return err
			}
			h, err := at.find(cmd.Context(), c)
			if err != nil {
				return err
			}
			made, err := h.create(cmd.Context(), want)
			if err != nil {
				return err
			}
			env := h.environment()
			return s.say(struct {
				federated
				Environment map[string]string `json:"environment"`
			}{made, env}, `%s is there: tokens of this issuer prove %s.
issuer    %s
%-9s %s
audience  %s

Set for the workload, with the file in which it finds its issuer's token:
AZURE_CLIENT_ID=%s
AZURE_TENANT_ID=%s
AZURE_AUTHORITY_HOST=%s
AZURE_FEDERATED_TOKEN_FILE=/path/to/token
and turn instance discovery off in its credential: DisableInstanceDiscovery.`,
				made.Name, h.name, made.Issuer, made.how(), made.what(), strings.Join(made.Audiences, " "),
				env["AZURE_CLIENT_ID"], env["AZURE_TENANT_ID"], env["AZURE_AUTHORITY_HOST"])
		}),
	}
	at.add(cmd)
	trust.add(cmd)
	return cmd
}

func (s *session) federationList() *cobra.Command {
	var at holderFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List whose tokens are taken as proof", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			h, err := at.find(cmd.Context(), c)
			if err != nil {
				return err
			}
			all, err := h.list(cmd.Context())
			if err != nil {
				return err
			}
			var rows [][]string
			for _, f := range all {
				rows = append(rows, []string{f.Name, f.Issuer, f.what(), strings.Join(f.Audiences, " ")})
			}
			return s.print(all, "NAME ISSUER SUBJECT-OR-MATCH AUDIENCE", rows)
		}),
	}
	at.add(cmd)
	return cmd
}

func (s *session) federationDelete() *cobra.Command {
	var at holderFlags
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Take an issuer's tokens no longer", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			h, err := at.find(cmd.Context(), c)
			if err != nil {
				return err
			}
			if err := h.delete(cmd.Context(), args[0]); err != nil {
				return err
			}
			return s.say(map[string]any{"deleted": args[0]}, "%s is gone: what it took proves %s no longer.", args[0], h.name)
		}),
	}
	at.add(cmd)
	return cmd
}
