package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

func (s *session) registrationCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registration", Short: "App registrations: programs with credentials of their own, and audiences"}
	cmd.AddCommand(s.registrationCreate(), s.registrationShow(), s.registrationList(), s.registrationSet(), s.registrationDelete(),
		s.registrationCredentialCommand(), s.registrationRoleCommand())
	return cmd
}

// An application as Graph writes it.
type application struct {
	ID           innate.ObjectID     `json:"id"`
	Client       innate.ClientID     `json:"appId"`
	Name         string              `json:"displayName"`
	URIs         []string            `json:"identifierUris"`
	API          applicationAPI      `json:"api"`
	Roles        []appRole           `json:"appRoles"`
	GroupClaims  string              `json:"groupMembershipClaims,omitempty"`
	Secrets      []clientSecret      `json:"passwordCredentials"`
	Certificates []clientCertificate `json:"keyCredentials"`
}

// An applicationAPI is what an application is as an audience; nil is the usual.
type applicationAPI struct {
	TokenVersion *int    `json:"requestedAccessTokenVersion,omitempty"`
	SigningAlg   *string `json:"signingAlgorithm,omitempty"`
	OneTime      *bool   `json:"oneTimeAssertions,omitempty"`
}

func (s *session) registrationCreate() *cobra.Command {
	var uris []string
	var proof proofFlags
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make one, and its service principal", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			want := newApplication{Name: args[0], URIs: uris}
			if proof.certificate != "" {
				der, err := readCertificate(proof.certificate)
				if err != nil {
					return err
				}
				want.Certificates = []clientCertificate{{Key: der}}
			}
			a, err := register(cmd.Context(), c, want)
			if err != nil {
				return err
			}
			if proof.secret {
				made, err := addSecret(cmd.Context(), c, a.ID, clientSecret{})
				if err != nil {
					return fmt.Errorf("%s is there, without a secret ('innate registration credential add %s --secret' makes one): %w", a.Name, a.Client, err)
				}
				a.Secrets = []clientSecret{made}
				return s.say(a, "%s is there.\nclient id      %s\nclient secret  %s\nThe secret is shown this once.", a.Name, a.Client, made.Text)
			}
			text := fmt.Sprintf("%s is there; its client id is %s.", a.Name, a.Client)
			for _, k := range a.Certificates {
				text += "\n" + provedBy(a, k)
			}
			return s.say(a, "%s", text)
		}),
	}
	cmd.Flags().StringArrayVar(&uris, "uri", nil, "identifier `URI` that tokens can be asked for; may be repeated")
	proof.add(cmd)
	return cmd
}

// A newApplication is one to be made, as Graph takes it.
type newApplication struct {
	Name         string              `json:"displayName"`
	URIs         []string            `json:"identifierUris,omitempty"`
	Certificates []clientCertificate `json:"keyCredentials,omitempty"`
}

// register makes an app registration.
func register(ctx context.Context, c *admin.Client, want newApplication) (made application, err error) {
	err = c.Graph(ctx, http.MethodPost, "/v1.0/applications", want, &made)
	return made, err
}

func (s *session) registrationList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List them", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			all, err := graphPages[application](cmd.Context(), c, "/v1.0/applications")
			if err != nil {
				return err
			}
			var rows [][]string
			for _, a := range all {
				rows = append(rows, []string{a.Name, string(a.Client), string(a.ID)})
			}
			return s.print(all, "NAME CLIENT-ID OBJECT-ID", rows)
		}),
	}
}

func (s *session) registrationShow() *cobra.Command {
	return &cobra.Command{
		Use: "show REGISTRATION", Short: "Show one", Args: cobra.ExactArgs(1),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			return s.printRegistration(a)
		}),
	}
}

func (s *session) printRegistration(a application) error {
	var roles []string
	for _, r := range a.Roles {
		roles = append(roles, r.Value)
	}
	return s.print(a, "WHAT VALUE", [][]string{
		{"name", a.Name}, {"client id", string(a.Client)}, {"object id", string(a.ID)}, {"URIs", strings.Join(a.URIs, " ")},
		{"token version", a.API.tokenVersion()}, {"signing algorithm", a.API.signingAlg()},
		{"app roles", strings.Join(roles, " ")}, {"groups", onOff(a.GroupClaims != "")}, {"one-time assertions", onOff(a.API.OneTime != nil && *a.API.OneTime)},
		{"secrets", strconv.Itoa(len(a.Secrets))}, {"certificates", strconv.Itoa(len(a.Certificates))},
	})
}

