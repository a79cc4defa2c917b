package databases

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/access"
	"innate/bearer"
	"innate/rest"
	"innate/store"
)

// typeServer is resources.TypePostgres; its actions begin so too.
const typeServer = "Microsoft.DBforPostgreSQL/flexibleServers"

// The children of a server's path, beside the kinds of mapping.
const (
	childGateway = "gateway"
	childLogins  = "logins"
)

// A call is a request with its path taken apart.
type call struct {
	*http.Request
	w      http.ResponseWriter
	who    innate.Principal
	server innate.ResourceID // as the path spells it
	child  string
	name   string // below the child; empty for the whole
}

// split takes a path apart: what is below a PostgreSQL server of ours.
func split(path string) (server innate.ResourceID, child, name string, ok bool) {
	const parts = 8 // subscriptions/s/resourceGroups/g/providers/ns/type/name
	all := strings.Split(strings.Trim(path, "/"), "/")
	if len(all) != parts+1 && len(all) != parts+2 {
		return "", "", "", false
	}
	server, err := innate.ParseResourceID("/" + strings.Join(all[:parts], "/"))
	if err != nil || !server.Is(typeServer) {
		return "", "", "", false
	}
	if len(all) > parts+1 {
		name = all[parts+1]
	}
	child = strings.ToLower(all[parts])
	return server, child, name, slices.Contains(append([]string{childGateway, childLogins}, kinds...), child)
}

// Serves reports whether Handler serves what a path names.
func Serves(path string) bool {
	_, _, _, ok := split(path)
	return ok
}

// Handler serves what is below the id of a PostgreSQL server. The caller wraps it in bearer.Require.
//
//	GET, PUT, DELETE {server}/administrators/{objectId}, GET {server}/administrators
//	  Azure's wire: properties {principalName, principalType, tenantId}. The principal may log
//	  in as the role principalName.
//	GET, PUT, DELETE {server}/principals/{objectId}, GET {server}/principals
//	  properties {roles, principalType}: the principal, or who is in the group, may log in as these.
//	GET {server}/logins
//	  Who may log in as what, and through which group.
//	GET {server}/gateway/feed?from=REVISION
//	  For the server's gateway. Newline-delimited events (feed/client.Event): key
//	  server, a feed/client.DatabaseServer; key login/<object id>, a
//	  feed/client.DatabaseLogin; key revoked/<kind>/<id>, a feed/client.Revocation.
//	  The answer ends when the token, the right or the server does.
//	POST {server}/gateway/audit
//	  From the server's gateway: lines of its audit log (audit/ship).
func (d *Databases) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := d.serve(w, r); err != nil {
			rest.WriteError(w, r, err)
		}
	})
}

func (d *Databases) serve(w http.ResponseWriter, r *http.Request) error {
	who, ok := bearer.From(r.Context())
	if !ok {
		return rest.Errorf(http.StatusUnauthorized, "AuthenticationFailed", "the request carries no valid token")
	}
	c := call{Request: r, w: w, who: who}
	if c.server, c.child, c.name, ok = split(r.URL.Path); !ok {
		return rest.Errorf(http.StatusNotFound, "NotFound", "nothing is served at %s", r.URL.Path)
	}
	if _, err := rest.Version(r, false); err != nil {
		return err
	}
	verbs := d.verbs(c)
	if verbs == nil {
		return rest.Errorf(http.StatusNotFound, "NotFound", "nothing is served at %s", r.URL.Path)
	}
	verb, ok := verbs[r.Method]
	if !ok {
		var allow []string
		for method := range verbs {
			allow = append(allow, method)
		}
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(allow, ", "))
		return rest.Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "%s is not served at %s", r.Method, r.URL.Path)
	}
	return verb(c)
}

// verbs are what may be asked at a path, by method; nil at one that is none.
func (d *Databases) verbs(c call) map[string]func(call) error {
	switch {
	case c.child == childGateway && strings.EqualFold(c.name, "feed"):
		return map[string]func(call) error{"GET": d.serveFeed}
	case c.child == childGateway && strings.EqualFold(c.name, "audit"):
		return map[string]func(call) error{"POST": d.takeAudit}
	case c.child == childLogins && c.name == "":
		return map[string]func(call) error{"GET": d.listLogins}
	case c.child == childGateway || c.child == childLogins:
		return nil
	case c.name == "":
		return map[string]func(call) error{"GET": d.listMapped}
	}
	return map[string]func(call) error{"GET": d.getMapped, "PUT": d.putMapped, "DELETE": d.deleteMapped}
}

// need asks for a right at the server, before anything is said of what exists,
// and makes this process see all that was committed before the question.
func (d *Databases) need(c call, action string) error {
	if err := d.config.Access.Require(c.Context(), c.who, access.Control(typeServer+"/"+action), c.server.Scope()); err != nil {
		return err
	}
	return d.config.DB.Sync(c.Context())
}

// server reads the server that a path names.
func (c call) find(r store.Reader) (Server, error) {
	s, ok, err := servers.Get(r, rowOf(c.server))
	if err == nil && !ok {
		err = rest.Errorf(http.StatusNotFound, "ResourceNotFound", "there is no %s", c.server)
	}
	return s, err
}

// principal reads the object id that a path names.
func (c call) principal() (innate.ObjectID, error) {
	id, err := innate.ParseGUID(c.name)
	if err != nil {
		return "", rest.Errorf(http.StatusBadRequest, "InvalidResourceName", "the principal %.60q: want its object id: %v", c.name, err)
	}
	return innate.ObjectID(id), nil
}

// view reads, with the server that the path names.
func (d *Databases) view(ctx context.Context, c call, fn func(store.Reader, Server) error) error {
	return d.config.DB.View(ctx, func(r store.Reader) error {
		s, err := c.find(r)
		if err != nil {
			return err
		}
		return fn(r, s)
	})
}

// A list is a page of anything.
type list[T any] struct {
	Value []T    `json:"value"`
	Next  string `json:"nextLink,omitempty"`
}

const pageSize = 200
