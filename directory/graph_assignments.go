package directory

import (
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/rest"
	"innate/store"
)

// An assignmentShape is an app role assignment as Graph writes it.
type assignmentShape struct {
	header
	ID            string          `json:"id"`
	Role          string          `json:"appRoleId"`
	Principal     innate.ObjectID `json:"principalId"`
	PrincipalType string          `json:"principalType"`
	PrincipalName string          `json:"principalDisplayName"`
	Resource      innate.ObjectID `json:"resourceId"`
	ResourceName  string          `json:"resourceDisplayName"`
	Created       time.Time       `json:"createdDateTime"`
}

func (d *Directory) writeAssignment(a AppRoleAssignment, h header) any {
	principal, _ := d.Object(a.Principal)
	resource, _ := d.Object(a.Resource)
	return assignmentShape{
		header: h, ID: a.ID(), Role: a.Role, Created: a.Created,
		Principal: a.Principal, PrincipalType: principal.PrincipalType(), PrincipalName: principal.Name,
		Resource: a.Resource, ResourceName: resource.Name,
	}
}

func (d *Directory) wholeAssignment(a AppRoleAssignment) any {
	return d.writeAssignment(a, header{Context: d.config.Graph + "/v1.0/$metadata#appRoleAssignments/$entity"})
}

// A side is one end of app role assignments, as a path names it.
type side struct {
	d     *Directory
	find  finder
	kept  func(store.Reader, innate.ObjectID) []AppRoleAssignment
	end   func(*AppRoleAssignment) *innate.ObjectID
	itsID string // the property of a new assignment that must name this end
	open  bool   // who it names may read it, without permission to read others
}

// assignedTo is the end of the service, at servicePrincipals/{id}/appRoleAssignedTo.
func (d *Directory) assignedTo(find finder) side {
	return side{d, find, appRolesOf, func(a *AppRoleAssignment) *innate.ObjectID { return &a.Resource }, "resourceId", false}
}

// assignments is the end of the holder, at {set}/{id}/appRoleAssignments.
func (d *Directory) assignments(find finder) side {
	return side{d, find, appRolesHeldBy, func(a *AppRoleAssignment) *innate.ObjectID { return &a.Principal }, "principalId", true}
}

func (s side) readable(r *http.Request, who innate.Principal) (Object, error) {
	if s.open {
		return s.d.readable(r, who, s.find)
	}
	if err := s.d.mayRead(r.Context(), who); err != nil {
		return Object{}, err
	}
	return s.find(r)
}

func (s side) list(r *http.Request, who innate.Principal) (int, any, error) {
	o, err := s.readable(r, who)
	if err != nil {
		return 0, nil, err
	}
	return page(s.d, r, lister[AppRoleAssignment]{
		set: "appRoleAssignments",
		items: func() (all []AppRoleAssignment, err error) {
			err = s.d.config.DB.View(r.Context(), func(rd store.Reader) error {
				all = s.kept(rd, o.ID)
				return nil
			})
			return all, err
		},
		id:     AppRoleAssignment.ID,
		fields: assignmentField,
		write:  func(a AppRoleAssignment) any { return s.d.writeAssignment(a, header{}) },
	})
}

// assignmentField is what a $filter may ask of an assignment.
func assignmentField(a AppRoleAssignment, name string) (values []string, known bool) {
	switch strings.ToLower(name) {
	case "id":
		return []string{a.ID()}, true
	case "approleid":
		return []string{a.Role}, true
	case "principalid":
		return []string{string(a.Principal)}, true
	case "resourceid":
		return []string{string(a.Resource)}, true
	}
	return nil, false
}

// named is the assignment that the path names. Only its ends and role are known
// to be as the path says: whether it exists is to be read.
func (s side) named(r *http.Request, o Object) (a AppRoleAssignment, err error) {
	id := r.PathValue("aid")
	parts := strings.Split(id, ".")
	if len(parts) != 3 {
		return a, notFound(id)
	}
	a = AppRoleAssignment{Resource: innate.ObjectID(parts[0]), Principal: innate.ObjectID(parts[1]), Role: parts[2]}
	if *s.end(&a) != o.ID {
		return a, notFound(id)
	}
	return a, nil
}

