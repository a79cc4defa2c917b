package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

// An assignment as the resource manager lists it.
type assignment struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		Scope     innate.Scope     `json:"scope"`
		Role      string           `json:"roleDefinitionId"`
		Principal innate.ObjectID  `json:"principalId"`
		Kind      string           `json:"principalType"`
		Minimum   innate.Assurance `json:"minimumAssurance,omitempty"`
	} `json:"properties"`
}

// A role definition as the resource manager lists it.
type definition struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		RoleName    string `json:"roleName"`
		Description string `json:"description"`
	} `json:"properties"`
}

const authorization = "/providers/Microsoft.Authorization/"

func (s *session) roleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "role", Short: "Who may do what, where"}
	cmd.AddCommand(s.roleAssign(), s.roleRemove(), s.roleList(), s.roleWhy(), s.roleDefinitions())
	return cmd
}

// grantFlags name an assignment: to whom, which role, where.
type grantFlags struct{ to, role, at string }

func (g *grantFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&g.to, "to", "", "`who`: the name of a VM, app, identity, app registration, group or user, or an object id")
	cmd.Flags().StringVar(&g.role, "role", "", "`role`: its name, such as 'Key Vault Secrets User', or its id")
	cmd.Flags().StringVar(&g.at, "at", "", "`scope`: the name of a resource or group, 'subscription', or a path")
	for _, f := range []string{"to", "role", "at"} {
		cmd.MarkFlagRequired(f)
	}
}

// find turns the flags into ids.
func (g *grantFlags) find(cmd *cobra.Command, c *admin.Client) (who innate.ObjectID, role definition, at innate.Scope, err error) {
	if at, err = c.Scope(cmd.Context(), g.at); err != nil {
		return
	}
	if who, err = c.Identity(cmd.Context(), g.to); err != nil {
		return
	}
	role, err = findRole(cmd.Context(), c, at, g.role)
	return
}

func findRole(ctx context.Context, c *admin.Client, at innate.Scope, name string) (definition, error) {
	all, err := admin.Pages[definition](ctx, c, under(at)+authorization+"roleDefinitions")
	if err != nil {
		return definition{}, err
	}
	for _, d := range all {
		if strings.EqualFold(d.Properties.RoleName, name) || strings.EqualFold(d.Name, name) {
			return d, nil
		}
	}
	return definition{}, fmt.Errorf("no role is called %q: 'innate role definitions' lists them", name)
}

// under is a scope as the beginning of a path.
func under(at innate.Scope) string {
	if at == innate.Root {
		return ""
	}
	return string(at)
}

func (s *session) roleAssign() *cobra.Command {
	var g grantFlags
	var minimum string
	cmd := &cobra.Command{
		Use: "assign", Short: "Grant a role", Args: cobra.NoArgs,
		Long: `Grants a role at a resource, a group or all, and whatever is below it. With
--minimum-assurance the role counts only for tokens that were given to a workload
which its host's agent had recognised at least so surely; 'innate agent status'
says how surely a host can.`,
		Example: `  innate role assign --to api --role 'Key Vault Secrets User' --at kv1
  innate role assign --to api --role 'Key Vault Secrets User' --at kv1 --minimum-assurance cgroup+uid`,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			who, role, at, err := g.find(cmd, c)
			if err != nil {
				return err
			}
			var made assignment
			err = c.ARM(cmd.Context(), http.MethodPut, under(at)+authorization+"roleAssignments/"+innate.NewGUID(),
				map[string]any{"properties": map[string]any{"roleDefinitionId": role.ID, "principalId": who, "minimumAssurance": minimum}}, &made)
			if code(err) == "RoleAssignmentExists" {
				return s.say(map[string]any{"exists": true}, "%s had %s at %s already.", g.to, role.Properties.RoleName, at)
			}
			if err != nil {
				return err
			}
			return s.say(made, "%s has %s at %s.", g.to, role.Properties.RoleName, at)
		}),
	}
	g.add(cmd)
	cmd.Flags().StringVar(&minimum, "minimum-assurance", "", "how surely the workload must be `proved`: uid, cgroup+uid, netns or device")
	return cmd
}

func (s *session) roleRemove() *cobra.Command {
	var g grantFlags
	cmd := &cobra.Command{
		Use: "remove", Short: "Take a role back", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			who, role, at, err := g.find(cmd, c)
			if err != nil {
				return err
			}
			have, err := assignments(cmd, c, at, who)
			if err != nil {
				return err
			}
			for _, a := range have {
				if strings.EqualFold(string(a.Properties.Scope), string(at)) && strings.HasSuffix(strings.ToLower(a.Properties.Role), "/"+role.Name) {
					if err := c.ARM(cmd.Context(), http.MethodDelete, a.ID, nil, nil); err != nil {
						return err
					}
					return s.say(a, "%s no longer has %s at %s.", g.to, role.Properties.RoleName, at)
				}
			}
			return fmt.Errorf("%s does not have %s at %s itself: 'innate role list --to %s' shows what it has and where", g.to, role.Properties.RoleName, at, g.to)
		}),
	}
	g.add(cmd)
	return cmd
}

