package directory

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/bearer"
	"innate/rest"
)

// pageSize is how many objects a list has on a page (Graph's own default).
const pageSize = 100

// Handler serves GRAPH: /v1.0/… and /beta/… . The caller wraps it in bearer.Require.
func (d *Directory) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, serve := range d.routes() {
		mux.Handle(pattern, known(serve))
	}
	mux.Handle("/", known(notServed))
	return canonical(mux)
}

// routes are all that is served. {v} is v1.0 or beta, which is an alias: azuread
// does its group work there (control-plane §6).
func (d *Directory) routes() map[string]verb {
	const credentials = "/{v}/applications/{id}/federatedidentitycredentials"
	assignedTo := d.assignedTo(d.principal)
	routes := map[string]verb{
		"GET /{v}/me": d.getMe,

		"GET /{v}/serviceprincipals":         d.listObjects("servicePrincipals", Application, ManagedIdentity),
		"POST /{v}/serviceprincipals":        d.postPrincipal,
		"GET /{v}/serviceprincipals/{id}":    d.getPrincipal,
		"PATCH /{v}/serviceprincipals/{id}":  d.patchPrincipal,
		"DELETE /{v}/serviceprincipals/{id}": d.deletePrincipal,

		"GET /{v}/applications":                      d.listApplications,
		"POST /{v}/applications":                     d.postApplication,
		"GET /{v}/applications/{id}":                 d.getApplication,
		"PATCH /{v}/applications/{id}":               d.patchApplication,
		"DELETE /{v}/applications/{id}":              d.deleteApplication,
		"POST /{v}/applications/{id}/addpassword":    d.addPassword,
		"POST /{v}/applications/{id}/removepassword": d.removePassword,
		"POST /{v}/applications/{id}/addkey":         d.addKey,
		"POST /{v}/applications/{id}/removekey":      d.removeKey,

		"GET /{v}/users":         d.listObjects("users", User),
		"POST /{v}/users":        d.postUser,
		"GET /{v}/users/{id}":    d.getUser,
		"DELETE /{v}/users/{id}": d.deleteUser,

		"GET /{v}/groups":                            d.listObjects("groups", Group),
		"POST /{v}/groups":                           d.postGroup,
		"GET /{v}/groups/{id}":                       d.getGroup,
		"PATCH /{v}/groups/{id}":                     d.patchGroup,
		"DELETE /{v}/groups/{id}":                    d.deleteGroup,
		"GET /{v}/groups/{id}/members":               d.listMembers,
		"POST /{v}/groups/{id}/members/$ref":         d.postMember,
		"DELETE /{v}/groups/{id}/members/{mid}/$ref": d.deleteMember,
		"POST /{v}/directoryobjects/getbyids":        d.getByIDs,

		"GET " + credentials:               d.listFederated,
		"POST " + credentials:              d.postFederated,
		"GET " + credentials + "/{fid}":    d.getFederated,
		"PATCH " + credentials + "/{fid}":  d.patchFederated,
		"DELETE " + credentials + "/{fid}": d.deleteFederated,

		"GET /{v}/serviceprincipals/{id}/approleassignedto":          assignedTo.list,
		"POST /{v}/serviceprincipals/{id}/approleassignedto":         assignedTo.post,
		"GET /{v}/serviceprincipals/{id}/approleassignedto/{aid}":    assignedTo.get,
		"DELETE /{v}/serviceprincipals/{id}/approleassignedto/{aid}": assignedTo.delete,
	}
	for set, find := range map[string]finder{"serviceprincipals": d.principal, "users": d.user, "groups": d.group} {
		one, held := " /{v}/"+set+"/{id}", d.assignments(find)
		routes["GET"+one+"/memberof"] = d.memberOf(find, d.directGroups)
		routes["GET"+one+"/transitivememberof"] = d.memberOf(find, d.Groups)
		routes["POST"+one+"/getmembergroups"] = d.memberGroups(find)
		routes["POST"+one+"/getmemberobjects"] = d.memberGroups(find)
		routes["GET"+one+"/approleassignments"] = held.list
		routes["POST"+one+"/approleassignments"] = held.post
		routes["GET"+one+"/approleassignments/{aid}"] = held.get
		routes["DELETE"+one+"/approleassignments/{aid}"] = held.delete
	}
	return routes
}

// A verb answers one kind of request with a status and a body, or with an
// error; a nil body means none.
type verb func(r *http.Request, who innate.Principal) (status int, body any, err error)

// known serves verb to whoever is known.
func known(serve verb) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		who, ok := bearer.From(r.Context())
		if !ok {
			refuse(w, r, rest.Errorf(http.StatusUnauthorized, "InvalidAuthenticationToken", "Access token is missing or not valid."))
			return
		}
		answer := serve
		if v := r.PathValue("v"); v != "v1.0" && v != "beta" {
			answer = notServed
		}
		status, body, err := answer(r, who)
		switch {
		case err != nil:
			refuse(w, r, err)
		case body == nil:
			w.WriteHeader(status)
		default:
			rest.Write(w, status, body)
		}
	}
}

// refuse writes err under the code that Graph's clients know.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	var e *rest.Error
	if errors.As(err, &e) {
		named := *e
		switch e.Status {
		case http.StatusForbidden:
			named.Code = "Authorization_RequestDenied"
		case http.StatusBadRequest:
			named.Code = "Request_BadRequest"
		}
		err = &named
	}
	rest.WriteError(w, r, err)
}

