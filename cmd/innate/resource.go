package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
	"innate/rest"
)

// The resource types that have a command.
const (
	typeGroup    = "Microsoft.Resources/resourceGroups"
	typeVM       = "Microsoft.Compute/virtualMachines"
	typeSite     = "Microsoft.Web/sites"
	typePlan     = "Microsoft.Web/serverfarms"
	typeMachine  = "Microsoft.HybridCompute/machines"
	typeIdentity = "Microsoft.ManagedIdentity/userAssignedIdentities"
	typeVault    = "Microsoft.KeyVault/vaults"
)

// listCommand lists the resources of a type.
func (s *session) listCommand(typ string) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List them", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			all, err := c.List(cmd.Context(), typ)
			if err != nil {
				return err
			}
			if all == nil {
				all = []admin.Listed{}
			}
			var rows [][]string
			for _, l := range all {
				rows = append(rows, []string{l.Name, l.ID.Group(), identityOf(l)})
			}
			return s.print(all, "NAME GROUP IDENTITY", rows)
		}),
	}
}

// identityOf is what a table says of a resource's identities: its own, then the shared ones' names.
func identityOf(l admin.Listed) string {
	if p, ok := l.Properties["principalId"].(string); ok {
		return p
	}
	if l.Identity == nil {
		return ""
	}
	var is []string
	for id := range l.Identity.User {
		is = append(is, innate.ResourceID(id).Name())
	}
	slices.Sort(is)
	if l.Identity.Principal != "" {
		is = append([]string{string(l.Identity.Principal)}, is...)
	}
	return strings.Join(is, " ")
}

// showCommand prints one resource as the resource manager has it.
func (s *session) showCommand(typ string) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one, as JSON", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := c.Resource(cmd.Context(), typ, args[0])
			if err != nil {
				return err
			}
			var r map[string]any
			if err := c.ARM(cmd.Context(), http.MethodGet, string(id), nil, &r); err != nil {
				return err
			}
			s.output = "json"
			return s.print(r, "", nil)
		}),
	}
}

// deleteCommand removes a resource, and with it its identity, grants and endpoint.
func (s *session) deleteCommand(typ, what string) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete one, and what lives with it: " + what, Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := c.Resource(cmd.Context(), typ, args[0])
			if err != nil {
				return err
			}
			if err := c.ARM(cmd.Context(), http.MethodDelete, string(id), nil, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"id": id, "deleted": true}, "%s is gone, and with it %s.", id.Name(), what)
		}),
	}
}

// placing is the flags of what can be put in a group and on a host.
type placing struct {
	group    string
	identity bool
	user     []string
}

func (p *placing) flags(cmd *cobra.Command, identity bool) {
	cmd.Flags().StringVarP(&p.group, "group", "g", "", "resource `group`; made when absent")
	cmd.MarkFlagRequired("group")
	if identity {
		cmd.Flags().BoolVar(&p.identity, "identity", false, "turn the system-assigned identity on")
		cmd.Flags().StringArrayVar(&p.user, "user-identity", nil, "attach a user-assigned identity by `name`; may be repeated")
	}
}

// create makes a resource, and its group when there is none.
func (s *session) create(ctx context.Context, c *admin.Client, p placing, typ, name string, body map[string]any) error {
	if err := ensureGroup(ctx, c, p.group); err != nil {
		return err
	}
	id := c.Group(p.group) + innate.ResourceID("/providers/"+typ+"/"+name)
	body["location"] = "local"
	if block, err := p.block(ctx, c); err != nil {
		return err
	} else if block != nil {
		body["identity"] = block
	}
	var r admin.Listed
	if err := c.ARM(ctx, http.MethodPut, string(id), body, &r); err != nil {
		return err
	}
	if is := identityOf(r); is != "" {
		return s.say(r, "%s is there; its identity is %s.", r.Name, is)
	}
	return s.say(r, "%s is there.", r.Name)
}

func ensureGroup(ctx context.Context, c *admin.Client, name string) error {
	err := c.ARM(ctx, http.MethodGet, string(c.Group(name)), nil, nil)
	if admin.IsNotFound(err) {
		err = c.ARM(ctx, http.MethodPut, string(c.Group(name)), map[string]string{"location": "local"}, nil)
	}
	return err
}