func (s side) get(r *http.Request, who innate.Principal) (int, any, error) {
	o, err := s.readable(r, who)
	if err != nil {
		return 0, nil, err
	}
	a, err := s.named(r, o)
	if err != nil {
		return 0, nil, err
	}
	var found AppRoleAssignment
	err = s.d.update(r.Context(), func(tx store.Tx) (err error) { // it only reads, and again if it misses something
		found, err = findAssignment(tx, a)
		return err
	})
	return http.StatusOK, s.d.wholeAssignment(found), err
}

// findAssignment reads what is kept of a.
func findAssignment(r store.Reader, a AppRoleAssignment) (AppRoleAssignment, error) {
	kept, ok, err := roleHolders.Get(r, a.byResource())
	if err == nil && !ok {
		err = notFound(a.ID())
	}
	return kept, err
}

const (
	actionAssign  = actionPrincipal + "appRoleAssignedTo/"
	mayAssignRole = actionAssign + "update"
)

func (s side) post(r *http.Request, who innate.Principal) (int, any, error) {
	if err := s.d.config.MayEdit(r.Context(), who, mayAssignRole); err != nil {
		return 0, nil, err
	}
	a, err := s.read(r)
	if err != nil {
		return 0, nil, err
	}
	var made AppRoleAssignment
	err = s.d.update(r.Context(), func(tx store.Tx) error {
		if _, there, err := roleHolders.Get(tx, a.byResource()); err != nil {
			return err
		} else if there {
			return bad("Permission being assigned already exists on the object.")
		}
		kept, err := AssignAppRole(tx, a, s.d.config.Now())
		if err != nil {
			return err
		}
		made = kept
		return s.d.leave(r.Context(), tx, who, actionAssign+"add", kept.byResource())
	})
	return http.StatusCreated, s.d.wholeAssignment(made), err
}

// read is the assignment that the body asks for; it names the end that the path
// names, or leaves it out.
func (s side) read(r *http.Request) (a AppRoleAssignment, err error) {
	var in struct {
		Principal innate.ObjectID `json:"principalId"`
		Resource  innate.ObjectID `json:"resourceId"`
		Role      string          `json:"appRoleId"`
	}
	if err := rest.Read(r, &in); err != nil {
		return a, err
	}
	o, err := s.find(r)
	if err != nil {
		return a, err
	}
	a = AppRoleAssignment{Resource: in.Resource, Principal: in.Principal, Role: in.Role}
	if end := s.end(&a); *end == "" {
		*end = o.ID
	} else if !strings.EqualFold(string(*end), string(o.ID)) {
		return a, bad("%s is not the id in the path, '%s'.", s.itsID, o.ID)
	}
	for _, id := range []*innate.ObjectID{&a.Principal, &a.Resource} {
		guid, err := innate.ParseGUID(string(*id))
		if err != nil {
			return a, bad("principalId and resourceId must be object ids: %s.", err)
		}
		*id = innate.ObjectID(guid)
	}
	if a.Role, err = innate.ParseGUID(a.Role); err != nil {
		return a, bad("appRoleId must be the id of one of the application's appRoles, or %s for none in particular: %s.", NoAppRole, err)
	}
	return a, nil
}

func (s side) delete(r *http.Request, who innate.Principal) (int, any, error) {
	if err := s.d.config.MayEdit(r.Context(), who, mayAssignRole); err != nil {
		return 0, nil, err
	}
	o, err := s.find(r)
	if err != nil {
		return 0, nil, err
	}
	a, err := s.named(r, o)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.d.update(r.Context(), func(tx store.Tx) error {
		if _, err := findAssignment(tx, a); err != nil {
			return err
		}
		dropAppRole(tx, a)
		return s.d.leave(r.Context(), tx, who, actionAssign+"remove", a.byResource())
	})
}
