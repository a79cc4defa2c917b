package main

import (
	"context"
	"net/http"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

func (s *session) registrationCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registration", Short: "App registrations: programs with credentials of their own, and audiences"}
	var uris []string
	var secret bool
	create := &cobra.Command{
		Use: "create NAME", Short: "Make one, and its service principal", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			r, err := register(cmd.Context(), c, args[0], uris)
			if err != nil {
				return err
			}
			if secret {
				if r.Secret, err = addSecret(cmd.Context(), c, r.Object, ""); err != nil {
					return err
				}
				return s.say(r, "%s is there.\nclient id      %s\nclient secret  %s\nThe secret is shown this once.", args[0], r.Client, r.Secret)
			}
			return s.say(r, "%s is there; its client id is %s.", args[0], r.Client)
		}),
	}
	create.Flags().StringArrayVar(&uris, "uri", nil, "identifier `URI` that tokens can be asked for; may be repeated")
	create.Flags().BoolVar(&secret, "secret", false, "make a client secret and show it")
	list := &cobra.Command{
		Use: "list", Short: "List them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := s.registrations(cmd)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, r := range all {
				rows = append(rows, []string{r.Name, string(r.Client), string(r.ID)})
			}
			return s.print(all, "NAME CLIENT-ID OBJECT-ID", rows)
		},
	}
	remove := &cobra.Command{
		Use: "delete OBJECT-ID", Short: "Delete one, its service principal and its grants", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := innate.ParseGUID(args[0])
			if err != nil {
				return err
			}
			if err := c.Graph(cmd.Context(), http.MethodDelete, "/v1.0/applications/"+id, nil, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"deleted": id}, "%s is gone.", id)
		}),
	}
	cmd.AddCommand(create, list, remove, s.registrationRoleCommand())
	return cmd
}

// An application as Graph lists it.
type application struct {
	ID     innate.ObjectID `json:"id"`
	Client innate.ClientID `json:"appId"`
	Name   string          `json:"displayName"`
	URIs   []string        `json:"identifierUris"`
	Roles  []appRole       `json:"appRoles"`
}

func (s *session) registrations(cmd *cobra.Command) ([]application, error) {
	c, err := s.admin(cmd.Context())
	if err != nil {
		return nil, err
	}
	return graphPages[application](cmd.Context(), c, "/v1.0/applications")
}

// register makes an app registration.
func register(ctx context.Context, c *admin.Client, name string, uris []string) (registered, error) {
	if uris == nil {
		uris = []string{}
	}
	var a application
	err := c.Graph(ctx, http.MethodPost, "/v1.0/applications", map[string]any{"displayName": name, "identifierUris": uris}, &a)
	return registered{Object: a.ID, Client: a.Client}, err
}

// addSecret makes a secret for a registration.
func addSecret(ctx context.Context, c *admin.Client, id innate.ObjectID, name string) (string, error) {
	var made struct {
		Text string `json:"secretText"`
	}
	err := c.Graph(ctx, http.MethodPost, "/v1.0/applications/"+string(id)+"/addPassword",
		map[string]any{"passwordCredential": map[string]string{"displayName": name}}, &made)
	return made.Text, err
}
