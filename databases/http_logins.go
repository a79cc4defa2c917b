package databases

import (
	"net/http"

	"innate"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// A loginShape is one way in: who, as which role, by which mapping.
type loginShape struct {
	Object       innate.ObjectID `json:"objectId"`
	Name         string          `json:"principalName"`
	Type         string          `json:"principalType"`
	Role         string          `json:"role"`
	Admin        bool            `json:"administrator"`
	Through      innate.ObjectID `json:"throughGroup,omitempty"` // empty: it is mapped itself
	ThroughNamed string          `json:"throughGroupName,omitempty"`
}

// listLogins answers GET {server}/logins: who may log in as what now, in order
// of object id. A page ends with a principal.
func (d *Databases) listLogins(c call) error {
	if err := d.need(c, childLogins+"/read"); err != nil {
		return err
	}
	page, err := rest.PageOf(c.Request, pageSize)
	if err != nil {
		return err
	}
	answer := list[loginShape]{Value: []loginShape{}}
	err = d.view(c.Context(), c, func(r store.Reader, server Server) error {
		for id := range loginsAt(server.Resource).All(r, "", page.From) {
			if len(answer.Value) >= page.Size {
				answer.Next = page.Next(c.Request, id)
				return nil
			}
			ways, err := waysIn(r, server.Resource, innate.ObjectID(id))
			if err != nil {
				return err
			}
			answer.Value = append(answer.Value, ways...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// waysIn lists by which mappings a principal may log in as what.
func waysIn(r store.Reader, server innate.ResourceID, id innate.ObjectID) (all []loginShape, err error) {
	o, _, err := directory.Find(r, id)
	if err != nil {
		return nil, err
	}
	for _, h := range held(r, server, id) {
		if h.err != nil {
			return nil, h.err
		}
		way := loginShape{Object: id, Name: o.Name, Type: o.PrincipalType(), Admin: h.kind == administrators}
		if h.Object != id {
			group, _, err := directory.Find(r, h.Object)
			if err != nil {
				return nil, err
			}
			way.Through, way.ThroughNamed = group.ID, group.Name
		}
		for _, way.Role = range h.Roles {
			all = append(all, way)
		}
	}
	return all, nil
}
