package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

// An appRole as the directory writes it.
type appRole struct {
	ID          string   `json:"id"`
	Value       string   `json:"value"`
	Name        string   `json:"displayName"`
	Description string   `json:"description"`
	Members     []string `json:"allowedMemberTypes"`
	Enabled     bool     `json:"isEnabled"`
}

// An appRoleAssignment as the directory lists it.
type appRoleAssignment struct {
	ID        string          `json:"id"`
	Role      string          `json:"appRoleId"`
	Principal innate.ObjectID `json:"principalId"`
	Name      string          `json:"principalDisplayName"`
	Kind      string          `json:"principalType"`
}

func (s *session) registrationRoleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "role", Short: "App roles: what tokens for a registration say that their holder is",
		Example: "  innate registration role create orders --value orders.read\n  innate registration role assign orders --value orders.read --to api",
	}
	cmd.AddCommand(s.appRoleCreate(), s.appRoleDelete(), s.appRoleAssign(), s.appRoleRemove(), s.appRoleList(), s.appRoleRequire())
	return cmd
}

// valueFlag is the flag that names a role.
func valueFlag(cmd *cobra.Command, value *string) {
	cmd.Flags().StringVar(value, "value", "", "the role's `value`, as it stands in tokens")
	cmd.MarkFlagRequired("value")
}

// toFlag is the flag that names a holder.
func toFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "to", "", "`who`: the name of a VM, app, identity, app registration, group or user, or an object id")
	cmd.MarkFlagRequired("to")
}

func (s *session) appRoleCreate() *cobra.Command {
	role := appRole{Members: []string{"Application", "User"}, Enabled: true}
	cmd := &cobra.Command{
		Use: "create REGISTRATION", Short: "Make a role, which nobody has yet", Args: cobra.ExactArgs(1),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			role.ID = innate.NewGUID()
			if role.Name == "" {
				role.Name = role.Value
			}
			if err := patchRoles(cmd.Context(), c, a, append(a.Roles, role)); err != nil {
				return err
			}
			return s.say(role, "%s has the role %s; give it with:\n  innate registration role assign %s --value %s --to NAME", a.Name, role.Value, args[0], role.Value)
		}),
	}
	valueFlag(cmd, &role.Value)
	cmd.Flags().StringVar(&role.Name, "name", "", "what people call it; the value when left out")
	cmd.Flags().StringVar(&role.Description, "description", "", "what it is for")
	return cmd
}

// patchRoles makes roles the whole of a's.
func patchRoles(ctx context.Context, c *admin.Client, a application, roles []appRole) error {
	return c.Graph(ctx, http.MethodPatch, "/v1.0/applications/"+string(a.ID), map[string]any{"appRoles": roles}, nil)
}

func (s *session) appRoleDelete() *cobra.Command {
	var value string
	cmd := &cobra.Command{
		Use: "delete REGISTRATION", Short: "Delete a role; whoever has it loses it", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			a, role, err := findAppRole(cmd.Context(), c, args[0], value)
			if err != nil {
				return err
			}
			kept := slices.DeleteFunc(slices.Clone(a.Roles), func(r appRole) bool { return r.ID == role.ID })
			if err := patchRoles(cmd.Context(), c, a, kept); err != nil {
				return err
			}
			return s.say(role, "%s no longer has the role %s, nor has anybody else it.", a.Name, value)
		}),
	}
	valueFlag(cmd, &value)
	return cmd
}

func (s *session) appRoleAssign() *cobra.Command {
	var value, to string
	cmd := &cobra.Command{
		Use: "assign REGISTRATION", Short: "Give somebody a role", Args: cobra.ExactArgs(1),
		Example: "  innate registration role assign orders --value orders.read --to api",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			a, role, who, have, err := findHeld(ctx, c, args[0], value, to)
			if err != nil {
				return err
			}
			if have != nil {
				return s.say(have, "%s had %s of %s already.", to, value, a.Name)
			}
			var made appRoleAssignment
			if err := c.Graph(ctx, http.MethodPost, assignedTo(a), map[string]any{"principalId": who, "appRoleId": role.ID}, &made); err != nil {
				return err
			}
			return s.say(made, "%s has %s of %s: its next token for it says so.", to, value, a.Name)
		}),
	}
	valueFlag(cmd, &value)
	toFlag(cmd, &to)
	return cmd
}

