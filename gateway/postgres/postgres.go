// Package postgres answers what PostgreSQL's own `ldap` method asks: is this
// token good for that role? It stands beside a database server and has nothing
// on the data path: once a session has begun, client and server are alone.
//
// It owns the listener that PostgreSQL binds to, with a certificate made on this
// host for this server alone; what the control plane says of who may log in as
// which role; a record of who is behind each session; and the end of sessions
// whose right has ended. It leaves to bearer what makes a token good, to ldap
// the wire, and to prepare what PostgreSQL must be told.
//
// A bind never waits for the network: keys, revocations and mappings are heard
// ahead, and what cannot be decided and recorded in two seconds is refused. A log-in
// that hangs here holds one of the server's slots.
package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/agent/caller"
	"innate/agent/endpoint"
	"innate/audit"
	"innate/audit/ship"
	"innate/bearer"
	"innate/feed/client"
)

// Config says which server and whom to believe. All but Clients, HTTP,
// Stale, Now and Log are required.
type Config struct {
	Server     innate.ResourceID
	Dir        string           // of its authority, its record of sessions and its audit log; made when absent
	Listener   *net.TCPListener // on one address; caller.Listen makes it as attestation needs it
	Connection string           // of the management role: see Roles
	Feed       string           // URL of the server's feed at the control plane
	Records    string           // URL there that takes the gateway's audit log (audit/ship)
	Clients    string           // URL there of the authority (PEM) that client certificates are of; empty: none log in by certificate
	PlaneHTTP  *http.Client     // for all three: its transport authenticates as the gateway's own identity; its Timeout is 0
	Authority  string           // origin of the token service
	Tenant     innate.TenantID
	HTTP       *http.Client     // for the token service's keys; nil means http.DefaultClient
	Stale      time.Duration    // refuse when the feed is older than this; 0 means 30 s
	Now        func() time.Time // nil means time.Now
	Log        *slog.Logger     // nil means slog.Default()
}

// Prefix is what stands before the role in the name that PostgreSQL binds as (ldapprefix).
const Prefix = "cn="

// Suffix is what stands behind it (ldapsuffix). The name of a server is unique
// on its platform and a host's label, so it needs no quoting anywhere.
func Suffix(server innate.ResourceID) string { return ",ou=" + strings.ToLower(server.Name()) }

// decideWithin is how long a decision may take, with what it records made durable
// on a busy disk: libldap waits for three seconds (postgres.md §3.3).
const decideWithin = 2 * time.Second

// A Gateway answers for one server.
type Gateway struct {
	config      Config
	authority   *authority
	verifier    *bearer.Verifier
	feed        *client.Client
	revocations *client.Revocations
	policy      *policy
	sessions    *sessions
	manager     *manager
	audit       *audit.Log
	refusals    *endpoint.Ledger
	diag        *caller.Diag
	doors       doors
	ready       chan struct{}
	fetchNow    chan struct{} // keys are to be fetched; at most one waits
}

