package server

import (
	"bytes"
	"io"
	"net/http"
	"strings"

	"innate/access"
	"innate/bearer"
	"innate/ca"
	"innate/databases"
	"innate/rest"
	"innate/vault"
)

// routes tells the surfaces apart by Host, then by path: login, management and
// graph paths do not collide, so one bare origin can serve all three (design §6).
func (s *Server) routes() (http.Handler, error) {
	front := new(front)
	arm, err := s.verifier(front, "", s.Endpoints.Management, "https://management.azure.com", "https://management.core.windows.net")
	if err != nil {
		return nil, err
	}
	graph, err := s.verifier(front, "", s.Endpoints.Graph, "https://graph.microsoft.com", "https://graph.windows.net")
	if err != nil {
		return nil, err
	}
	vaults, err := s.verifier(front, "Unauthorized", "https://"+s.Endpoints.VaultSuffix, "https://vault.azure.net")
	if err != nil {
		return nil, err
	}

	paths := http.NewServeMux()
	paths.Handle("/v1.0/", graph.Require(s.directory.Handler(), nil))
	paths.Handle("/beta/", graph.Require(s.directory.Handler(), nil))
	paths.Handle("/metadata/endpoints", s.resources.Metadata())
	paths.Handle("/services", s.tokens.ServicesHandler())
	lifetimes := arm.Require(s.lifetimesHandler(), nil)
	paths.Handle("/lifetimes", lifetimes)
	paths.Handle("/lifetimes/", lifetimes)
	paths.Handle("GET /audit", arm.Require(http.HandlerFunc(s.serveAudit), nil))
	keys := arm.Require(s.keysHandler(), nil)
	paths.Handle("/keys", keys)
	paths.Handle("/keys/", keys)
	master := arm.Require(s.sealHandler(), nil)
	paths.Handle("/seal", master)
	paths.Handle("/seal/", master)
	paths.Handle("GET /platform", arm.Require(http.HandlerFunc(s.servePlatform), nil))
	paths.Handle("POST /federation/test", arm.Require(http.HandlerFunc(s.serveFederationTest), nil))
	paths.HandleFunc("GET /authorities/documents", s.serveAuthority(ca.Documents))
	paths.HandleFunc("GET /authorities/databases", s.serveAuthority(ca.Databases))
	paths.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	manage := arm.Require(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if access.Serves(r.URL.Path) {
			s.access.Handler().ServeHTTP(w, r)
			return
		}
		if databases.Serves(r.URL.Path) {
			s.databases.Handler().ServeHTTP(w, r)
			return
		}
		s.resources.Handler().ServeHTTP(w, r)
	}), nil)
	for _, p := range []string{"subscriptions", "providers", "tenants"} {
		paths.Handle("/"+p, manage)
		paths.Handle("/"+p+"/", manage)
	}
	paths.Handle("/", s.tokens.Handler())

	mutual := http.NewServeMux()
	mutual.Handle("/v1/", s.hosts.Handler())
	mutual.Handle("/", s.tokens.MutualHandler())

	front.login = rest.Tidy(lowerFirst(paths))
	front.hosts = rest.Tidy(mutual)
	front.vaults = rest.TidyUpTo(vault.MaxBody, vaults.Require(s.vault.Handler(), s.vault.Challenge))
	front.hostsName = "hosts." + s.Platform.Domain
	front.vaultSuffix = ".vault." + s.Platform.Domain
	return front, nil
}

// A front sends a request to the surface that its Host names.
type front struct {
	login, hosts, vaults   http.Handler
	hostsName, vaultSuffix string
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.ToLower(hostname(r.Host))
	switch {
	case name == f.hostsName:
		f.hosts.ServeHTTP(w, r)
	case strings.HasSuffix(name, f.vaultSuffix):
		f.vaults.ServeHTTP(w, r)
	default:
		f.login.ServeHTTP(w, r)
	}
}

// lowerFirst lets the first segment of an ARM path be in any case
// (control-plane T5); what follows is its noun's business.
func lowerFirst(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if lower := strings.ToLower(first); lower != first {
			switch lower {
			case "subscriptions", "providers", "tenants", "metadata":
				u := *r.URL
				u.Path = strings.TrimSuffix("/"+lower+"/"+rest, "/")
				u.RawPath = ""
				r = r.Clone(r.Context())
				r.URL = &u
			}
		}
		next.ServeHTTP(w, r)
	})
}

// verifier checks tokens as a stranger would: from discovery, over HTTP; only
// the wire is missing, since it would lead back to this process. code is what
// its 401 says; empty means bearer's own. bearer's challenge is that of ARM and
// Graph (control-plane T6).
func (s *Server) verifier(mux http.Handler, code string, audiences ...string) (*bearer.Verifier, error) {
	return bearer.New(bearer.Config{
		Authority: s.Endpoints.Login, Tenant: s.Platform.Tenant, Audiences: audiences, Code: code,
		HTTP:        &http.Client{Transport: loopback{mux}},
		Revocations: s.revoked,
		Now:         s.config.Now, Log: s.config.Log,
	})
}

// A loopback is a transport that calls a handler of this process.
type loopback struct{ handler http.Handler }

func (l loopback) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.Host, in.RequestURI = r.URL.Host, r.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	w := &answer{header: http.Header{}, status: http.StatusOK}
	l.handler.ServeHTTP(w, in)
	return &http.Response{
		StatusCode: w.status, Status: http.StatusText(w.status), Header: w.header, Request: r,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()),
	}, nil
}

// An answer is a response kept in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
