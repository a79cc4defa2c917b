package access

import (
	"net/http"
	"strings"

	"innate"
	"innate/bearer"
	"innate/rest"
)

// The actions that guard roles and assignments.
var (
	readAssignment   = Control("Microsoft.Authorization/roleAssignments/read")
	writeAssignment  = Control("Microsoft.Authorization/roleAssignments/write")
	deleteAssignment = Control("Microsoft.Authorization/roleAssignments/delete")
	readRole         = Control("Microsoft.Authorization/roleDefinitions/read")
	writeRole        = Control("Microsoft.Authorization/roleDefinitions/write")
	deleteRole       = Control("Microsoft.Authorization/roleDefinitions/delete")
)

// authorization stands between a scope and what hangs on it.
const authorization = "/providers/Microsoft.Authorization/"

// A call is a request with its path taken apart.
type call struct {
	*http.Request
	who  innate.Principal
	at   innate.Scope
	name string // of the assignment or definition, lower-case; empty for the collection
}

// A verb answers one kind of call with a status and a body, or with an error; a nil body means none.
type verb func(c call) (status int, body any, err error)

// Handler serves {scope}/providers/Microsoft.Authorization/{roleAssignments,roleDefinitions,permissions}, and
// POST {scope}/providers/Microsoft.Authorization/checkAccess (ours): {principalId, action, data, assurance} → Decision.
// Without assurance it is the caller's own, or for anybody else the surest there is.
// The caller wraps it in bearer.Require.
func (a *Access) Handler() http.Handler {
	verbs := map[string]verb{
		"GET roleassignments":           a.listAssignments,
		"GET roleassignments/{name}":    a.getAssignment,
		"PUT roleassignments/{name}":    a.putAssignment,
		"DELETE roleassignments/{name}": a.deleteAssignment,
		"GET roledefinitions":           a.listDefinitions,
		"GET roledefinitions/{name}":    a.getDefinition,
		"PUT roledefinitions/{name}":    a.putDefinition,
		"DELETE roledefinitions/{name}": a.deleteDefinition,
		"GET permissions":               a.listPermissions,
		"POST checkaccess":              a.checkAccess,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body, err := a.serve(verbs, r)
		switch {
		case err != nil:
			rest.WriteError(w, r, err)
		case body == nil:
			w.WriteHeader(status)
		default:
			rest.Write(w, status, body)
		}
	})
}

func (a *Access) serve(verbs map[string]verb, r *http.Request) (int, any, error) {
	who, ok := bearer.From(r.Context())
	if !ok {
		return 0, nil, rest.Errorf(http.StatusUnauthorized, "AuthenticationFailed", "Authentication failed: the request carries no valid token.")
	}
	scope, kind, name, ok := split(r.URL.Path)
	if !ok {
		return 0, nil, rest.Errorf(http.StatusNotFound, "InvalidResourceType",
			"%s is not served: want {scope}%s and one of roleAssignments, roleDefinitions, permissions, checkAccess.", r.URL.Path, authorization)
	}
	route := r.Method + " " + kind
	if name != "" {
		route += "/{name}"
	}
	serve, ok := verbs[route]
	if !ok {
		return 0, nil, rest.Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "%s is not served at %s.", r.Method, r.URL.Path)
	}
	if _, err := rest.Version(r, false); err != nil {
		return 0, nil, err
	}
	at, err := innate.ParseScope(scope)
	if err != nil {
		return 0, nil, rest.Errorf(http.StatusBadRequest, "InvalidScope", "%s", err)
	}
	if name != "" {
		if name, err = innate.ParseGUID(name); err != nil {
			return 0, nil, rest.Errorf(http.StatusBadRequest, "InvalidResourceName", "The last segment of the path: %s.", err)
		}
	}
	return serve(call{r, who, at, name})
}

// Serves reports whether Handler answers that path.
func Serves(path string) bool {
	_, _, _, ok := split(path)
	return ok
}

