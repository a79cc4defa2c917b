package resources

import (
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/access"
	"innate/bearer"
	"innate/rest"
)

// A call is a request with its path taken apart.
type call struct {
	*http.Request
	w    http.ResponseWriter
	who  innate.Principal
	args map[string]string // by the names in the route's path
}

// A route is a method and a path; segments in braces take any one segment, and
// the others compare without case (control-plane T5).
type route struct {
	method string
	path   []string
	serve  func(call) error
}

// allRoutes lists what is served. The first that fits serves.
func (s *Resources) allRoutes() []route {
	const (
		sub      = "subscriptions/{sub}"
		group    = sub + "/resourcegroups/{group}"
		below    = sub + "/providers/{ns}"
		resource = group + "/providers/{ns}/{type}/{name}"
		settings = group + "/providers/microsoft.web/sites/{name}/config/appsettings"
		vaults   = sub + "/providers/microsoft.keyvault"

		federated = resource + "/federatedidentitycredentials"
	)
	return []route{
		at("GET", "subscriptions", s.listSubscriptions),
		at("GET", sub, s.getSubscription),
		at("GET", sub+"/locations", s.listLocations),
		at("GET", sub+"/resources", s.listResources),
		at("GET", "tenants", s.listTenants),
		at("GET", "providers", s.listProviders),
		at("GET", "providers/{ns}", s.getProvider),
		at("GET", sub+"/providers", s.listProviders),
		at("GET", below, s.getProvider),
		at("POST", below+"/register", s.getProvider),

		at("POST", vaults+"/checknameavailability", s.checkVaultName),
		at("GET", vaults+"/deletedvaults", s.listDeletedVaults),
		at("GET", vaults+"/locations/{location}/deletedvaults/{name}", s.getDeletedVault),
		at("POST", vaults+"/locations/{location}/deletedvaults/{name}/purge", s.purgeDeletedVault),

		at("GET", sub+"/resourcegroups", s.listGroups),
		at("GET", group, s.get),
		at("HEAD", group, s.head),
		at("PUT", group, s.putOne),
		at("PATCH", group, s.patchOne),
		at("DELETE", group, s.deleteGroup),
		at("GET", group+"/resources", s.listResources),

		at("GET", below+"/{type}", s.listOfType),
		at("GET", group+"/providers/{ns}/{type}", s.listOfType),
		at("GET", resource, s.get),
		at("PUT", resource, s.putOne),
		at("PATCH", resource, s.patchOne),
		at("DELETE", resource, s.deleteOne),
		at("PUT", settings, s.putSettings),
		at("POST", settings+"/list", s.listSettings),
		at("GET", federated, s.listFederated),
		at("GET", federated+"/{credential}", s.getFederated),
		at("PUT", federated+"/{credential}", s.putFederated),
		at("DELETE", federated+"/{credential}", s.deleteFederated),
		at("PUT", resource+"/accesspolicies/{operation}", s.changePolicies),
		at("POST", resource+"/{action}", s.act),
	}
}

func at(method, path string, serve func(call) error) route {
	return route{method, strings.Split(path, "/"), serve}
}

// fits takes a path apart as r's.
func (r route) fits(path []string) (map[string]string, bool) {
	if len(path) != len(r.path) {
		return nil, false
	}
	args := map[string]string{}
	for i, want := range r.path {
		if name, ok := strings.CutPrefix(want, "{"); ok {
			args[strings.TrimSuffix(name, "}")] = path[i]
		} else if !strings.EqualFold(want, path[i]) {
			return nil, false
		}
	}
	return args, true
}

// Handler serves /subscriptions/…, /tenants, /providers (not Microsoft.Authorization: that is access). The caller wraps it in bearer.Require.
func (s *Resources) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.serve(w, r); err != nil {
			rest.WriteError(w, r, err)
		}
	})
}

func (s *Resources) serve(w http.ResponseWriter, r *http.Request) error {
	who, ok := bearer.From(r.Context())
	if !ok {
		return rest.Errorf(http.StatusUnauthorized, "AuthenticationFailed", "the request carries no valid token")
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var allow []string
	for _, route := range s.routes {
		args, ok := route.fits(path)
		if !ok {
			continue
		}
		if route.method != r.Method {
			allow = append(allow, route.method)
			continue
		}
		if _, err := rest.Version(r, false); err != nil {
			return err
		}
		return route.serve(call{r, w, who, args})
	}
	if len(allow) > 0 {
		slices.Sort(allow)
		w.Header().Set("Allow", strings.Join(slices.Compact(allow), ", "))
		return rest.Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "%s is not served at %s", r.Method, r.URL.Path)
	}
	return rest.Errorf(http.StatusNotFound, "NotFound", "nothing is served at %s", r.URL.Path)
}

// subscription reads the path's subscription.
func (c call) subscription() (innate.ResourceID, error) {
	id, err := innate.ParseGUID(c.args["sub"])
	if err != nil {
		return "", rest.Errorf(http.StatusBadRequest, "InvalidSubscriptionId", "%v", err)
	}
	return innate.ResourceID("/subscriptions/" + id), nil
}

// target reads the id of the resource or group that the path names, and its kind.
func (c call) target() (innate.ResourceID, *kind, error) {
	id, err := c.subscription()
	if err != nil {
		return "", nil, err
	}
	k, err := writable(TypeGroup)
	if err != nil {
		return "", nil, err
	}
	if err := k.checkName(c.args["group"]); err != nil {
		return "", nil, err
	}
	id += innate.ResourceID("/resourceGroups/" + c.args["group"])
	if c.args["name"] == "" {
		return id, k, nil
	}
	if k, err = writable(c.typ()); err != nil {
		return "", nil, err
	}
	if err := k.checkName(c.args["name"]); err != nil {
		return "", nil, err
	}
	return id + innate.ResourceID("/providers/"+k.name+"/"+c.args["name"]), k, nil
}

// typ is the type that the path names; the routes that name none are a site's.
func (c call) typ() string {
	if c.args["type"] == "" {
		return TypeSite
	}
	return c.args["ns"] + "/" + c.args["type"]
}

// need asks for a right at a scope.
func (s *Resources) need(c call, action string, at innate.ResourceID) error {
	return s.config.Access.Require(c.Context(), c.who, access.Control(action), at.Scope())
}

// sees reports whether the caller has any role at id, above or below it, on a
// state that has all that was committed before the question.
func (s *Resources) sees(c call, id innate.ResourceID) (bool, error) {
	if s.config.Access.Sees(c.who, id) {
		return true, nil
	}
	err := s.config.DB.Sync(c.Context())
	return err == nil && s.config.Access.Sees(c.who, id), err
}

// found looks a resource up, on a state that has all that was committed before the question.
func (s *Resources) found(c call, id innate.ResourceID) (*Resource, error) {
	r, ok := s.index.find(id)
	if ok {
		return r, nil
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return nil, err
	}
	if r, ok = s.index.find(id); ok {
		return r, nil
	}
	if !id.Is(TypeGroup) {
		if _, ok := s.index.find(groupOf(id)); !ok {
			return nil, notFound(groupOf(id))
		}
	}
	return nil, notFound(id)
}

// answer writes a resource with its entity tag.
func (s *Resources) answer(c call, status int, r *Resource) error {
	tag, err := r.etag()
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", tag)
	rest.Write(c.w, status, s.show(r))
	return nil
}
