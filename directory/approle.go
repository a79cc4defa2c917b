package directory

import (
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"innate"
	"innate/rest"
	"innate/store"
)

// An AppRole is what a registration lets others be: the value stands in the
// roles of their tokens for it.
type AppRole struct {
	ID          string   `json:"id"` // a GUID, in lower case
	Value       string   `json:"value,omitempty"`
	Name        string   `json:"displayName"`
	Description string   `json:"description,omitempty"`
	Members     []string `json:"allowedMemberTypes"` // User, Application
	Enabled     bool     `json:"isEnabled"`
}

// Graph's bounds for app roles: their number, and the characters of a value and of a description.
const (
	maxAppRoles       = 1200
	maxAppRoleValue   = 120
	maxAppRoleDetails = 1024
)

func (role AppRole) check() error {
	if id, err := innate.ParseGUID(role.ID); err != nil || id != role.ID || id == NoAppRole {
		return bad("The app role's id '%.40s' must be a GUID in lower case, and not all zeros.", role.ID)
	}
	if err := checkName(role.Name); err != nil {
		return err
	}
	if utf8.RuneCountInString(role.Description) > maxAppRoleDetails {
		return bad("The description of the app role '%s' must have at most %d characters.", role.Name, maxAppRoleDetails)
	}
	odd := func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }
	if len(role.Value) > maxAppRoleValue || strings.HasPrefix(role.Value, ".") || strings.ContainsFunc(role.Value, odd) {
		return bad("The value of the app role '%s' must be at most %d ASCII characters without spaces, double quotes and backslashes, and not begin with a full stop.", role.Name, maxAppRoleValue)
	}
	known := func(member string) bool { return member == "User" || member == "Application" }
	if len(role.Members) == 0 || len(role.Members) > 2 || slices.ContainsFunc(role.Members, func(m string) bool { return !known(m) }) {
		return bad("The allowedMemberTypes of the app role '%s' must be User, Application or both.", role.Name)
	}
	return nil
}

// admits reports whether o's own tokens may have the role. A group may hold any:
// what matters is who is in it.
func (role AppRole) admits(o Object) bool {
	switch o.Kind {
	case Group:
		return true
	case User:
		return slices.Contains(role.Members, "User")
	}
	return slices.Contains(role.Members, "Application")
}

// claimAppRoles gives service the roles of now instead of those of old; the
// assignments of a role that goes, go with it.
func claimAppRoles(tx store.Tx, service innate.ObjectID, old, now []AppRole) error {
	if len(now) > maxAppRoles {
		return bad("The application has %d app roles: want at most %d.", len(now), maxAppRoles)
	}
	there, values := map[string]bool{}, map[string]bool{}
	for _, role := range now {
		if err := role.check(); err != nil {
			return err
		}
		// Some verifiers compare roles without case: two that differ in nothing else would be one to them.
		value := strings.ToLower(role.Value)
		if there[role.ID] || value != "" && values[value] {
			return bad("The app role '%s' has the id or the value of another one: each must be unique on its application.", role.Name)
		}
		there[role.ID], values[value] = true, true
	}
	if !slices.ContainsFunc(old, func(role AppRole) bool { return !there[role.ID] }) {
		return nil
	}
	for _, a := range appRolesOf(tx, service) {
		if a.Role != NoAppRole && !there[a.Role] {
			dropAppRole(tx, a)
		}
	}
	return nil
}

// An AppRoleAssignment gives Principal, which may be a group, a role of Resource.
type AppRoleAssignment struct {
	Resource  innate.ObjectID `json:"resource"`
	Principal innate.ObjectID `json:"principal"`
	Role      string          `json:"role"` // of an AppRole; NoAppRole means none in particular
	Created   time.Time       `json:"created"`
}

// NoAppRole is the role of who is assigned to a service but to no role of it.
const NoAppRole = "00000000-0000-0000-0000-000000000000"

// An assignment is two rows, so that both questions are one range.
const (
	roleHolders store.Table[AppRoleAssignment] = "directory/approleholders/" // resource/principal/role
	rolesHeld   store.Table[AppRoleAssignment] = "directory/approlesheld/"   // principal/resource/role
)

func (a AppRoleAssignment) byResource() string {
	return pair(a.Resource, a.Principal) + "/" + a.Role
}