func (s *session) appRoleRemove() *cobra.Command {
	var value, to string
	cmd := &cobra.Command{
		Use: "remove REGISTRATION", Short: "Take a role back", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			a, _, _, have, err := findHeld(ctx, c, args[0], value, to)
			if err != nil {
				return err
			}
			if have == nil {
				return fmt.Errorf("%s does not have %s of %s itself: 'innate registration role list %s' shows who has what", to, value, a.Name, args[0])
			}
			if err := c.Graph(ctx, http.MethodDelete, assignedTo(a)+"/"+have.ID, nil, nil); err != nil {
				return err
			}
			return s.say(have, "%s no longer has %s of %s: its next token for it says so.", to, value, a.Name)
		}),
	}
	valueFlag(cmd, &value)
	toFlag(cmd, &to)
	return cmd
}

func (s *session) appRoleList() *cobra.Command {
	return &cobra.Command{
		Use: "list REGISTRATION", Short: "List the roles of a registration and who has them", Args: cobra.ExactArgs(1),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			held, err := graphPages[appRoleAssignment](cmd.Context(), c, assignedTo(a))
			if err != nil {
				return err
			}
			return s.print(map[string]any{"appRoles": a.Roles, "assignments": held}, "ROLE WHO TYPE PRINCIPAL", roleRows(a.Roles, held))
		}),
	}
}

// roleRows has a line for each role and holder, and one for a role that nobody has.
func roleRows(roles []appRole, held []appRoleAssignment) (rows [][]string) {
	for _, role := range append(roles, appRole{ID: noAppRole, Value: "(none in particular)"}) {
		before := len(rows)
		for _, h := range held {
			if h.Role == role.ID {
				rows = append(rows, []string{role.Value, h.Name, h.Kind, string(h.Principal)})
			}
		}
		if len(rows) == before && role.ID != noAppRole {
			rows = append(rows, []string{role.Value, "", "", ""})
		}
	}
	return rows
}

// noAppRole is the role of who is assigned without one.
const noAppRole = "00000000-0000-0000-0000-000000000000"

func (s *session) appRoleRequire() *cobra.Command {
	return &cobra.Command{
		Use: "require REGISTRATION on|off", Short: "Say whether only who has a role gets tokens for a registration", Args: cobra.ExactArgs(2),
		RunE: s.askingAbout(func(cmd *cobra.Command, c *admin.Client, a application, args []string) error {
			required := args[1] == "on"
			if !required && args[1] != "off" {
				return fmt.Errorf("%q: want on or off", args[1])
			}
			body := map[string]bool{"appRoleAssignmentRequired": required}
			if err := c.Graph(cmd.Context(), http.MethodPatch, servicePrincipal(a), body, nil); err != nil {
				return err
			}
			if required {
				return s.say(body, "Only who has a role of %s gets tokens for it.", a.Name)
			}
			return s.say(body, "Everybody may have tokens for %s; what they say of roles is as before.", a.Name)
		}),
	}
}

func servicePrincipal(a application) string {
	return "/v1.0/servicePrincipals(appId='" + string(a.Client) + "')"
}

func assignedTo(a application) string { return servicePrincipal(a) + "/appRoleAssignedTo" }

// findAppRole finds a registration and its role of that value.
func findAppRole(ctx context.Context, c *admin.Client, registration, value string) (application, appRole, error) {
	a, err := findRegistration(ctx, c, registration)
	if err != nil {
		return a, appRole{}, err
	}
	i := slices.IndexFunc(a.Roles, func(r appRole) bool { return r.Value == value })
	if value == "" || i < 0 {
		return a, appRole{}, fmt.Errorf("%s has no role %q: 'innate registration role list %s' shows those it has", a.Name, value, registration)
	}
	return a, a.Roles[i], nil
}

// findHeld finds a registration, its role, a principal, and that principal's own
// assignment to the role, nil when there is none.
func findHeld(ctx context.Context, c *admin.Client, registration, value, to string) (a application, role appRole, who innate.ObjectID, have *appRoleAssignment, err error) {
	if a, role, err = findAppRole(ctx, c, registration, value); err != nil {
		return
	}
	if who, err = c.Identity(ctx, to); err != nil {
		return
	}
	filter := fmt.Sprintf("principalId eq '%s' and appRoleId eq '%s'", who, role.ID)
	held, err := graphPages[appRoleAssignment](ctx, c, assignedTo(a)+"?$filter="+url.QueryEscape(filter))
	if len(held) > 0 {
		have = &held[0]
	}
	return a, role, who, have, err
}
