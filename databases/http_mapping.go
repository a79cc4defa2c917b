package databases

import (
	"fmt"
	"net/http"
	"strings"

	"innate"
	"innate/audit"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// A shape is a mapping as ARM shows it (control-plane §3.6).
type shape struct {
	ID         innate.ResourceID `json:"id"`
	Name       innate.ObjectID   `json:"name"`
	Type       string            `json:"type"`
	Properties properties        `json:"properties"`
}

// properties of an administrator are Azure's: the role is the principalName. Of
// an ordinary principal principalName is what the directory calls it.
type properties struct {
	Object        innate.ObjectID `json:"objectId"`
	PrincipalName string          `json:"principalName"`
	PrincipalType string          `json:"principalType"`
	Tenant        innate.TenantID `json:"tenantId,omitempty"`
	Roles         []string        `json:"roles,omitempty"`
	State         string          `json:"provisioningState"`
}

// show is a mapping with what the directory says of its principal.
func (d *Databases) show(r store.Reader, server innate.ResourceID, kind string, m mapping) (shape, error) {
	o, _, err := directory.Find(r, m.Object)
	s := shape{
		ID: server + innate.ResourceID("/"+kind+"/"+string(m.Object)), Name: m.Object, Type: typeServer + "/" + kind,
		Properties: properties{Object: m.Object, PrincipalName: o.Name, PrincipalType: o.PrincipalType(), State: "Succeeded"},
	}
	if kind == administrators {
		s.Properties.PrincipalName, s.Properties.Tenant = m.Roles[0], d.config.Tenant
	} else {
		s.Properties.Roles = m.Roles
	}
	return s, err
}

// listMapped answers GET {server}/administrators and {server}/principals, in order of object id.
func (d *Databases) listMapped(c call) error {
	if err := d.need(c, c.child+"/read"); err != nil {
		return err
	}
	page, err := rest.PageOf(c.Request, pageSize)
	if err != nil {
		return err
	}
	answer := list[shape]{Value: []shape{}}
	err = d.view(c.Context(), c, func(r store.Reader, server Server) error {
		under := mappedRow(server.Resource, c.child, "")
		from := ""
		if page.From != "" {
			from = under + page.From
		}
		for row, m := range mapped.All(r, under, from) {
			if len(answer.Value) == page.Size {
				answer.Next = page.Next(c.Request, row[len(under):])
				return nil
			}
			one, err := d.show(r, server.Resource, c.child, m)
			if err != nil {
				return err
			}
			answer.Value = append(answer.Value, one)
		}
		return nil
	})
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// getMapped answers GET of one mapping.
func (d *Databases) getMapped(c call) error {
	if err := d.need(c, c.child+"/read"); err != nil {
		return err
	}
	id, err := c.principal()
	if err != nil {
		return err
	}
	var answer shape
	err = d.view(c.Context(), c, func(r store.Reader, server Server) error {
		m, ok, err := mapped.Get(r, mappedRow(server.Resource, c.child, id))
		if err != nil {
			return err
		}
		if !ok {
			return rest.Errorf(http.StatusNotFound, "ResourceNotFound", "%s is not among the %s of %s", id, c.child, server.Resource.Name())
		}
		answer, err = d.show(r, server.Resource, c.child, m)
		return err
	})
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// putMapped answers PUT of one mapping: 200 always, since Azure's client refuses
// 201 of an administrator (control-plane §3.4).
func (d *Databases) putMapped(c call) error {
	action := c.child + "/write"
	if err := d.need(c, action); err != nil {
		return err
	}
	m, want, err := d.wanted(c)
	if err != nil {
		return err
	}
	var answer shape
	if _, err := d.config.DB.Update(c.Context(), func(tx store.Tx) error {
		server, err := c.find(tx)
		if err != nil {
			return err
		}
		if err := known(tx, m.Object, want); err != nil {
			return err
		}
		if err := d.put(tx, server.Resource, c.child, m); err != nil {
			return err
		}
		if answer, err = d.show(tx, server.Resource, c.child, m); err != nil {
			return err
		}
		ev := d.event(c.Context(), c.who, typeServer+"/"+action, string(answer.ID))
		ev.Detail = map[string]string{"roles": fmt.Sprintf("%q", m.Roles)}
		return audit.Leave(tx, ev)
	}); err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// wanted reads what a PUT wants: the mapping, and of what type its principal is said to be.
func (d *Databases) wanted(c call) (m mapping, typ string, err error) {
	if m.Object, err = c.principal(); err != nil {
		return m, "", err
	}
	var body struct {
		Properties *struct {
			Name   string   `json:"principalName"`
			Type   string   `json:"principalType"`
			Tenant string   `json:"tenantId"`
			Roles  []string `json:"roles"`
		} `json:"properties"`
	}
	if err := rest.Read(c.Request, &body); err != nil {
		return m, "", err
	}
	p := body.Properties
	switch {
	case p == nil && c.child == administrators:
		return m, "", bad("properties", `the request body has no properties: want {"properties": {"principalName": the PostgreSQL role, "principalType": "ServicePrincipal"}}`)
	case p == nil:
		return m, "", bad("properties", `the request body has no properties: want {"properties": {"roles": ["app-orders"]}}`)
	case p.Tenant != "" && !strings.EqualFold(p.Tenant, string(d.config.Tenant)):
		return m, "", bad("properties.tenantId", "%.60q: want %s, the only tenant here", p.Tenant, d.config.Tenant)
	}
	if c.child == principals {
		m.Roles, err = checkRoles("roles", p.Roles)
		return m, p.Type, err
	}
	if len(p.Roles) > 0 {
		return m, "", bad("properties.roles", "an administrator has one role, the principalName; other roles are for {server}/principals")
	}
	m.Roles = []string{p.Name}
	return m, p.Type, checkRole("principalName", p.Name)
}

// known refuses a principal that is not in the directory, or is of another type
// than it is said to be; Unknown and nothing at all are any type.
func known(tx store.Tx, id innate.ObjectID, typ string) error {
	o, ok, err := directory.Find(tx, id)
	if err != nil {
		return err
	}
	if !ok {
		return rest.Errorf(http.StatusBadRequest, "PrincipalNotFound",
			"there is no principal %s in the directory: want the object id of a managed identity, app registration's service principal, group or user", id)
	}
	if is := o.PrincipalType(); typ != "" && !strings.EqualFold(typ, "Unknown") && !strings.EqualFold(typ, is) {
		return bad("properties.principalType", "%.40q: %s (%s) is a %s", typ, o.Name, id, is)
	}
	return nil
}

func bad(target, format string, args ...any) error {
	e := rest.Errorf(http.StatusBadRequest, "InvalidParameter", format, args...)
	e.Target, e.Message = target, target+": "+e.Message
	return e
}

// deleteMapped answers DELETE of one mapping: 204, also when there is none
// (Azure's client refuses 200).
func (d *Databases) deleteMapped(c call) error {
	action := c.child + "/delete"
	if err := d.need(c, action); err != nil {
		return err
	}
	id, err := c.principal()
	if err != nil {
		return err
	}
	if _, err := d.config.DB.Update(c.Context(), func(tx store.Tx) error {
		server, err := c.find(tx)
		if err != nil {
			return err
		}
		m, ok, err := mapped.Get(tx, mappedRow(server.Resource, c.child, id))
		if err != nil || !ok {
			return err
		}
		if err := d.drop(tx, server.Resource, c.child, id); err != nil {
			return err
		}
		ev := d.event(c.Context(), c.who, typeServer+"/"+action, string(server.Resource)+"/"+c.child+"/"+string(id))
		ev.Detail = map[string]string{"roles": fmt.Sprintf("%q", m.Roles)}
		return audit.Leave(tx, ev)
	}); err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