func notServed(r *http.Request, _ innate.Principal) (int, any, error) {
	return 0, nil, rest.Errorf(http.StatusNotFound, "Request_ResourceNotFound",
		"%s %s is not served: this directory has me, servicePrincipals, applications, users, groups and directoryObjects/getByIds, under /v1.0 and /beta.", r.Method, r.URL.Path)
}

// canonical gives the mux paths in lower case, without a trailing slash, and
// servicePrincipals(appId='x') as servicePrincipals/appid=x.
func canonical(next http.Handler) http.Handler {
	keys := strings.NewReplacer("(appid='", "/appid=", "(userprincipalname='", "/", "(name='", "/", "')", "")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := *r.URL
		u.Path, u.RawPath = keys.Replace(strings.TrimSuffix(strings.ToLower(u.Path), "/")), ""
		if !strings.HasPrefix(u.Path, "/") {
			u.Path = "/" + u.Path
		}
		r = r.WithContext(r.Context())
		r.URL = &u
		next.ServeHTTP(w, r)
	})
}

// mayRead refuses who reads others than itself and may not.
func (d *Directory) mayRead(ctx context.Context, who innate.Principal, ids ...innate.ObjectID) error {
	if len(ids) > 0 && !slices.ContainsFunc(ids, func(id innate.ObjectID) bool { return id != who.Object }) {
		return nil
	}
	return d.config.MayEdit(ctx, who, actionRead)
}

// namesItself reports whether the path names who.
func (d *Directory) namesItself(r *http.Request, who innate.Principal) bool {
	id := r.PathValue("id")
	if id == string(who.Object) || who.Client != "" && id == "appid="+string(who.Client) {
		return true
	}
	me, ok := d.Object(who.Object)
	return ok && me.UPN != "" && id == strings.ToLower(me.UPN)
}

// again looks something up, and once more with all that was committed before
// the call: what was just created is never "not found".
func again[V any](ctx context.Context, d *Directory, look func() (V, bool)) (V, bool, error) {
	v, ok := look()
	if ok {
		return v, true, nil
	}
	if err := d.Sync(ctx); err != nil {
		return v, false, err
	}
	v, ok = look()
	return v, ok, nil
}

// object is the object with that id, when it is of one of these kinds.
func (d *Directory) object(ctx context.Context, id innate.ObjectID, kinds ...Kind) (Object, error) {
	o, ok, err := again(ctx, d, func() (Object, bool) { return d.Object(id) })
	if err == nil && (!ok || !slices.Contains(kinds, o.Kind)) {
		err = notFound(id)
	}
	return o, err
}

// pathID is the {id} of the path as an object id.
func pathID(r *http.Request) innate.ObjectID { return innate.ObjectID(r.PathValue("id")) }

// A list is a page of a collection as Graph writes it.
type list struct {
	Context string `json:"@odata.context"`
	Next    string `json:"@odata.nextLink,omitempty"`
	Value   []any  `json:"value"`
}

// A lister says how a collection is listed: its items by id, what a $filter may
// ask of one, and how one is written.
type lister[T any] struct {
	set    string // its name in the path
	items  func() ([]T, error)
	id     func(T) string
	fields func(item T, name string) (values []string, known bool)
	write  func(T) any
}

// page lists what the request's $filter admits, in order of id. An empty answer
// is given only on a state that has all that was committed before the call.
func page[T any](d *Directory, r *http.Request, l lister[T]) (int, any, error) {
	q := r.URL.Query()
	if q.Has("$search") {
		return 0, nil, bad("$search is not served: use $filter, such as startswith(displayName,'…').")
	}
	filter, err := rest.ParseFilter(q.Get("$filter"))
	if err != nil {
		return 0, nil, err
	}
	p, err := rest.PageOf(r, pageSize)
	if err != nil {
		return 0, nil, err
	}
	var found []T
	for range 2 {
		if found, err = admitted(filter, l); err != nil {
			return 0, nil, err
		}
		if len(found) > 0 {
			break
		}
		if err := d.Sync(r.Context()); err != nil {
			return 0, nil, err
		}
	}
	answer := list{Context: d.config.Graph + "/v1.0/$metadata#" + l.set, Value: []any{}}
	for _, item := range found {
		if id := l.id(item); id < p.From {
			continue
		} else if len(answer.Value) == p.Size {
			answer.Next = p.Next(r, id)
			break
		}
		answer.Value = append(answer.Value, l.write(item))
	}
	return http.StatusOK, answer, nil
}

func admitted[T any](filter *rest.Filter, l lister[T]) (found []T, err error) {
	items, err := l.items()
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		unknown := ""
		ok, err := filter.Match(func(name string) []string {
			values, known := l.fields(item, name)
			if !known {
				unknown = name
			}
			return values
		}, nil)
		switch {
		case err != nil:
			return nil, err
		case unknown != "":
			return nil, bad("$filter asks for %s, by which %s cannot be filtered.", unknown, l.set)
		case ok:
			found = append(found, item)
		}
	}
	slices.SortFunc(found, func(a, b T) int { return cmp.Compare(l.id(a), l.id(b)) })
	return found, nil
}
