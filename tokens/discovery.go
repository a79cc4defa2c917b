package tokens

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"innate/rest"
)

// cacheable lets whatever is between us and a verifier keep a document for an
// hour: cacheAge, by which keys are published the earlier.
const cacheable = "max-age=3600"

// syncPatience is how long a key set waits for the store to say that it is whole.
// Without the store, the keys last heard of are better than none.
const syncPatience = time.Second

// metadata is the discovery document (OpenID Connect Discovery §3) with the
// members that Azure's clients look for (managed-identity-endpoints §4.2).
type metadata struct {
	Issuer                string      `json:"issuer"`
	TokenEndpoint         string      `json:"token_endpoint"`
	AuthorizationEndpoint string      `json:"authorization_endpoint"`
	DeviceEndpoint        string      `json:"device_authorization_endpoint"`
	EndSessionEndpoint    string      `json:"end_session_endpoint"`
	UserInfoEndpoint      string      `json:"userinfo_endpoint"`
	JWKSURI               string      `json:"jwks_uri"`
	AuthMethods           []string    `json:"token_endpoint_auth_methods_supported"`
	AssertionAlgs         []string    `json:"token_endpoint_auth_signing_alg_values_supported"`
	GrantTypes            []string    `json:"grant_types_supported"`
	ResponseTypes         []string    `json:"response_types_supported"`
	ResponseModes         []string    `json:"response_modes_supported"`
	SubjectTypes          []string    `json:"subject_types_supported"`
	SigningAlgs           []string    `json:"id_token_signing_alg_values_supported"`
	Scopes                []string    `json:"scopes_supported"`
	Claims                []string    `json:"claims_supported"`
	MutualAliases         mtlsAliases `json:"mtls_endpoint_aliases"` // RFC 8705 §5
	CertificateBound      bool        `json:"tls_client_certificate_bound_access_tokens"`
	RegionScope           string      `json:"tenant_region_scope"`
	Cloud                 string      `json:"cloud_instance_name"`
	CloudGraph            string      `json:"cloud_graph_host_name"`
	Graph                 string      `json:"msgraph_host"`
}

type mtlsAliases struct {
	TokenEndpoint string `json:"token_endpoint"`
}

// discovery answers GET …/.well-known/openid-configuration: whatever the tenant
// is called there, with the endpoints under its GUID.
func (s *Service) discovery(version int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tenant := r.PathValue("tenant")
		if !s.anyTenant(tenant) {
			s.answerNo(w, r, s.begin(r, version), s.unknownTenant(tenant))
			return
		}
		m := s.metadata(version)
		if strings.EqualFold(tenant, adfs) {
			// az asks here for the document of AD FS, which has no version in
			// its path, and sends the v2 form to the endpoint it names.
			m = s.metadata(2)
			m.TokenEndpoint = s.config.Login + "/" + adfs + "/oauth2/v2.0/token"
		}
		w.Header().Set("Cache-Control", cacheable)
		rest.Write(w, http.StatusOK, m)
	}
}