func (a AppRoleAssignment) byPrincipal() string {
	return pair(a.Principal, a.Resource) + "/" + a.Role
}

// ID says where the assignment is kept: one is found by it without a search.
func (a AppRoleAssignment) ID() string { return strings.ReplaceAll(a.byResource(), "/", ".") }

// AssignAppRole gives a.Principal the role; an assignment that is there already is returned as it is.
func AssignAppRole(tx store.Tx, a AppRoleAssignment, now time.Time) (AppRoleAssignment, error) {
	a.Role = strings.ToLower(a.Role)
	resource, err := find(tx, a.Resource)
	if err != nil {
		return AppRoleAssignment{}, err
	}
	principal, err := find(tx, a.Principal)
	if err != nil {
		return AppRoleAssignment{}, err
	}
	if err := mayHold(tx, principal, resource, a.Role); err != nil {
		return AppRoleAssignment{}, err
	}
	if have, ok, err := roleHolders.Get(tx, a.byResource()); err != nil || ok {
		return have, err
	}
	a.Created = now.UTC()
	if err := roleHolders.Put(tx, a.byResource(), a); err != nil {
		return AppRoleAssignment{}, err
	}
	return a, rolesHeld.Put(tx, a.byPrincipal(), a)
}

// mayHold refuses a role that resource does not have, or that is not for the likes of principal.
func mayHold(tx store.Tx, principal, resource Object, id string) error {
	r, ok, err := registrations.Get(tx, string(resource.Client))
	if err != nil {
		return err
	}
	if !ok {
		return bad("'%s' is not the service principal of an application: only an application has app roles.", resource.Name)
	}
	if id == NoAppRole {
		return nil
	}
	role := r.appRole(id)
	if role == nil {
		return &rest.Error{
			Status: http.StatusBadRequest, Code: "Request_BadRequest", Cause: errMissing,
			Message: "Permission being assigned was not found on application '" + r.Name + "': its appRoles have no such id.",
		}
	}
	if !role.admits(principal) {
		return bad("The app role '%s' is for members of type %s: '%s' is a %s.", role.Name, strings.Join(role.Members, " and "), principal.Name, principal.PrincipalType())
	}
	return nil
}

func dropAppRole(tx store.Tx, a AppRoleAssignment) {
	roleHolders.Delete(tx, a.byResource())
	rolesHeld.Delete(tx, a.byPrincipal())
}

// appRolesOf lists who is assigned to resource, and to what.
func appRolesOf(r store.Reader, resource innate.ObjectID) (all []AppRoleAssignment) {
	for _, a := range roleHolders.All(r, string(resource)+"/", "") {
		all = append(all, a)
	}
	return all
}

// appRolesHeldBy lists what is assigned to principal itself.
func appRolesHeldBy(r store.Reader, principal innate.ObjectID) (all []AppRoleAssignment) {
	for _, a := range rolesHeld.All(r, string(principal)+"/", "") {
		all = append(all, a)
	}
	return all
}

// dropAppRoles removes every assignment of id, as a service and as a holder.
func dropAppRoles(tx store.Tx, id innate.ObjectID) {
	for _, a := range append(appRolesOf(tx, id), appRolesHeldBy(tx, id)...) {
		dropAppRole(tx, a)
	}
}

func (r *Registration) appRole(id string) *AppRole {
	i := slices.IndexFunc(r.AppRoles, func(role AppRole) bool { return role.ID == id })
	if i < 0 {
		return nil
	}
	return &r.AppRoles[i]
}

// AppRoles says which roles of r a principal has, itself or by its groups:
// their values, sorted. assigned is true also for who has none in particular.
// A role that is disabled, or not for the likes of principal, counts for nothing.
func (d *Directory) AppRoles(r Registration, principal innate.ObjectID) (values []string, assigned bool) {
	held := d.index.appRoles(r.Principal, append([]innate.ObjectID{principal}, d.Groups(principal)...))
	if len(held) == 0 {
		return nil, false
	}
	holder, _ := d.Object(principal)
	for _, id := range held {
		if id == NoAppRole {
			assigned = true
			continue
		}
		role := r.appRole(id)
		if role == nil || !role.Enabled || !role.admits(holder) {
			continue
		}
		assigned = true
		if role.Value != "" {
			values = append(values, role.Value)
		}
	}
	slices.Sort(values)
	return slices.Compact(values), assigned
}