// New checks c and opens what is in its folder; Run closes it. Nothing is asked of anybody yet.
func New(c Config) (_ *Gateway, err error) {
	switch {
	case c.Server == "" || c.Dir == "" || c.Listener == nil || c.Connection == "" || c.Feed == "" || c.Records == "" || c.PlaneHTTP == nil:
		return nil, errors.New("postgres: Config needs Server, Dir, Listener, Connection, Feed, Records and PlaneHTTP")
	case c.Listener.Addr().(*net.TCPAddr).IP.IsUnspecified():
		return nil, fmt.Errorf("postgres: the gateway listens on %s: want one address, such as 127.0.0.1:389, for that is in its certificate", c.Listener.Addr())
	}
	c.Stale = cmp.Or(c.Stale, 30*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	g := &Gateway{config: c, policy: newPolicy(), ready: make(chan struct{}), fetchNow: make(chan struct{}, 1)}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil { // PostgreSQL's account passes it to the authority's certificate
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if g.authority, err = openAuthority(c.Dir, c.Listener.Addr().(*net.TCPAddr).IP, c.Now); err != nil {
		return nil, fmt.Errorf("postgres: the gateway's own authority: %w", err)
	}
	g.revocations = client.NewRevocations(func() time.Duration { return g.feed.Age() })
	if g.feed, err = client.New(client.Config{URL: c.Feed, HTTP: c.PlaneHTTP, Apply: g.hear, Log: c.Log}); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	g.verifier, err = bearer.New(bearer.Config{
		Authority: c.Authority, Tenant: c.Tenant, Audiences: []string{"none before the feed has named them"}, Offline: true,
		HTTP: c.HTTP, Revocations: g.revocations, Stale: c.Stale, Now: c.Now, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	if g.diag, err = caller.NewDiag(); err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	if g.sessions, err = openSessions(filepath.Join(c.Dir, "sessions")); err != nil {
		return nil, fmt.Errorf("postgres: the record of sessions: %w", err)
	}
	if g.audit, err = audit.Open(filepath.Join(c.Dir, "audit.log")); err != nil {
		return nil, err
	}
	g.refusals = &endpoint.Ledger{Log: g.audit, Now: c.Now}
	g.manager = &manager{g: g, connection: c.Connection, wake: make(chan struct{}, 1), connected: make(chan struct{})}
	return g, nil
}

// CA is the path of the certificate that PostgreSQL's LDAPTLS_CACERT must name.
func (g *Gateway) CA() string { return g.authority.path }

// Ready is closed once log-ins can be decided: keys and mappings are here, and
// the server is reached.
func (g *Gateway) Ready() <-chan struct{} { return g.ready }

// Run answers until ctx ends. It is called once.
func (g *Gateway) Run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return g.serve(ctx) })
	all.Go(func() error { return g.watch(ctx) })
	all.Go(func() error { return g.feed.Run(ctx) })
	all.Go(func() error { return g.manager.run(ctx) })
	records := &ship.Sender{URL: g.config.Records, HTTP: g.config.PlaneHTTP, Log: g.audit, Logger: g.config.Log}
	all.Go(func() error { return records.Run(ctx) })
	fetched := make(chan struct{})
	all.Go(func() error { g.keepKeys(ctx, fetched); return nil })
	all.Go(func() error { g.keepClients(ctx); return nil })
	all.Go(func() error {
		for _, c := range []<-chan struct{}{fetched, g.feed.Synced(), g.manager.connected} {
			select {
			case <-c:
			case <-ctx.Done():
				return nil
			}
		}
		close(g.ready)
		return nil
	})
	err := all.Wait()
	return errors.Join(err, g.refusals.Close(), g.audit.Close(), g.sessions.close(), g.diag.Close())
}

const (
	keysEvery = 30 * time.Minute // keys are published a day before they sign, and serve for a day
	keysRetry = 5 * time.Second
)

// keepKeys fetches the token service's keys ahead of the tokens that need them,
// and at once when one was revoked: another takes its place, unannounced.
func (g *Gateway) keepKeys(ctx context.Context, fetched chan struct{}) {
	for first := true; ; {
		pause := keysEvery
		if err := g.verifier.Fetch(ctx); err != nil {
			pause = keysRetry
			if ctx.Err() == nil {
				g.config.Log.Warn("fetching the token service's keys; trying again", "err", err)
			}
		} else if first {
			first = false
			close(fetched)
		}
		select {
		case <-time.After(pause):
		case <-g.fetchNow:
		case <-ctx.Done():
			return
		}
	}
}

// hear takes an event of the feed. Whatever may have ended a right makes the
// manager look at the sessions.
func (g *Gateway) hear(ev client.Event) {
	if ev.Key == "" { // Reset and Synced concern both
		g.revocations.Apply(ev)
		g.policy.apply(ev)
	} else if key, ok := strings.CutPrefix(ev.Key, "revoked/"); ok {
		ev.Key = key
		g.revocations.Apply(ev)
		if strings.HasPrefix(key, string(client.RevokedKey)+"/") {
			select {
			case g.fetchNow <- struct{}{}:
			default:
			}
		}
	} else {
		g.policy.apply(ev)
	}
	if !ev.Reset {
		g.manager.look()
	}
}
