package access

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"innate"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// A definitionShape is a role as ARM writes it (control-plane §4).
type definitionShape struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Type       string               `json:"type"`
	Properties definitionProperties `json:"properties"`
}

type definitionProperties struct {
	RoleName    string         `json:"roleName"`
	Type        string         `json:"type"` // BuiltInRole or CustomRole
	Description string         `json:"description"`
	Assignable  []innate.Scope `json:"assignableScopes"`
	Permissions []permission   `json:"permissions"`
}

// A permission is the four lists of a role. Clients iterate over them, so none is null.
type permission struct {
	Actions        []string `json:"actions"`
	NotActions     []string `json:"notActions"`
	DataActions    []string `json:"dataActions"`
	NotDataActions []string `json:"notDataActions"`
}

func permissionOf(r Role) permission {
	return permission{
		Actions: orEmpty(r.Actions), NotActions: orEmpty(r.NotActions),
		DataActions: orEmpty(r.DataActions), NotDataActions: orEmpty(r.NotDataActions),
	}
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

// shape writes r as seen from a scope.
func (r Role) shape(at innate.Scope) definitionShape {
	assignable := r.Assignable
	if len(assignable) == 0 {
		assignable = []innate.Scope{innate.Root}
	}
	return definitionShape{
		ID: definitionID(at, r.ID), Name: r.ID, Type: "Microsoft.Authorization/roleDefinitions",
		Properties: definitionProperties{
			RoleName: r.Name, Type: r.kind(), Description: r.Description,
			Assignable: assignable, Permissions: []permission{permissionOf(r)},
		},
	}
}

func (r Role) kind() string {
	if r.BuiltIn {
		return "BuiltInRole"
	}
	return "CustomRole"
}

// assignableAround reports whether the role can be assigned at a scope or below it.
func (r Role) assignableAround(at innate.Scope) bool {
	return r.assignableAt(at) || slices.ContainsFunc(r.Assignable, at.Contains)
}

// listDefinitions lists the roles that can be assigned at the scope, or with
// atScopeAndBelow() also below it. It is one page: there are never many.
func (a *Access) listDefinitions(c call) (int, any, error) {
	if err := a.Require(c.Context(), c.who, readRole, c.at); err != nil {
		return 0, nil, err
	}
	if err := a.config.DB.Sync(c.Context()); err != nil {
		return 0, nil, err
	}
	filter, err := rest.ParseFilter(c.URL.Query().Get("$filter"))
	if err != nil {
		return 0, nil, err
	}
	answer := list[definitionShape]{Value: []definitionShape{}}
	for _, r := range a.index.definitions() {
		ok, err := admitsRole(filter, r, c.at)
		if err != nil {
			return 0, nil, err
		}
		if ok {
			answer.Value = append(answer.Value, r.shape(c.at))
		}
	}
	return http.StatusOK, answer, nil
}

func admitsRole(filter *rest.Filter, r Role, at innate.Scope) (bool, error) {
	unknown, reached := "", r.assignableAt(at)
	ok, err := filter.Match(
		func(name string) []string {
			switch strings.ToLower(name) {
			case "rolename":
				return []string{r.Name}
			case "type":
				return []string{r.kind()}
			}
			unknown = name
			return nil
		},
		func(name string, args []string) (bool, error) {
			if strings.EqualFold(name, "atScopeAndBelow") && len(args) == 0 {
				reached = r.assignableAround(at)
				return true, nil
			}
			unknown = name + "()"
			return false, nil
		})
	if err == nil && unknown != "" {
		err = rest.Errorf(http.StatusBadRequest, "UnsupportedQuery",
			"$filter asks for %s: role definitions can be filtered by roleName eq, type eq and atScopeAndBelow().", unknown)
	}
	return ok && reached, err
}

func (a *Access) getDefinition(c call) (int, any, error) {
	if err := a.Require(c.Context(), c.who, readRole, c.at); err != nil {
		return 0, nil, err
	}
	r, ok := a.index.definition(c.name)
	if !ok {
		if err := a.config.DB.Sync(c.Context()); err != nil {
			return 0, nil, err
		}
		r, ok = a.index.definition(c.name)
	}
	if !ok {
		return 0, nil, rest.Errorf(http.StatusNotFound, "RoleDefinitionDoesNotExist", "The role definition '%s' does not exist.", c.name)
	}
	return http.StatusOK, r.shape(c.at), nil
}

// putDefinition makes or replaces a custom role. Its author needs the right at
// every scope where the role can be assigned, before the change and after it:
// who edits a role edits what all its holders may do.
func (a *Access) putDefinition(c call) (int, any, error) {
	role, err := readDefinitionBody(c)
	if err != nil {
		return 0, nil, err
	}
	old, err := a.editable(c, writeRole, role.Assignable)
	if err != nil {
		return 0, nil, err
	}
	_, err = a.config.DB.Update(c.Context(), func(tx store.Tx) error {
		if err := unchanged(tx, c.name, old); err != nil {
			return err
		}
		for _, other := range customRoles.All(tx, "", "") {
			if other.ID != role.ID && strings.EqualFold(other.Name, role.Name) {
				return sameName(role.Name)
			}
		}
		if old != nil {
			if err := checkStillAssignable(tx, role); err != nil {
				return err
			}
		}
		if err := customRoles.Put(tx, role.ID, role); err != nil {
			return err
		}
		return a.leaveRole(tx, c, writeRole.Name, role)
	})
	return http.StatusCreated, role.shape(c.at), err
}

// editable checks that the caller may do action to the custom role that the
// path names, at every scope where it is or is to be assignable, and returns it
// as it stands; nil when there is none.
func (a *Access) editable(c call, do Action, next []innate.Scope) (*Role, error) {
	if r := slices.IndexFunc(builtIn, func(r Role) bool { return r.ID == c.name }); r >= 0 {
		return nil, rest.Errorf(http.StatusBadRequest, "RoleDefinitionCannotBeChanged", "%s is a built-in role: make a custom one under another id.", builtIn[r].Name)
	}
	if err := a.config.DB.Sync(c.Context()); err != nil {
		return nil, err
	}
	scopes := append([]innate.Scope{c.at}, next...)
	var old *Role
	if r, ok := a.index.definition(c.name); ok {
		old = &r
		scopes = append(scopes, r.Assignable...)
	}
	for i, at := range scopes {
		if slices.Contains(scopes[:i], at) {
			continue
		}
		if err := a.Require(c.Context(), c.who, do, at); err != nil {
			return nil, err
		}
	}
	return old, nil
}

// unchanged makes sure that the role is the one that permission was checked for.
func unchanged(tx store.Tx, id string, old *Role) error {
	now, ok, err := customRoles.Get(tx, id)
	if err != nil {
		return err
	}
	if ok != (old != nil) || ok && !slices.Equal(now.Assignable, old.Assignable) {
		return rest.Errorf(http.StatusConflict, "RoleDefinitionChanged", "The role definition '%s' was changed by somebody else meanwhile: try again.", id)
	}
	return nil
}

func sameName(name string) error {
	return rest.Errorf(http.StatusConflict, "RoleDefinitionWithSameNameExists", "Another role definition is called '%s'.", name)
}

// checkStillAssignable refuses a role whose new scopes leave an assignment outside.
func checkStillAssignable(tx store.Tx, role Role) error {
	for _, as := range assignments.All(tx, "", "") {
		if as.Role == role.ID && !role.assignableAt(as.Scope) {
			return rest.Errorf(http.StatusConflict, "RoleDefinitionHasAssignments",
				"The role is assigned at %s, which assignableScopes no longer has: remove that assignment first.", as.Scope)
		}
	}
	return nil
}

func (a *Access) deleteDefinition(c call) (int, any, error) {
	old, err := a.editable(c, deleteRole, nil)
	if err != nil {
		return 0, nil, err
	}
	if old == nil {
		return http.StatusNoContent, nil, nil
	}
	_, err = a.config.DB.Update(c.Context(), func(tx store.Tx) error {
		if err := unchanged(tx, c.name, old); err != nil {
			return err
		}
		for _, as := range assignments.All(tx, "", "") {
			if as.Role == c.name {
				return rest.Errorf(http.StatusConflict, "RoleDefinitionHasAssignments",
					"The role is assigned at %s: remove its assignments first.", as.Scope)
			}
		}
		customRoles.Delete(tx, c.name)
		return a.leaveRole(tx, c, deleteRole.Name, *old)
	})
	return http.StatusOK, old.shape(c.at), err
}

func (a *Access) leaveRole(tx store.Tx, c call, action string, r Role) error {
	ev := a.event(c.Context(), c.who, action, below(innate.Root, "roleDefinitions", r.ID))
	ev.Allowed = true
	ev.Detail = map[string]string{"role": r.Name}
	return audit.Leave(tx, ev)
}

// Bounds of a custom role.
const (
	maxRoleName   = 512
	maxPatterns   = 200
	maxPattern    = 256
	maxAssignable = 100
)

// readDefinitionBody reads what a PUT asks for.
func readDefinitionBody(c call) (Role, error) {
	var in struct {
		Properties struct {
			RoleName    string       `json:"roleName"`
			Description string       `json:"description"`
			Assignable  []string     `json:"assignableScopes"`
			Permissions []permission `json:"permissions"`
		} `json:"properties"`
	}
	if err := rest.Read(c.Request, &in); err != nil {
		return Role{}, err
	}
	p := in.Properties
	switch {
	case strings.TrimSpace(p.RoleName) == "" || len(p.RoleName) > maxRoleName:
		return Role{}, badRole("properties.roleName must have 1 to %d characters.", maxRoleName)
	case len(p.Permissions) != 1:
		return Role{}, badRole("properties.permissions has %d entries: want one.", len(p.Permissions))
	case len(p.Assignable) == 0 || len(p.Assignable) > maxAssignable:
		return Role{}, badRole("properties.assignableScopes has %d scopes: want 1 to %d.", len(p.Assignable), maxAssignable)
	case slices.ContainsFunc(builtIn, func(r Role) bool { return strings.EqualFold(r.Name, p.RoleName) }):
		return Role{}, sameName(p.RoleName)
	}
	lists := p.Permissions[0]
	role := Role{
		ID: c.name, Name: p.RoleName, Description: p.Description,
		Actions: lists.Actions, NotActions: lists.NotActions,
		DataActions: lists.DataActions, NotDataActions: lists.NotDataActions,
	}
	for _, patterns := range [][]string{role.Actions, role.NotActions, role.DataActions, role.NotDataActions} {
		if len(patterns) > maxPatterns {
			return Role{}, badRole("A list of properties.permissions has %d actions: want at most %d.", len(patterns), maxPatterns)
		}
		for _, p := range patterns {
			if err := checkPattern(p); err != nil {
				return Role{}, badRole("properties.permissions: %s.", err)
			}
		}
	}
	for _, s := range p.Assignable {
		at, err := innate.ParseScope(s)
		if err != nil {
			return Role{}, badRole("properties.assignableScopes: %s.", err)
		}
		role.Assignable = append(role.Assignable, at)
	}
	return role, nil
}

func badRole(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, "InvalidRoleDefinition", format, args...)
}

var pattern = regexp.MustCompile(`^[A-Za-z0-9._*/-]+$`)

// checkPattern accepts an action, with or without wildcards.
func checkPattern(p string) error {
	if len(p) > maxPattern || !pattern.MatchString(p) {
		return fmt.Errorf("'%.80s' is no action: want letters, digits and . _ - / *, at most %d of them", p, maxPattern)
	}
	return nil
}
