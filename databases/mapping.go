package databases

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"innate"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// The kinds of mapping, as the paths and actions below a server spell them.
const (
	administrators = "administrators" // Azure's: one role, the principalName
	principals     = "principals"     // ours: roles
)

var kinds = []string{administrators, principals}

// A mapping says that a principal, or all who are in a group, may log in at a
// server as any of some roles.
type mapping struct {
	Object innate.ObjectID `json:"object"`
	Roles  []string        `json:"roles"` // sorted
}

func mappedRow(server innate.ResourceID, kind string, id innate.ObjectID) string {
	return rowOf(server) + "//" + kind + "/" + string(id)
}

func holdingRow(id innate.ObjectID, kind string, server innate.ResourceID) string {
	return string(id) + "/" + kind + server.Key()
}

// A hold is a mapping by which a principal may log in, its own or a group's.
type hold struct {
	mapping
	kind string
	err  error
}

// held lists the mappings at a server that reach a principal.
func held(r store.Reader, server innate.ResourceID, id innate.ObjectID) (all []hold) {
	for _, holder := range append([]innate.ObjectID{id}, directory.GroupsIn(r, id)...) {
		for _, kind := range kinds {
			m, ok, err := mapped.Get(r, mappedRow(server, kind, holder))
			if ok || err != nil {
				all = append(all, hold{m, kind, err})
			}
		}
	}
	return all
}

// put writes a mapping, in a transaction that found the server and the principal to be there.
func (d *Databases) put(tx store.Tx, server innate.ResourceID, kind string, m mapping) error {
	if err := mapped.Put(tx, mappedRow(server, kind, m.Object), m); err != nil {
		return err
	}
	if err := holding.Put(tx, holdingRow(m.Object, kind, server), server); err != nil {
		return err
	}
	return d.follow(tx, server, m.Object)
}

// drop removes a mapping.
func (d *Databases) drop(tx store.Tx, server innate.ResourceID, kind string, id innate.ObjectID) error {
	mapped.Delete(tx, mappedRow(server, kind, id))
	holding.Delete(tx, holdingRow(id, kind, server))
	return d.follow(tx, server, id)
}

// follow brings up to date whoever a mapping of id reaches.
func (d *Databases) follow(tx store.Tx, server innate.ResourceID, id innate.ObjectID) error {
	return d.refresh(tx, []innate.ResourceID{server}, append(directory.MembersIn(tx, id), id)...)
}

const (
	maxRoles    = 32 // of one mapping
	maxRoleName = 63 // bytes: PostgreSQL's NAMEDATALEN is 64, and it cuts what is longer without a word
)

// checkRole refuses what is no PostgreSQL role, and the roles that no identity
// may be: a superuser's sessions cannot be ended by the gateway, and whoever is
// the gateway's own could end everybody's.
func checkRole(property, name string) error {
	bad := func(why string) error {
		e := rest.Errorf(http.StatusBadRequest, "InvalidParameter", "properties.%s: the role %.100q %s", property, name, why)
		e.Target = "properties." + property
		return e
	}
	switch {
	case name == "":
		return bad("is empty")
	case len(name) > maxRoleName:
		return bad(fmt.Sprintf("has %d bytes: PostgreSQL's role names have at most %d", len(name), maxRoleName))
	case !utf8.ValidString(name):
		return bad("is not UTF-8")
	case strings.ContainsRune(name, 0):
		return bad("has a NUL in it")
	case name == "postgres":
		return bad("is the usual superuser: nobody is mapped to a superuser, whose sessions could not be ended. Map to a role of its own, and grant that role what it needs")
	case strings.HasPrefix(name, "pg_"):
		return bad("is one of PostgreSQL's own, as which nobody can log in: map to a role of its own, and grant it " + name)
	case strings.HasPrefix(name, "innate_"):
		return bad("is the gateway's own: names that begin with innate_ are kept for it")
	case name == "public" || name == "none":
		return bad("is a word of PostgreSQL's, and no role")
	}
	return nil
}

// checkRoles checks the roles of a mapping, and returns them in order, each once.
func checkRoles(property string, roles []string) ([]string, error) {
	if len(roles) == 0 || len(roles) > maxRoles {
		e := rest.Errorf(http.StatusBadRequest, "InvalidParameter",
			"properties.%s has %d roles: want 1 to %d, such as [\"app-orders\"]; to take everything away, DELETE the mapping", property, len(roles), maxRoles)
		e.Target = "properties." + property
		return nil, e
	}
	for _, name := range roles {
		if err := checkRole(property, name); err != nil {
			return nil, err
		}
	}
	sorted := slices.Sorted(slices.Values(roles))
	return slices.Compact(sorted), nil
}