// block is the identity block that the flags ask for.
func (p placing) block(ctx context.Context, c *admin.Client) (map[string]any, error) {
	var types []string
	if p.identity {
		types = append(types, "SystemAssigned")
	}
	user := map[string]any{}
	for _, name := range p.user {
		id, err := c.Resource(ctx, typeIdentity, name)
		if err != nil {
			return nil, err
		}
		user[string(id)] = map[string]any{}
	}
	if len(user) > 0 {
		types = append(types, "UserAssigned")
	}
	if len(types) == 0 {
		return nil, nil
	}
	b := map[string]any{"type": strings.Join(types, ", ")}
	if len(user) > 0 {
		b["userAssignedIdentities"] = user
	}
	return b, nil
}

// switchCommand turns identities of a resource on and off.
func (s *session) switchCommand(typ string) *cobra.Command {
	cmd := &cobra.Command{Use: "identity", Short: "Turn its identity on and off, attach and detach shared ones"}
	set := func(use, short string, n int, change func(ctx context.Context, c *admin.Client, now admin.Listed, args []string) (map[string]any, error)) {
		cmd.AddCommand(&cobra.Command{
			Use: use, Short: short, Args: cobra.ExactArgs(n),
			RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
				ctx := cmd.Context()
				id, err := c.Resource(ctx, typ, args[0])
				if err != nil {
					return err
				}
				var now admin.Listed
				if err := c.ARM(ctx, http.MethodGet, string(id), nil, &now); err != nil {
					return err
				}
				block, err := change(ctx, c, now, args[1:])
				if err != nil {
					return err
				}
				var changed admin.Listed // decoding into now would keep what it has and the answer has not
				if err := c.ARM(ctx, http.MethodPatch, string(id), map[string]any{"identity": block}, &changed); err != nil {
					return err
				}
				if is := identityOf(changed); is != "" {
					return s.say(changed, "%s holds %s.", changed.Name, is)
				}
				return s.say(changed, "%s holds no identity.", changed.Name)
			}),
		})
	}
	set("on NAME", "Give it an identity of its own", 1, func(_ context.Context, _ *admin.Client, now admin.Listed, _ []string) (map[string]any, error) {
		return typed(true, hasUser(now)), nil
	})
	set("off NAME", "Take its own identity away, and every grant with it", 1, func(_ context.Context, _ *admin.Client, now admin.Listed, _ []string) (map[string]any, error) {
		return typed(false, hasUser(now)), nil
	})
	set("attach NAME IDENTITY", "Let it use a user-assigned identity", 2, func(ctx context.Context, c *admin.Client, now admin.Listed, args []string) (map[string]any, error) {
		id, err := c.Resource(ctx, typeIdentity, args[0])
		b := typed(hasSystem(now), true)
		b["userAssignedIdentities"] = map[string]any{string(id): map[string]any{}}
		return b, err
	})
	set("detach NAME IDENTITY", "Take a user-assigned identity from it", 2, func(ctx context.Context, c *admin.Client, now admin.Listed, args []string) (map[string]any, error) {
		id, err := c.Resource(ctx, typeIdentity, args[0])
		if err != nil {
			return nil, err
		}
		if !attached(now, id) {
			return nil, fmt.Errorf("%s is not attached to %s", args[0], now.Name)
		}
		b := typed(hasSystem(now), len(now.Identity.User) > 1)
		if len(now.Identity.User) > 1 {
			b["userAssignedIdentities"] = map[string]any{string(id): nil}
		}
		return b, nil
	})
	return cmd
}

func hasSystem(l admin.Listed) bool { return l.Identity != nil && l.Identity.Principal != "" }
func hasUser(l admin.Listed) bool   { return l.Identity != nil && len(l.Identity.User) > 0 }

func attached(l admin.Listed, id innate.ResourceID) bool {
	if l.Identity == nil {
		return false
	}
	for have := range l.Identity.User {
		if id.Equal(innate.ResourceID(have)) {
			return true
		}
	}
	return false
}

// typed is an identity block of that type.
func typed(system, user bool) map[string]any {
	switch {
	case system && user:
		return map[string]any{"type": "SystemAssigned, UserAssigned"}
	case system:
		return map[string]any{"type": "SystemAssigned"}
	case user:
		return map[string]any{"type": "UserAssigned"}
	}
	return map[string]any{"type": "None"}
}

