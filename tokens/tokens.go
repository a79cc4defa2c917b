// Package tokens turns a proved identity into a signed token: it is the token
// endpoint of Entra, as workloads and their SDKs know it.
//
// It owns the proofs it takes (secrets, signed assertions, an identity's
// certificate over mutual TLS), how often one may fail at them, the exchange of
// one token for another, the claims, the signing keys and the documents by which
// strangers verify. Who exists and what they hold is the directory's;
// what a token opens is decided by whoever it is shown to.
//
// A token says who, never what is allowed. None is answered before the audit
// log has the decision, and none on doubt.
package tokens

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"innate"
	"innate/audit"
	"innate/ca"
	"innate/directory"
	"innate/discovery"
	"innate/rest"
	"innate/seal"
	"innate/store"
)

// Config says what a Service needs. Only MayExchange with Revoked, OnRevoke, Outside, NewKey, Lifetime, Now and Log may be left out.
type Config struct {
	DB        *store.DB
	Audit     *audit.Log
	Seal      *seal.Key
	CA        *ca.Authorities // identities' certificates are checked against it
	Directory *directory.Directory
	Tenant    innate.TenantID
	Domain    string       // alias of the tenant beside its GUID
	Login     string       // origin, https://login.example.org
	Mutual    string       // origin where client certificates are asked for, https://hosts.example.org
	Services  []FirstParty // what takes our tokens without a registration: FirstParties(…)
	// Resource finds the resource that takes tokens for itself alone, such as a PostgreSQL server, by an audience;
	// Resources lists them all. Each takes tokens exactly while it exists. nil means that there are none.
	Resource  func(audience string) (FirstParty, bool)
	Resources func() []FirstParty

	// MayExchange says whether actor may have a token of subject for resource, in exchange for one that subject
	// called it with (RFC 8693); a *rest.Error of status 403 is what a refused actor reads. It is not asked of
	// a client's own tokens. nil means that no token is exchanged.
	MayExchange func(ctx context.Context, actor innate.Principal, subject directory.Object, resource string) error
	// Revoked says whether a token of ours is revoked, and why: bearer is whom it names, Token and IssuedAt
	// included, and key the kid of its signature. Required with MayExchange; else nil means that none is.
	Revoked func(bearer innate.Principal, key string) (why string, revoked bool)
	// OnRevoke runs in the transaction that withdraws a signing key: whoever verifies
	// tokens refuses those that it signed. nil means that nobody is told.
	OnRevoke func(tx store.Tx, kid string) error

	// Outside is how far to go for the keys of issuers that federated credentials
	// name; its zero value is the internet and nothing inside.
	Outside discovery.Outside

	// NewKey makes an RSA signing key; nil means a new one of 2048 bits from crypto/rand. A test
	// that starts many services may make one key for all: it is the slowest thing at a first start.
	NewKey   func() (*rsa.PrivateKey, error)
	Lifetime time.Duration    // of a token where no Lifetime says otherwise, 10 minutes to 24 hours; 0 means one hour
	Now      func() time.Time // nil means time.Now
	Log      *slog.Logger     // nil means slog.Default()
}

func (c *Config) check() error {
	switch {
	case c.DB == nil:
		return errors.New("tokens: Config needs DB")
	case c.Audit == nil:
		return errors.New("tokens: Config needs Audit")
	case c.Seal == nil:
		return errors.New("tokens: Config needs Seal")
	case c.CA == nil:
		return errors.New("tokens: Config needs CA")
	case c.Directory == nil:
		return errors.New("tokens: Config needs Directory")
	case c.Domain == "":
		return errors.New("tokens: Config needs Domain")
	case len(c.Services) == 0:
		return errors.New("tokens: Config needs Services")
	case c.MayExchange != nil && c.Revoked == nil:
		return errors.New("tokens: Config has MayExchange and needs Revoked")
	}
	tenant, err := innate.ParseGUID(string(c.Tenant))
	if err != nil {
		return fmt.Errorf("tokens: Config needs Tenant: %w", err)
	}
	c.Tenant = innate.TenantID(tenant)
	for name, origin := range map[string]string{"Login": c.Login, "Mutual": c.Mutual} {
		// Clients refuse an authority that is not https.
		if u, err := url.Parse(origin); err != nil || u.Host == "" || origin != "https://"+u.Host {
			return fmt.Errorf("tokens: Config needs %s as an origin, https://HOST[:PORT] and no more: found %q", name, origin)
		}
	}
	if c.Lifetime == 0 {
		c.Lifetime = time.Duration(usualLife)
	}
	if err := Life(c.Lifetime).check(); err != nil {
		return fmt.Errorf("tokens: Config.Lifetime: %w", err)
	}
	if c.Revoked == nil {
		c.Revoked = func(innate.Principal, string) (string, bool) { return "", false }
	}
	if c.OnRevoke == nil {
		c.OnRevoke = func(store.Tx, string) error { return nil }
	}
	if c.Resource == nil || c.Resources == nil {
		c.Resource = func(string) (FirstParty, bool) { return FirstParty{}, false }
		c.Resources = func() []FirstParty { return nil }
	}
	if c.NewKey == nil {
		c.NewKey = func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, rsaBits) }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return nil
}