func (s *Service) metadata(version int) metadata {
	tenant := "/" + string(s.config.Tenant)
	base := s.config.Login + tenant
	oauth, keys := base+"/oauth2", s.config.Login+"/common/discovery/keys"
	if version == 2 {
		oauth, keys = base+"/oauth2/v2.0", base+"/discovery/v2.0/keys"
	}
	graph := s.graphHost()
	return metadata{
		Issuer:                s.issuer[version],
		TokenEndpoint:         oauth + "/token",
		AuthorizationEndpoint: oauth + "/authorize",
		DeviceEndpoint:        oauth + "/devicecode",
		EndSessionEndpoint:    oauth + "/logout",
		UserInfoEndpoint:      base + "/openid/userinfo",
		JWKSURI:               keys,
		AuthMethods:           []string{"client_secret_post", "private_key_jwt", "client_secret_basic", "self_signed_tls_client_auth"},
		AssertionAlgs:         []string{"PS256", "RS256", "ES256"},
		GrantTypes:            s.grantTypes(),
		ResponseTypes:         []string{"code", "id_token", "code id_token", "token id_token", "token"},
		ResponseModes:         []string{"query", "fragment", "form_post"},
		SubjectTypes:          []string{"pairwise"},
		SigningAlgs:           []string{"RS256", "ES256"},
		Scopes:                []string{"openid", "profile", "email", "offline_access"},
		Claims: []string{"sub", "iss", "cloud_instance_name", "aud", "exp", "iat", "nbf", "tid", "ver", "oid", "appid", "azp",
			"uti", "roles", "groups", "xms_cc", "xms_mirid", "xms_az_rid", "innate_host", "innate_assurance"},
		MutualAliases: mtlsAliases{s.config.Mutual + tenant + "/oauth2/v2.0/token"},
		RegionScope:   "WW",
		Cloud:         s.host(),
		CloudGraph:    graph,
		Graph:         graph,
	}
}

func (s *Service) grantTypes() []string {
	types := []string{"client_credentials"}
	if s.config.MayExchange != nil {
		types = append(types, grantExchange)
	}
	return types
}

// host is LOGIN's, with its port.
func (s *Service) host() string { return strings.TrimPrefix(s.config.Login, "https://") }

// graphHost is that of the platform's own Graph.
func (s *Service) graphHost() string { return strings.TrimPrefix(s.graph(), "https://") }

// serveKeys answers GET …/discovery/keys.
func (s *Service) serveKeys(version int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tenant := r.PathValue("tenant")
		if !s.anyTenant(tenant) {
			s.answerNo(w, r, s.begin(r, version), s.unknownTenant(tenant))
			return
		}
		issuer := ""
		if version == 2 {
			issuer = s.issuer[2]
		}
		// A verifier that asks for a key which another server has just begun to sign
		// by would take a set without it for the whole truth.
		ctx, cancel := context.WithTimeout(r.Context(), syncPatience)
		defer cancel()
		if err := s.config.DB.Sync(ctx); err != nil {
			s.config.Log.Warn("serving the signing keys as last heard of", "err", err)
		}
		w.Header().Set("Cache-Control", cacheable)
		rest.Write(w, http.StatusOK, s.keys.now().published(s.config.Now(), issuer))
	}
}

// instance is the answer about an authority (managed-identity-endpoints §4.1).
type instance struct {
	Discovery  string     `json:"tenant_discovery_endpoint"`
	APIVersion string     `json:"api-version"`
	Metadata   []aliasing `json:"metadata"`
}

type aliasing struct {
	Network string   `json:"preferred_network"`
	Cache   string   `json:"preferred_cache"`
	Aliases []string `json:"aliases"`
}

// serveInstance answers GET /common/discovery/instance: whether the authority
// that a client was given is one to trust. We vouch for ourselves alone.
func (s *Service) serveInstance(w http.ResponseWriter, r *http.Request) {
	asked := r.URL.Query().Get("authorization_endpoint")
	u, err := url.Parse(asked)
	if err != nil || u.Scheme != "https" || !strings.EqualFold(u.Host, s.host()) {
		s.answerNo(w, r, s.begin(r, 2), refusal(http.StatusBadRequest, "invalid_instance", 50049,
			"Unknown or invalid instance: authorization_endpoint is %s, and this is %s", shown(asked), s.config.Login))
		return
	}
	w.Header().Set("Cache-Control", cacheable)
	rest.Write(w, http.StatusOK, instance{
		Discovery:  s.config.Login + "/" + string(s.config.Tenant) + "/v2.0/.well-known/openid-configuration",
		APIVersion: "1.1",
		Metadata:   []aliasing{{Network: s.host(), Cache: s.host(), Aliases: []string{s.host()}}},
	})
}