func (s *session) groupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "group", Short: "Resource groups"}
	cmd.AddCommand(&cobra.Command{
		Use: "create NAME", Short: "Make one", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			if err := c.ARM(cmd.Context(), http.MethodPut, string(c.Group(args[0])), map[string]string{"location": "local"}, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"id": c.Group(args[0])}, "%s is there.", args[0])
		}),
	}, s.listCommand(typeGroup), s.showCommand(typeGroup), s.deleteCommand(typeGroup, "everything in it"))
	return cmd
}

func (s *session) identityCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "identity", Short: "User-assigned identities, which several resources may share"}
	var p placing
	create := &cobra.Command{
		Use: "create NAME", Short: "Make one", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			return s.create(cmd.Context(), c, p, typeIdentity, args[0], map[string]any{})
		}),
	}
	p.flags(create, false)
	cmd.AddCommand(create, s.listCommand(typeIdentity), s.showCommand(typeIdentity),
		s.deleteCommand(typeIdentity, "its grants; whatever used it is detached"))
	return cmd
}

// machineOf finds the machine that --host names; with no name, the only one there is.
func machineOf(ctx context.Context, c *admin.Client, name string) (innate.ResourceID, error) {
	if name != "" {
		return c.Resource(ctx, typeMachine, name)
	}
	all, err := c.List(ctx, typeMachine)
	if err != nil {
		return "", err
	}
	if len(all) != 1 {
		return "", fmt.Errorf("there are %d machines: say with --host which one", len(all))
	}
	return all[0].ID, nil
}

func (s *session) vmCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "vm", Short: "VMs, containers and network namespaces"}
	var p placing
	var host string
	create := &cobra.Command{
		Use: "create NAME", Short: "Make one", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			props := map[string]any{}
			if host != "" {
				id, err := c.Resource(cmd.Context(), typeMachine, host)
				if err != nil {
					return err
				}
				props["host"] = map[string]any{"id": id}
			}
			return s.create(cmd.Context(), c, p, typeVM, args[0], map[string]any{"properties": props})
		}),
	}
	p.flags(create, true)
	create.Flags().StringVar(&host, "host", "", "`machine` that it is placed on")
	cmd.AddCommand(create, s.listCommand(typeVM), s.showCommand(typeVM), s.switchCommand(typeVM),
		s.vmEventCommand(), s.deleteCommand(typeVM, "its identity, its grants and its endpoint"))
	return cmd
}

// ensurePlan makes the plan through which an app is placed: one a machine and group.
func ensurePlan(ctx context.Context, c *admin.Client, group string, machine innate.ResourceID) (innate.ResourceID, error) {
	if err := ensureGroup(ctx, c, group); err != nil {
		return "", err
	}
	plan := c.Group(group) + innate.ResourceID("/providers/"+typePlan+"/on-"+machine.Name())
	err := c.ARM(ctx, http.MethodGet, string(plan), nil, nil)
	if admin.IsNotFound(err) {
		err = c.ARM(ctx, http.MethodPut, string(plan), map[string]any{
			"location": "local", "properties": map[string]any{"workers": []innate.ResourceID{machine}},
		}, nil)
	}
	return plan, err
}

func (s *session) settingsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "settings NAME [KEY=VALUE | KEY=]...", Short: "Show an app's settings, or change them (KEY= removes one)",
		Args: cobra.MinimumNArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			id, err := c.Resource(ctx, typeSite, args[0])
			if err != nil {
				return err
			}
			var now struct {
				Properties map[string]string `json:"properties"`
			}
			if err := c.ARM(ctx, http.MethodPost, string(id)+"/config/appsettings/list", nil, &now); err != nil {
				return err
			}
			if now.Properties == nil {
				now.Properties = map[string]string{}
			}
			for _, arg := range args[1:] {
				k, v, ok := strings.Cut(arg, "=")
				if !ok || k == "" {
					return fmt.Errorf("%q: want KEY=VALUE", arg)
				}
				if v == "" {
					delete(now.Properties, k)
				} else {
					now.Properties[k] = v
				}
			}
			if len(args) > 1 {
				if err := c.ARM(ctx, http.MethodPut, string(id)+"/config/appsettings", now, nil); err != nil {
					return err
				}
			}
			var rows [][]string
			for k, v := range now.Properties {
				rows = append(rows, []string{k, v})
			}
			slices.SortFunc(rows, func(a, b []string) int { return strings.Compare(a[0], b[0]) })
			return s.print(now.Properties, "SETTING VALUE", rows)
		}),
	}
}

// code is the error code of a server's refusal, or empty.
func code(err error) string {
	var e *rest.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
