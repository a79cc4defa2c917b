package resources

import (
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/rest"
)

// subscriptionShape is a subscription as ARM shows it (control-plane §3.2).
func (s *Resources) subscriptionShape(sub Subscription) map[string]any {
	return map[string]any{
		"id": "/subscriptions/" + sub.ID, "subscriptionId": sub.ID, "tenantId": s.config.Tenant,
		"displayName": sub.Name, "state": "Enabled", "authorizationSource": "RoleBased",
		"managedByTenants":     []any{},
		"subscriptionPolicies": map[string]string{"locationPlacementId": "Public_2014-09-01", "quotaId": "Unlimited", "spendingLimit": "Off"},
	}
}

// listSubscriptions answers GET /subscriptions with those in which the caller
// has any role: az fails to log in on an empty list.
func (s *Resources) listSubscriptions(c call) error {
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	answer := list[map[string]any]{Value: []map[string]any{}}
	for _, sub := range s.index.allSubscriptions() {
		if s.config.Access.Sees(c.who, innate.ResourceID("/subscriptions/"+sub.ID)) {
			answer.Value = append(answer.Value, s.subscriptionShape(sub))
		}
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// known refuses a caller who has no role in a subscription and may not read it,
// then says whether it exists.
func (s *Resources) known(c call, id innate.ResourceID) error {
	if ok, err := s.sees(c, id); err != nil {
		return err
	} else if !ok {
		if err := s.need(c, typeSubscription+"/read", id); err != nil {
			return err
		}
	}
	if _, ok := s.index.subscription(id.Subscription()); !ok {
		return noSubscription(id.Subscription())
	}
	return nil
}

// inSubscription is known for the path's subscription.
func (s *Resources) inSubscription(c call) (innate.ResourceID, error) {
	id, err := c.subscription()
	if err != nil {
		return "", err
	}
	return id, s.known(c, id)
}

func (s *Resources) getSubscription(c call) error {
	id, err := s.inSubscription(c)
	if err != nil {
		return err
	}
	sub, _ := s.index.subscription(id.Subscription())
	rest.Write(c.w, http.StatusOK, s.subscriptionShape(sub))
	return nil
}

func (s *Resources) listLocations(c call) error {
	id, err := s.inSubscription(c)
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, list[map[string]string]{Value: []map[string]string{{
		"id": string(id) + "/locations/local", "name": "local", "displayName": "Local", "regionalDisplayName": "Local",
	}}})
	return nil
}

func (s *Resources) listTenants(c call) error {
	rest.Write(c.w, http.StatusOK, list[map[string]any]{Value: []map[string]any{{
		"id": "/tenants/" + string(s.config.Tenant), "tenantId": s.config.Tenant,
	}}})
	return nil
}

// A provider is a namespace of types. All are registered: clients ask before
// they use one and have nothing to gain from a no.
type provider struct {
	ID                string         `json:"id"`
	Namespace         string         `json:"namespace"`
	RegistrationState string         `json:"registrationState"`
	ResourceTypes     []providerType `json:"resourceTypes"`
}

type providerType struct {
	ResourceType string   `json:"resourceType"`
	Locations    []string `json:"locations"`
	APIVersions  []string `json:"apiVersions"`
}

// apiVersions are examples: every well-formed one is served.
var apiVersions = []string{"2026-04-01", "2024-11-01", "2022-04-01"}

func providerOf(under, namespace string) provider {
	p := provider{
		ID: under + "/providers/" + namespace, Namespace: namespace,
		RegistrationState: "Registered", ResourceTypes: []providerType{},
	}
	for _, k := range kinds {
		if ns, typ, _ := strings.Cut(k.name, "/"); strings.EqualFold(ns, namespace) {
			p.Namespace = ns
			p.ResourceTypes = append(p.ResourceTypes, providerType{typ, []string{"Local"}, apiVersions})
		}
	}
	return p
}

// underSubscription is the path's subscription, or empty for a path above all.
func (s *Resources) underSubscription(c call) (string, error) {
	if c.args["sub"] == "" {
		return "", nil
	}
	id, err := s.inSubscription(c)
	return string(id), err
}

func (s *Resources) listProviders(c call) error {
	under, err := s.underSubscription(c)
	if err != nil {
		return err
	}
	namespaces := []string{"Microsoft.Authorization"}
	for _, k := range kinds {
		ns, _, _ := strings.Cut(k.name, "/")
		namespaces = append(namespaces, ns)
	}
	slices.Sort(namespaces)
	answer := list[provider]{}
	for _, ns := range slices.Compact(namespaces) {
		answer.Value = append(answer.Value, providerOf(under, ns))
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// getProvider also answers POST …/register, which changes nothing.
func (s *Resources) getProvider(c call) error {
	under, err := s.underSubscription(c)
	if err != nil {
		return err
	}
	if !nameRule.MatchString(c.args["ns"]) {
		return rest.Errorf(http.StatusBadRequest, "InvalidResourceNamespace", "%.40q is no namespace", c.args["ns"])
	}
	rest.Write(c.w, http.StatusOK, providerOf(under, c.args["ns"]))
	return nil
}
