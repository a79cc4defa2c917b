package tokens

import (
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/directory"
	"innate/jwt"
)

// A FirstParty is a service of the platform itself: its audiences need no registration.
type FirstParty struct {
	Name string          `json:"name"`
	ID   innate.ClientID `json:"appId"`     // Azure's own id for that service
	URIs []string        `json:"resources"` // without a trailing slash; each is accepted with one too
	// Challenges says that the service may answer with a claims challenge: a token
	// for it says whether its client can handle one (managed-identity-endpoints §4.7).
	Challenges bool `json:"claimsChallenges,omitempty"`
}

// Databases is Azure's app id for open-source databases: what is said of it, a
// lifetime, is said of every database server.
const Databases innate.ClientID = "123cd850-d9df-40bd-94d5-c9f07b7fa203"

// FirstParties is the table of design §6 for the platform's origins; vault is
// https://vault.example.org[:port]. The app ids are Azure's, since programs ask
// for some services by them.
func FirstParties(management, graph, vault, domain string) []FirstParty {
	return []FirstParty{
		{Name: "Azure Resource Manager", ID: "797f4846-ba00-4fd7-ba43-dac1f8f63013",
			URIs:       []string{management, "https://management.azure.com", "https://management.core.windows.net"},
			Challenges: true},
		{Name: "Microsoft Graph", ID: "00000003-0000-0000-c000-000000000000",
			URIs:       []string{graph, "https://graph.microsoft.com", "https://graph.windows.net"},
			Challenges: true},
		{Name: "Azure Key Vault", ID: "cfa8b339-82a2-471a-a3c9-0fc0be7a4093",
			URIs:       []string{vault, "https://vault.azure.net"},
			Challenges: true},
		{Name: "Azure SQL Database", ID: "022907d3-0f1b-48f7-badc-1ba6abab6d66",
			URIs: []string{"https://database.windows.net"}},
		{Name: "Azure OSSRDBMS Database", ID: Databases,
			URIs: []string{"https://ossrdbms-aad." + domain, "https://ossrdbms-aad.database.windows.net"}},
		{Name: "Azure Storage", ID: "e406a681-f3d4-42a8-90b6-c2b029497af1",
			URIs: []string{"https://storage.azure.com"}},
	}
}

// byURI indexes services by every name that a client may ask for them by. In a
// platform on one origin several have the same URI: the first stands for it.
func byURI(services []FirstParty) map[string]*FirstParty {
	index := map[string]*FirstParty{}
	for i := range services {
		for _, name := range append(slices.Clone(services[i].URIs), string(services[i].ID)) {
			if key := directory.URIKey(name); index[key] == nil {
				index[key] = &services[i]
			}
		}
	}
	return index
}

// FirstParty reports whether uri names a service of the platform, so that no
// registration may take it for its own.
func (s *Service) FirstParty(uri string) bool { return s.services[directory.URIKey(uri)] != nil }

// An audience is the service that a token is for.
type audience struct {
	value      string // the aud claim
	version    int    // of the token, chosen by the service and not by the endpoint that was asked
	alg        jwt.Alg
	id         innate.ClientID         // of the service: a lifetime is set by it
	challenges bool                    // see FirstParty
	app        *directory.Registration // nil for the platform's own services
}

// audience finds the service that a client asks for. The aud of a v1 token is
// exactly what was asked for, slash included: that is what its verifier was
// told to expect.
func (s *Service) audience(resource string) (audience, error) {
	if own := s.services[directory.URIKey(resource)]; own != nil {
		return audience{value: resource, version: 1, alg: jwt.RS256, id: own.ID, challenges: own.Challenges}, nil
	}
	if own, ok := s.config.Resource(resource); ok {
		return audience{value: resource, version: 1, alg: jwt.RS256, id: own.ID, challenges: own.Challenges}, nil
	}
	r, ok := s.config.Directory.Audience(resource)
	if !ok {
		return audience{}, refusal(http.StatusBadRequest, "invalid_resource", 500011,
			"The resource principal named %s was not found in the tenant %s. 'innate services' lists what takes our tokens; a service of your own needs an app registration with this identifier URI",
			shown(resource), s.config.Tenant)
	}
	a := audience{value: resource, version: 1, alg: jwt.RS256, id: r.Client, challenges: challenges(&r), app: &r}
	if r.TokenVersion == 2 {
		a.value, a.version = string(r.Client), 2
	}
	if jwt.Alg(r.SigningAlg) == jwt.ES256 {
		a.alg = jwt.ES256
	}
	return a, nil
}

// challenges reports whether the program of r asks to be told whether its
// clients can handle a claims challenge.
func challenges(r *directory.Registration) bool { return slices.Contains(r.OptionalClaims, "xms_cc") }

// listServices is what takes our tokens: the platform's own, resources that take
// them for themselves, then the app registrations that have an identifier URI, by name.
func (s *Service) listServices() []FirstParty {
	list := slices.Concat(s.config.Services, s.config.Resources())
	own := len(list)
	for _, r := range s.config.Directory.Registrations() {
		if len(r.IdentifierURIs) > 0 {
			list = append(list, FirstParty{Name: r.Name, ID: r.Client, URIs: r.IdentifierURIs, Challenges: challenges(r)})
		}
	}
	slices.SortFunc(list[own:], func(a, b FirstParty) int { return strings.Compare(a.Name, b.Name) })
	return list
}