// assignments lists what stands at a scope, above and below it; of everybody when who is empty.
func assignments(cmd *cobra.Command, c *admin.Client, at innate.Scope, who innate.ObjectID) ([]assignment, error) {
	path := under(at) + authorization + "roleAssignments"
	if who != "" {
		path += "?$filter=" + url.QueryEscape("assignedTo('"+string(who)+"')")
	}
	return admin.Pages[assignment](cmd.Context(), c, path)
}

func (s *session) roleList() *cobra.Command {
	var to, at string
	cmd := &cobra.Command{
		Use: "list", Short: "List who has which role where", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			var err error
			scope := innate.Root
			if at != "" {
				if scope, err = c.Scope(ctx, at); err != nil {
					return err
				}
			}
			var who innate.ObjectID
			if to != "" {
				if who, err = c.Identity(ctx, to); err != nil {
					return err
				}
			}
			have, err := assignments(cmd, c, scope, who)
			if err != nil {
				return err
			}
			roles, err := admin.Pages[definition](ctx, c, authorization+"roleDefinitions")
			if err != nil {
				return err
			}
			names := map[string]string{}
			for _, d := range roles {
				names[d.Name] = d.Properties.RoleName
			}
			ids := make([]innate.ObjectID, len(have))
			for i, a := range have {
				ids[i] = a.Properties.Principal
			}
			people, err := displayNames(cmd, c, ids)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, a := range have {
				role := strings.ToLower(a.Properties.Role[strings.LastIndexByte(a.Properties.Role, '/')+1:])
				rows = append(rows, []string{people[a.Properties.Principal], names[role], string(a.Properties.Scope), string(a.Properties.Principal), least(a.Properties.Minimum)})
			}
			if have == nil {
				have = []assignment{}
			}
			return s.print(have, "WHO ROLE SCOPE PRINCIPAL MINIMUM-ASSURANCE", rows)
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "only of `who`, through groups too")
	cmd.Flags().StringVar(&at, "at", "", "at, above and below a `scope`")
	return cmd
}

// least is a minimum as a cell; empty when there is none.
func least(minimum innate.Assurance) string {
	if minimum == innate.Unproved {
		return ""
	}
	return minimum.String()
}

// displayNames resolves object ids to what people call them.
func displayNames(cmd *cobra.Command, c *admin.Client, ids []innate.ObjectID) (map[innate.ObjectID]string, error) {
	var found struct {
		Value []struct {
			ID   innate.ObjectID `json:"id"`
			Name string          `json:"displayName"`
		} `json:"value"`
	}
	names := map[innate.ObjectID]string{}
	if len(ids) == 0 {
		return names, nil
	}
	if err := c.Graph(cmd.Context(), http.MethodPost, "/v1.0/directoryObjects/getByIds", map[string]any{"ids": ids}, &found); err != nil {
		return nil, err
	}
	for _, o := range found.Value {
		names[o.ID] = o.Name
	}
	return names, nil
}

func (s *session) roleWhy() *cobra.Command {
	var to, do, at, assurance string
	var data bool
	cmd := &cobra.Command{
		Use: "why", Short: "Say whether someone may do something, and why", Args: cobra.NoArgs,
		Example: "  innate role why --to api --do Microsoft.KeyVault/vaults/secrets/getSecret/action --data --at kv1",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			scope, err := c.Scope(ctx, at)
			if err != nil {
				return err
			}
			who, err := c.Identity(ctx, to)
			if err != nil {
				return err
			}
			var d struct {
				Allowed    bool   `json:"allowed"`
				Why        string `json:"why"`
				Role       string `json:"role,omitempty"`
				Assignment string `json:"assignment,omitempty"`
				Smallest   string `json:"smallest,omitempty"`
			}
			if err := c.ARM(ctx, http.MethodPost, under(scope)+authorization+"checkAccess",
				map[string]any{"principalId": who, "action": do, "data": data, "assurance": assurance}, &d); err != nil {
				return err
			}
			word := "no"
			if d.Allowed {
				word = "yes"
			}
			text := word + ": " + d.Why
			if d.Smallest != "" {
				text += fmt.Sprintf("\nThe smallest built-in role that would allow it is %q; grant it with:\n  innate role assign --to %s --role '%s' --at %s", d.Smallest, to, d.Smallest, at)
			}
			return s.say(d, "%s", text)
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "`who`")
	cmd.Flags().StringVar(&do, "do", "", "`action`")
	cmd.Flags().StringVar(&at, "at", "", "`scope`")
	cmd.Flags().StringVar(&assurance, "assurance", "", "how surely it is `proved`; empty: as surely as can be")
	cmd.Flags().BoolVar(&data, "data", false, "it is a data action: on what is inside the resource")
	for _, f := range []string{"to", "do", "at"} {
		cmd.MarkFlagRequired(f)
	}
	return cmd
}

func (s *session) roleDefinitions() *cobra.Command {
	return &cobra.Command{
		Use: "definitions", Short: "List the roles", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			all, err := admin.Pages[definition](cmd.Context(), c, authorization+"roleDefinitions")
			if err != nil {
				return err
			}
			var rows [][]string
			for _, d := range all {
				rows = append(rows, []string{d.Properties.RoleName, d.Name, d.Properties.Description})
			}
			return s.print(all, "ROLE ID DESCRIPTION", rows)
		}),
	}
}