// Service is the token service.
type Service struct {
	config       Config
	keys         *ring
	services     map[string]*FirstParty // by identifier URI as directory.URIKey spells it, and by app id
	assertable   map[string]bool        // what an assertion may have as aud, in lower case
	issuers      *discovery.Issuers     // of federated credentials
	peers        byDER[*peer]           // certificates of ours
	certificates byDER[*certificate]    // of applications
	throttle     *throttle
	lifetimes    *lifetimes
	issuer       [3]string // by token version; 0 is unused
}

// New checks c and makes the first signing keys (RS256 and ES256) when there are none. Run keeps them on their schedule.
func New(ctx context.Context, c Config) (*Service, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	keys, err := openRing(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("signing keys: %w", err)
	}
	base := c.Login + "/" + string(c.Tenant)
	return &Service{
		config:       c,
		keys:         keys,
		services:     byURI(c.Services),
		assertable:   assertionAudiences(c),
		issuers:      discovery.NewIssuers(discovery.IssuersConfig{HTTP: c.Outside.Client(), Now: c.Now, Log: c.Log}),
		peers:        byDER[*peer]{most: maxPeers},
		certificates: byDER[*certificate]{most: maxCertificates},
		throttle:     newThrottle(),
		lifetimes:    newLifetimes(c.DB, Life(c.Lifetime)),
		issuer:       [3]string{1: base + "/", 2: base + "/v2.0"},
	}, nil
}

// DeleteOf removes what is kept for a principal, in the transaction that deletes
// it: its lifetimes, as an identity and as an audience, and its one-time assertions.
func DeleteOf(tx store.Tx, gone directory.Object) error {
	lifetimeRows.Delete(tx, lifetimeRow(OfIdentity, string(gone.ID)))
	if gone.Kind == directory.Application {
		lifetimeRows.Delete(tx, lifetimeRow(OfAudience, string(gone.Client)))
		dropSeen(tx, gone.Client)
	}
	return nil
}

// Handler serves LOGIN: the token endpoint, discovery and keys.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/{tenant}/oauth2/token", s.endpoint(1, false))
	mux.Handle("/{tenant}/oauth2/v2.0/token", s.endpoint(2, false))
	mux.HandleFunc("GET /{tenant}/.well-known/openid-configuration", s.discovery(1))
	mux.HandleFunc("GET /{tenant}/v2.0/.well-known/openid-configuration", s.discovery(2))
	mux.HandleFunc("GET /{tenant}/discovery/keys", s.serveKeys(1))
	mux.HandleFunc("GET /{tenant}/discovery/v2.0/keys", s.serveKeys(2))
	mux.HandleFunc("GET /common/discovery/instance", s.serveInstance)
	mux.HandleFunc("GET /error", serveError)
	mux.HandleFunc("/", s.notServed)
	return mux
}

// MutualHandler serves the token endpoint on Mutual, where the client certificate is the credential (RFC 8705 §2).
func (s *Service) MutualHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/{tenant}/oauth2/token", s.endpoint(1, true))
	mux.Handle("/{tenant}/oauth2/v2.0/token", s.endpoint(2, true))
	mux.HandleFunc("/", s.notServed)
	return mux
}

// adfs is an alias of the tenant for clients that can switch instance discovery
// off in no other way (control-plane §2.3).
const adfs = "adfs"

// home reports whether name, a path segment, is our tenant.
func (s *Service) home(name string) bool {
	return strings.EqualFold(name, string(s.config.Tenant)) ||
		strings.EqualFold(name, s.config.Domain) || strings.EqualFold(name, adfs)
}

// anyTenant reports whether name is our tenant or one of the names by which a
// client asks before it knows its tenant.
func (s *Service) anyTenant(name string) bool {
	return s.home(name) || strings.EqualFold(name, "common") || strings.EqualFold(name, "organizations")
}

// notServed answers every other path.
func (s *Service) notServed(w http.ResponseWriter, r *http.Request) {
	s.answerNo(w, r, s.begin(r, 2), refusal(http.StatusNotFound, "invalid_request", 0,
		"%s is not served here: the token endpoint is POST %s/%s/oauth2/v2.0/token", shown(r.URL.Path), s.config.Login, s.config.Tenant))
}

// ServicesHandler serves GET /services: what takes our tokens, and which
// resource to ask for. Nothing in it is secret.
func (s *Service) ServicesHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET")
			rest.WriteError(w, r, rest.Errorf(http.StatusMethodNotAllowed, "MethodNotAllowed", "/services takes GET"))
			return
		}
		rest.Write(w, http.StatusOK, s.listServices())
	})
}
