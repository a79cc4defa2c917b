package access

import (
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/audit"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// pageSize is how many assignments a list has on a page.
const pageSize = 1000

// An assignmentShape is an assignment as ARM writes it (control-plane §4).
type assignmentShape struct {
	ID         string               `json:"id"`
	Name       string               `json:"name"`
	Type       string               `json:"type"`
	Properties assignmentProperties `json:"properties"`
}

type assignmentProperties struct {
	Role      string           `json:"roleDefinitionId"`
	Principal innate.ObjectID  `json:"principalId"`
	Kind      string           `json:"principalType"`
	Scope     innate.Scope     `json:"scope"`
	Minimum   innate.Assurance `json:"minimumAssurance,omitempty"` // ours
	CreatedOn time.Time        `json:"createdOn"`
	UpdatedOn time.Time        `json:"updatedOn"` // an assignment never changes
	CreatedBy innate.ObjectID  `json:"createdBy"`
	UpdatedBy innate.ObjectID  `json:"updatedBy"`
}

func (as Assignment) shape() assignmentShape {
	return assignmentShape{
		ID: below(as.Scope, "roleAssignments", as.ID), Name: as.ID, Type: "Microsoft.Authorization/roleAssignments",
		Properties: assignmentProperties{
			Role: definitionID(as.Scope, as.Role), Principal: as.Principal, Kind: as.Kind, Scope: as.Scope, Minimum: as.Minimum,
			CreatedOn: as.CreatedOn, UpdatedOn: as.CreatedOn, CreatedBy: as.CreatedBy, UpdatedBy: as.CreatedBy,
		},
	}
}

// listAssignments lists what is at the scope, above it and below it, as far as
// $filter admits it.
func (a *Access) listAssignments(c call) (int, any, error) {
	if err := a.Require(c.Context(), c.who, readAssignment, c.at); err != nil {
		return 0, nil, err
	}
	filter, err := rest.ParseFilter(c.URL.Query().Get("$filter"))
	if err != nil {
		return 0, nil, err
	}
	page, err := rest.PageOf(c.Request, pageSize)
	if err != nil {
		return 0, nil, err
	}
	answer := list[assignmentShape]{Value: []assignmentShape{}}
	for _, as := range a.index.around(c.at) {
		row := as.row()
		if row < page.From {
			continue
		}
		ok, err := a.admits(filter, as, c.at)
		if err != nil {
			return 0, nil, err
		}
		if !ok {
			continue
		}
		if len(answer.Value) == page.Size {
			answer.Next = page.Next(c.Request, row)
			break
		}
		answer.Value = append(answer.Value, as.shape())
	}
	return http.StatusOK, answer, nil
}

// admits evaluates a $filter on one assignment, asked for at a scope.
func (a *Access) admits(filter *rest.Filter, as *Assignment, at innate.Scope) (bool, error) {
	unknown := ""
	ok, err := filter.Match(
		func(name string) []string {
			switch strings.ToLower(name) {
			case "principalid":
				return []string{string(as.Principal)}
			case "roledefinitionid":
				return []string{definitionID(as.Scope, as.Role), as.Role}
			}
			unknown = name
			return nil
		},
		func(name string, args []string) (bool, error) {
			switch {
			case strings.EqualFold(name, "atScope") && len(args) == 0:
				return as.Scope.Contains(at), nil
			case strings.EqualFold(name, "assignedTo") && len(args) == 1:
				return a.isOneOf(as.Principal, args[0]), nil
			}
			unknown = name + "()"
			return false, nil
		})
	if err == nil && unknown != "" {
		err = rest.Errorf(http.StatusBadRequest, "UnsupportedQuery",
			"$filter asks for %s: role assignments can be filtered by atScope(), principalId eq, assignedTo('…') and roleDefinitionId eq.", unknown)
	}
	return ok, err
}

// isOneOf reports whether a grant to holder is one to id, directly or through a group.
func (a *Access) isOneOf(holder innate.ObjectID, id string) bool {
	for _, one := range a.identities(innate.ObjectID(strings.ToLower(id))) {
		if one == holder {
			return true
		}
	}
	return false
}

func (a *Access) getAssignment(c call) (int, any, error) {
	if err := a.Require(c.Context(), c.who, readAssignment, c.at); err != nil {
		return 0, nil, err
	}
	row := rowOf(c.at, c.name)
	as, ok := a.index.get(row)
	if !ok {
		if err := a.config.DB.Sync(c.Context()); err != nil {
			return 0, nil, err
		}
		as, ok = a.index.get(row)
	}
	if !ok {
		return 0, nil, rest.Errorf(http.StatusNotFound, "RoleAssignmentNotFound", "The role assignment '%s' is not found at %s.", c.name, c.at)
	}
	return http.StatusOK, as.shape(), nil
}

func (a *Access) putAssignment(c call) (int, any, error) {
	as, err := readAssignmentBody(c)
	if err != nil {
		return 0, nil, err
	}
	ctx := c.Context()
	if err := a.Require(ctx, c.who, writeAssignment, c.at); err != nil {
		return 0, nil, err
	}
	// Whatever was made before the call is there to be granted on, and to.
	if err := a.config.DB.Sync(ctx); err != nil {
		return 0, nil, err
	}
	as.CreatedOn, as.CreatedBy = a.config.Now().UTC(), c.who.Object
	var made Assignment
	var status int
	_, err = a.config.DB.Update(ctx, func(tx store.Tx) error {
		if err := a.mustExist(tx, c.at); err != nil {
			return err
		}
		if err := checkPrincipal(tx, as); err != nil {
			return err
		}
		old, ok, err := assignments.Get(tx, as.row())
		if err != nil {
			return err
		}
		if ok && old.Principal == as.Principal && old.Role == as.Role && old.Minimum == as.Minimum {
			made, status = old, http.StatusOK // a replay
			return nil
		}
		if made, err = assign(tx, as); err != nil {
			return err
		}
		status = http.StatusCreated
		return a.leave(tx, c, writeAssignment.Name, made)
	})
	if err != nil {
		return 0, nil, err
	}
	return status, made.shape(), nil
}

// mustExist refuses a scope at which there is nothing; the root and management
// groups are no resources and always there.
func (a *Access) mustExist(r store.Reader, at innate.Scope) error {
	if !strings.HasPrefix(at.Key(), "/subscriptions/") {
		return nil
	}
	if ok, err := a.config.Exists(r, at); err != nil || ok {
		return err
	}
	return noResource(at)
}

func noResource(at innate.Scope) error {
	return rest.Errorf(http.StatusNotFound, "ResourceNotFound", "The resource '%s' was not found.", at)
}

// readAssignmentBody reads what a PUT asks for.
func readAssignmentBody(c call) (Assignment, error) {
	var in struct {
		Properties struct {
			Role      string `json:"roleDefinitionId"`
			Principal string `json:"principalId"`
			Kind      string `json:"principalType"`
			Condition string `json:"condition"`
			Minimum   string `json:"minimumAssurance"`
		} `json:"properties"`
	}
	if err := rest.Read(c.Request, &in); err != nil {
		return Assignment{}, err
	}
	p := in.Properties
	if p.Condition != "" {
		return Assignment{}, rest.Errorf(http.StatusBadRequest, "UnsupportedCondition", "properties.condition is not supported: leave it out, or use a narrower scope or role. How surely a workload must be proved is properties.minimumAssurance.")
	}
	role, err := lastSegment(p.Role)
	if err != nil {
		return Assignment{}, rest.Errorf(http.StatusBadRequest, "InvalidRoleDefinitionId", "properties.roleDefinitionId must end in the id of a role: %s.", err)
	}
	principal, err := innate.ParseGUID(p.Principal)
	if err != nil {
		return Assignment{}, rest.Errorf(http.StatusBadRequest, "InvalidPrincipalId", "properties.principalId must be an object id: %s.", err)
	}
	switch p.Kind {
	case "", "User", "Group", "ServicePrincipal":
	default:
		return Assignment{}, rest.Errorf(http.StatusBadRequest, "InvalidPrincipalType", "properties.principalType is '%.40s': want User, Group or ServicePrincipal, or leave it out.", p.Kind)
	}
	var minimum innate.Assurance
	if p.Minimum != "" {
		if minimum, err = innate.ParseAssurance(p.Minimum); err != nil {
			return Assignment{}, rest.Errorf(http.StatusBadRequest, "InvalidMinimumAssurance", "properties.minimumAssurance: %s.", err)
		}
	}
	return Assignment{ID: c.name, Scope: c.at, Role: role, Principal: innate.ObjectID(principal), Kind: p.Kind, Minimum: minimum}, nil
}

// checkPrincipal refuses a principal of another kind than was said. Somebody
// unknown is accepted only with a kind: it says that the principal is on its way.
func checkPrincipal(tx store.Tx, as Assignment) error {
	o, ok, err := directory.Find(tx, as.Principal)
	switch {
	case err != nil:
		return err
	case !ok && as.Kind == "":
		return rest.Errorf(http.StatusBadRequest, "PrincipalNotFound",
			"Principal %s does not exist in the directory. If it was just created, say its principalType.", as.Principal)
	case ok && as.Kind != "" && as.Kind != o.PrincipalType():
		return rest.Errorf(http.StatusBadRequest, "UnmatchedPrincipalType",
			"The principal %s is a %s, not a %s.", as.Principal, o.PrincipalType(), as.Kind)
	}
	return nil
}

func (a *Access) deleteAssignment(c call) (int, any, error) {
	ctx := c.Context()
	if err := a.Require(ctx, c.who, deleteAssignment, c.at); err != nil {
		return 0, nil, err
	}
	if err := a.config.DB.Sync(ctx); err != nil {
		return 0, nil, err
	}
	var gone Assignment
	var there bool
	_, err := a.config.DB.Update(ctx, func(tx store.Tx) (err error) {
		if gone, there, err = assignments.Get(tx, rowOf(c.at, c.name)); err != nil || !there {
			return err
		}
		remove(tx, gone)
		return a.leave(tx, c, deleteAssignment.Name, gone)
	})
	if err != nil {
		return 0, nil, err
	}
	if !there {
		return http.StatusNoContent, nil, nil
	}
	return http.StatusOK, gone.shape(), nil
}

// leave puts the record of a change in the transaction that makes it.
func (a *Access) leave(tx store.Tx, c call, action string, as Assignment) error {
	ev := a.event(c.Context(), c.who, action, below(as.Scope, "roleAssignments", as.ID))
	role, _, err := findRole(tx, as.Role)
	if err != nil {
		return err
	}
	ev.Allowed = true
	ev.Detail = map[string]string{"principalId": string(as.Principal), "role": role.Name}
	if as.Minimum > innate.Unproved {
		ev.Detail["minimumAssurance"] = as.Minimum.String()
	}
	return audit.Leave(tx, ev)
}
