package resources

import (
	"net/http"
	"strings"

	"innate/rest"
)

// cloudName must not be AzureCloud: az would put the public log-in host in our place.
const cloudName = "Innate"

// Metadata serves GET /metadata/endpoints, which needs no token, in the three
// shapes that clients know, chosen by api-version (control-plane §2.1).
func (s *Resources) Metadata() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			rest.WriteError(w, r, rest.Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "%s is not served at %s", r.Method, r.URL.Path))
			return
		}
		version, err := rest.Version(r, false)
		switch {
		case err != nil:
			rest.WriteError(w, r, err)
		case version < "2018":
			rest.Write(w, http.StatusOK, s.endpoints2015())
		case version < "2022":
			rest.Write(w, http.StatusOK, []any{s.cloud()})
		default:
			rest.Write(w, http.StatusOK, s.cloud())
		}
	})
}

// endpoints2015 is what az asks for when it registers a cloud by one address.
func (s *Resources) endpoints2015() map[string]any {
	e := s.config.Endpoints
	return map[string]any{
		"galleryEndpoint": e.Management + "/", "graphEndpoint": e.Graph + "/", "portalEndpoint": e.Portal + "/",
		"authentication": map[string]any{
			"loginEndpoint": e.Login + "/", "audiences": []string{e.Management + "/"},
		},
	}
}

// cloud describes the whole platform. What we do not serve has a name below our
// domain and not an empty one: clients build addresses of it before they need them.
func (s *Resources) cloud() map[string]any {
	e := s.config.Endpoints
	domain := strings.TrimPrefix(e.VaultSuffix, "vault.")
	return map[string]any{
		"name": cloudName, "portal": e.Portal,
		"authentication": map[string]any{
			"loginEndpoint": e.Login + "/", "audiences": []string{e.Management + "/", e.Management},
			"tenant": "common", "identityProvider": "AAD",
		},
		"resourceManager": e.Management + "/",
		"graph":           e.Graph + "/", "graphAudience": e.Graph + "/", "microsoftGraphResourceId": e.Graph + "/",
		"ossrdbmsResourceId":    "https://ossrdbms-aad.database.windows.net",
		"batch":                 "https://batch." + domain + "/",
		"media":                 "https://media." + domain + "/",
		"gallery":               "https://gallery." + domain + "/",
		"sqlManagement":         "https://sqlmanagement." + domain + "/",
		"vmImageAliasDoc":       "https://images." + domain + "/aliases.json",
		"appInsightsResourceId": "https://insights." + domain,
		"suffixes": map[string]string{
			"keyVaultDns": e.VaultSuffix, "storage": "storage." + domain,
			"sqlServerHostname": "sql." + domain, "postgresqlServerEndpoint": "postgres." + domain,
			"mysqlServerEndpoint": "mysql." + domain, "acrLoginServer": "registry." + domain, "mhsmDns": "hsm." + domain,
			"storageSyncEndpointSuffix": "sync." + domain, "synapseAnalytics": "synapse." + domain,
			"azureFrontDoorEndpointSuffix": "frontdoor." + domain,
		},
	}
}