// split takes a path apart at its last /providers/Microsoft.Authorization/. Case
// does not count, nor do doubled and trailing slashes.
func split(path string) (scope, kind, name string, ok bool) {
	parts := strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
	i := len(parts) - 3
	for ; i >= 0; i-- {
		if strings.EqualFold(parts[i], "providers") && strings.EqualFold(parts[i+1], "Microsoft.Authorization") {
			break
		}
	}
	if i < 0 || len(parts) > i+4 {
		return "", "", "", false
	}
	kind = strings.ToLower(parts[i+2])
	switch kind {
	case "roleassignments", "roledefinitions":
		if len(parts) == i+4 {
			name = parts[i+3]
		}
	case "permissions", "checkaccess":
		if len(parts) == i+4 {
			return "", "", "", false
		}
	default:
		return "", "", "", false
	}
	return "/" + strings.Join(parts[:i], "/"), kind, name, true
}

// below is the id of what hangs on a scope.
func below(at innate.Scope, kind, name string) string {
	return strings.TrimSuffix(string(at), "/") + authorization + kind + "/" + name
}

// definitionID is a role's id as seen from a scope: below its subscription, if it has one.
func definitionID(at innate.Scope, role string) string {
	if sub := innate.ResourceID(at); strings.HasPrefix(at.Key(), "/subscriptions/") {
		return below(innate.Scope("/subscriptions/"+sub.Subscription()), "roleDefinitions", role)
	}
	return below(innate.Root, "roleDefinitions", role)
}

// lastSegment is the GUID at the end of a role definition's id, which may be
// below a subscription or not.
func lastSegment(id string) (string, error) {
	return innate.ParseGUID(id[strings.LastIndexByte(id, '/')+1:])
}

// checkAccess says whether somebody may do something at the scope, and why.
// Anybody may ask about itself; about others, who may read the assignments.
func (a *Access) checkAccess(c call) (int, any, error) {
	var in struct {
		Principal string `json:"principalId"`
		Action    string `json:"action"`
		Data      bool   `json:"data"`
		Assurance string `json:"assurance"`
	}
	if err := rest.Read(c.Request, &in); err != nil {
		return 0, nil, err
	}
	id, err := innate.ParseGUID(in.Principal)
	if err != nil {
		return 0, nil, rest.Errorf(http.StatusBadRequest, "InvalidPrincipalId", "principalId: %s.", err)
	}
	if err := checkPattern(in.Action); err != nil || strings.Contains(in.Action, "*") {
		return 0, nil, rest.Errorf(http.StatusBadRequest, "InvalidAction", "action must be one action without a wildcard, such as Microsoft.KeyVault/vaults/read.")
	}
	if innate.ObjectID(id) != c.who.Object {
		if err := a.Require(c.Context(), c.who, readAssignment, c.at); err != nil {
			return 0, nil, err
		}
	}
	proof := c.who.Assurance // of whoever asks about itself
	if innate.ObjectID(id) != c.who.Object {
		proof = surest
	}
	if in.Assurance != "" {
		if proof, err = innate.ParseAssurance(in.Assurance); err != nil {
			return 0, nil, rest.Errorf(http.StatusBadRequest, "InvalidAssurance", "assurance: %s.", err)
		}
	}
	d, err := a.Allowed(c.Context(), innate.Principal{Object: innate.ObjectID(id), Assurance: proof}, Action{in.Action, in.Data}, c.at)
	return http.StatusOK, d, err
}

// listPermissions lists what the caller's own roles at the scope say.
func (a *Access) listPermissions(c call) (int, any, error) {
	mine := []permission{}
	for role := range a.index.roles(a.identities(c.who.Object), c.at, c.who.Assurance) {
		mine = append(mine, permissionOf(role))
	}
	return http.StatusOK, list[permission]{Value: mine}, nil
}

// A list is a page of a collection as ARM writes it.
type list[T any] struct {
	Value []T    `json:"value"`
	Next  string `json:"nextLink,omitempty"`
}
