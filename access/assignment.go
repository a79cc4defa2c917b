package access

import (
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// An Assignment gives a principal a role at a scope.
type Assignment struct {
	ID        string          `json:"id"` // GUID chosen by the client
	Scope     innate.Scope    `json:"scope"`
	Role      string          `json:"role"` // GUID
	Principal innate.ObjectID `json:"principal"`
	Kind      string          `json:"kind,omitempty"` // principalType as Graph says it
	// Minimum is how surely the principal must be proved to run where its token says;
	// whoever is proved less surely, or has no host, is not granted anything.
	Minimum   innate.Assurance `json:"minimumAssurance,omitempty"`
	CreatedOn time.Time        `json:"createdOn"`
	CreatedBy innate.ObjectID  `json:"createdBy,omitempty"`
}

// An assignment is two rows, so that what is at or below a scope is one range,
// and what a principal has is another. The second also keeps a grant single.
const (
	assignments store.Table[Assignment] = "access/at/" // scope//id; a scope has no doubled slash
	grants      store.Table[string]     = "access/of/" // principal/role/scope; the row above
)

// under is the prefix of the rows at a scope and below it.
func under(at innate.Scope) string {
	if at == innate.Root {
		return ""
	}
	return strings.TrimPrefix(at.Key(), "/") + "/"
}

func rowOf(at innate.Scope, id string) string {
	return strings.Trim(at.Key(), "/") + "//" + id
}

func (as Assignment) row() string { return rowOf(as.Scope, as.ID) }

func (as Assignment) grantRow() string {
	return string(as.Principal) + "/" + as.Role + as.Scope.Key()
}

// Assign grants inside a transaction, without asking: for what the platform
// itself grants at its creation. The role must exist and be assignable there;
// a second assignment of the same role to the same principal at the same scope
// is refused. An empty Kind is filled in from the directory.
func Assign(tx store.Tx, as Assignment) error {
	_, err := assign(tx, as)
	return err
}

// assign is Assign; it returns what stands now.
func assign(tx store.Tx, as Assignment) (Assignment, error) {
	role, ok, err := findRole(tx, as.Role)
	if err != nil {
		return Assignment{}, err
	}
	if !ok || !role.assignableAt(as.Scope) {
		return Assignment{}, rest.Errorf(http.StatusNotFound, "RoleDefinitionDoesNotExist",
			"There is no role definition '%s' that can be assigned at %s: 'innate role definitions' lists them.", as.Role, as.Scope)
	}
	if row, ok, err := grants.Get(tx, as.grantRow()); err != nil {
		return Assignment{}, err
	} else if ok {
		return Assignment{}, exists(tx, as, row)
	}
	if _, ok, err := assignments.Get(tx, as.row()); err != nil {
		return Assignment{}, err
	} else if ok {
		return Assignment{}, rest.Errorf(http.StatusConflict, "RoleAssignmentUpdateNotPermitted",
			"The role assignment %s exists with another principal, role or minimumAssurance, which cannot be changed: delete it, or choose another id.", as.ID)
	}
	if as.Kind == "" {
		o, _, err := directory.Find(tx, as.Principal)
		if err != nil {
			return Assignment{}, err
		}
		as.Kind = o.PrincipalType()
	}
	if as.Minimum > innate.Unproved && as.Kind == "User" {
		return Assignment{}, rest.Errorf(http.StatusBadRequest, "InvalidMinimumAssurance",
			"properties.minimumAssurance is for workloads: a user runs on no host, and would never be granted anything.")
	}
	if err := assignments.Put(tx, as.row(), as); err != nil {
		return Assignment{}, err
	}
	return as, grants.Put(tx, as.grantRow(), as.row())
}

// exists refuses what is granted already, in an assignment of another id.
func exists(tx store.Tx, as Assignment, row string) error {
	old, _, err := assignments.Get(tx, row)
	if err != nil {
		return err
	}
	if old.Minimum != as.Minimum {
		return rest.Errorf(http.StatusConflict, "RoleAssignmentUpdateNotPermitted",
			"The role is assigned already, with the minimumAssurance '%s', which cannot be changed: delete that assignment first. Its id is %s.", old.Minimum, old.ID)
	}
	return rest.Errorf(http.StatusConflict, "RoleAssignmentExists", "The role assignment already exists. Its id is %s.", old.ID)
}

// remove deletes both rows of an assignment.
func remove(tx store.Tx, as Assignment) {
	assignments.Delete(tx, as.row())
	grants.Delete(tx, as.grantRow())
}

// DeleteAt removes the assignments at a resource and below it, with the resource.
func DeleteAt(tx store.Tx, at innate.Scope) error {
	for _, as := range assignments.All(tx, under(at), "") {
		remove(tx, as)
	}
	return nil
}

// DeleteOf removes a principal's assignments, with the principal.
func DeleteOf(tx store.Tx, id innate.ObjectID) error {
	for grant, row := range grants.All(tx, string(id)+"/", "") {
		assignments.Delete(tx, row)
		grants.Delete(tx, grant)
	}
	return nil
}
