package directory

import (
	"slices"
	"strings"
	"time"

	"innate"
	"innate/store"
)

// An AppRole is what a registration lets others be: the value stands in the
// roles of their tokens for it.
type AppRole struct {
	ID          string   `json:"id"`
	Value       string   `json:"value,omitempty"`
	Name        string   `json:"displayName"`
	Description string   `json:"description,omitempty"`
	Members     []string `json:"allowedMemberTypes"` // User, Application
	Enabled     bool     `json:"isEnabled"`
}

// An AppRoleAssignment gives Principal, which may be a group, a role of Resource.
type AppRoleAssignment struct {
	ID        string          `json:"id"` // a GUID
	Resource  innate.ObjectID `json:"resource"`
	Principal innate.ObjectID `json:"principal"`
	Role      string          `json:"role"` // of an AppRole; NoAppRole means none in particular
	Created   time.Time       `json:"created"`
}

// NoAppRole is the role of who is assigned to a service that has none.
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

// AssignAppRole gives a.Principal the role; one that is there already is returned as it is.
func AssignAppRole(tx store.Tx, a AppRoleAssignment, now time.Time) (AppRoleAssignment, error) {
	a.Role = strings.ToLower(a.Role)
	resource, err := find(tx, a.Resource)
	if err != nil {
		return AppRoleAssignment{}, err
	}
	if _, err := find(tx, a.Principal); err != nil {
		return AppRoleAssignment{}, err
	}
	r, ok, err := registrations.Get(tx, string(resource.Client))
	if err != nil {
		return AppRoleAssignment{}, err
	}
	if !ok || a.Role != NoAppRole && r.appRole(a.Role) == nil {
		return AppRoleAssignment{}, bad("Permission being assigned was not found on application '%s': its appRoles have no id '%s'.", a.Resource, a.Role)
	}
	if have, ok, err := roleHolders.Get(tx, a.byResource()); err != nil || ok {
		return have, err
	}
	a.ID, a.Created = innate.NewGUID(), now.UTC()
	if err := roleHolders.Put(tx, a.byResource(), a); err != nil {
		return AppRoleAssignment{}, err
	}
	return a, rolesHeld.Put(tx, a.byPrincipal(), a)
}

// DropAppRole removes an assignment.
func DropAppRole(tx store.Tx, a AppRoleAssignment) {
	roleHolders.Delete(tx, a.byResource())
	rolesHeld.Delete(tx, a.byPrincipal())
}

// appRolesOf lists what is assigned to resource's callers.
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
		DropAppRole(tx, a)
	}
}

func (r *Registration) appRole(id string) *AppRole {
	i := slices.IndexFunc(r.AppRoles, func(role AppRole) bool { return strings.EqualFold(role.ID, id) })
	if i < 0 {
		return nil
	}
	return &r.AppRoles[i]
}

// AppRoles says which roles of r a principal has, itself or by its groups:
// their values, sorted. assigned is true also for who has none in particular.
func (d *Directory) AppRoles(r Registration, principal innate.ObjectID) (values []string, assigned bool) {
	holders := append([]innate.ObjectID{principal}, d.Groups(principal)...)
	for _, id := range d.index.appRoles(r.Principal, holders) {
		assigned = true
		if role := r.appRole(id); role != nil && role.Enabled && role.Value != "" {
			values = append(values, role.Value)
		}
	}
	slices.Sort(values)
	return slices.Compact(values), assigned
}