func (a applicationAPI) tokenVersion() string {
	if a.TokenVersion == nil {
		return "1, the usual"
	}
	return strconv.Itoa(*a.TokenVersion)
}

func (a applicationAPI) signingAlg() string {
	if a.SigningAlg == nil {
		return "RS256, the usual"
	}
	return *a.SigningAlg
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// An applicationEdit is what is to be changed of an application; nil and "" leave it.
type applicationEdit struct {
	API         applicationAPI `json:"api,omitzero"`
	GroupClaims string         `json:"groupMembershipClaims,omitempty"`
}

// audienceFlags say what an application is as an audience, and how it proves itself.
type audienceFlags struct {
	version         int
	alg             string
	groups, oneTime bool
}

// edit is what the flags that were given say.
func (f audienceFlags) edit(cmd *cobra.Command) (e applicationEdit, err error) {
	given := cmd.Flags().Changed
	if given("token-version") {
		e.API.TokenVersion = &f.version
	}
	if given("signing-algorithm") {
		e.API.SigningAlg = &f.alg
	}
	if given("one-time-assertions") {
		e.API.OneTime = &f.oneTime
	}
	if given("groups") {
		e.GroupClaims = "None"
		if f.groups {
			e.GroupClaims = "SecurityGroup"
		}
	}
	if e == (applicationEdit{}) {
		return e, errors.New("say what to set: --token-version, --signing-algorithm, --groups or --one-time-assertions")
	}
	return e, nil
}

func (s *session) registrationSet() *cobra.Command {
	var want audienceFlags
	cmd := &cobra.Command{
		Use: "set REGISTRATION", Short: "Set what tokens for one are like, and how its assertions are taken", Args: cobra.ExactArgs(1),
		Long: `Sets what the tokens for a registration are like, from the next one on, and
whether the assertions of its program are good once or until they end.`,
		Example: "  innate registration set orders --token-version 2 --signing-algorithm ES256\n  innate registration set orders --groups",
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			edit, err := want.edit(cmd)
			if err != nil {
				return err
			}
			path := "/v1.0/applications/" + string(a.ID)
			if err := c.Graph(cmd.Context(), http.MethodPatch, path, edit, nil); err != nil {
				return err
			}
			var now application
			if err := c.Graph(cmd.Context(), http.MethodGet, path, nil, &now); err != nil {
				return err
			}
			return s.printRegistration(now)
		}),
	}
	cmd.Flags().IntVar(&want.version, "token-version", 0, "`1 or 2`: version of the tokens for it")
	cmd.Flags().StringVar(&want.alg, "signing-algorithm", "", "`RS256 or ES256`: how the tokens for it are signed")
	cmd.Flags().BoolVar(&want.groups, "groups", false, "tokens for it say which groups their holder is in; or =false")
	cmd.Flags().BoolVar(&want.oneTime, "one-time-assertions", false, "an assertion of its program is taken once only; or =false")
	return cmd
}

func (s *session) registrationDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete REGISTRATION", Short: "Delete one, its service principal and its grants", Args: cobra.ExactArgs(1),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			if err := c.Graph(cmd.Context(), http.MethodDelete, "/v1.0/applications/"+string(a.ID), nil, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"deleted": a.ID}, "%s is gone.", a.Name)
		}),
	}
}

// askingAbout is asking for a command whose first argument names a registration.
func (s *session) askingAbout(do func(cmd *cobra.Command, c *admin.Client, a application, args []string) error) func(*cobra.Command, []string) error {
	return s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
		a, err := findRegistration(cmd.Context(), c, args[0])
		if err != nil {
			return err
		}
		return do(cmd, c, a, args)
	})
}

// findRegistration finds an app registration by its name, client id or object id.
func findRegistration(ctx context.Context, c *admin.Client, name string) (application, error) {
	quoted := "'" + strings.ReplaceAll(name, "'", "''") + "'"
	filter := fmt.Sprintf("displayName eq %[1]s or appId eq %[1]s or id eq %[1]s", quoted)
	found, err := graphPages[application](ctx, c, "/v1.0/applications?$filter="+url.QueryEscape(filter))
	if err != nil {
		return application{}, err
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return application{}, fmt.Errorf("no app registration is called %q: 'innate registration list' lists them", name)
	}
	return application{}, fmt.Errorf("%d app registrations are called %q: say which by its client id", len(found), name)
}
