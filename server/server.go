// Package server is the control plane in one process: every noun of the
// platform, wired, behind one TLS listener and one administrators' socket.
//
// It owns the wiring and nothing else: who calls whom when a resource goes,
// which name of the domain reaches which noun, what runs in the background. A
// rule that wants to live here belongs to a noun.
package server

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/ca"
	"innate/databases"
	"innate/directory"
	"innate/discovery"
	"innate/feed"
	"innate/feed/client"
	"innate/hosts"
	"innate/resources"
	"innate/seal"
	"innate/store"
	"innate/store/file"
	"innate/tokens"
	"innate/vault"
)

// longestToken is the longest life that a token may have (design: 24 h); a
// revocation is kept at least as long.
const longestToken = 24 * time.Hour

// Config says what a Server needs. Dir and Listener are required; Create must
// have made Dir.
type Config struct {
	Dir      string
	Listener net.Listener   // plain TCP; TLS is put on it here
	Socket   string         // path of the administrators' socket; empty means none
	Operator int            // uid that may use it beside root; -1 means none
	Dev      bool           // open a store marked as development, and only such a one
	TPMRoots *x509.CertPool // see hosts.Config
	Keepers  []seal.Keeper  // which may keep the master key, beside its file
	// Names is told each host name that answers here, before the change that brought
	// it is acknowledged; nil where names are the operator's business (DNS).
	Names  func(host string) error
	NewKey func() (*rsa.PrivateKey, error) // see tokens.Config; refused unless Dev
	Now    func() time.Time
	Log    *slog.Logger

	Outside discovery.Outside // see tokens.Config
}

// A Server is the control plane of one platform.
type Server struct {
	Platform  Platform
	Endpoints resources.Endpoints
	Hosts     string // origin where client certificates are asked for

	config    Config
	master    *seal.Key
	resealing sync.Mutex // one at a time
	db        *store.DB
	audit     *audit.Log
	ca        *ca.Authorities
	directory *directory.Directory
	access    *access.Access
	resources *resources.Resources
	tokens    *tokens.Service
	hosts     *hosts.Hosts
	vault     *vault.Service
	databases *databases.Databases
	revoked   *client.Revocations
	mux       http.Handler
	leaf      leaf
}

// New opens the platform in c.Dir and wires its nouns. Close it, or Run it to
// its end. The error is seal.ErrSealed when the master key does not open now: see AwaitKey.
func New(ctx context.Context, c Config) (_ *Server, err error) {
	if c.Dir == "" || c.Listener == nil {
		return nil, errors.New("server: Config needs Dir and Listener")
	}
	if c.NewKey != nil && !c.Dev {
		return nil, errors.New("server: Config.NewKey is for development")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Server{config: c}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	s.master, err = seal.OpenMaster(s.masterPath(), c.Keepers...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: where there is no platform yet, 'innate server init --dir %s' makes one", err, c.Dir)
	}
	if err != nil {
		return nil, err
	}
	engine, err := file.Open(filepath.Join(c.Dir, storeFile))
	if err != nil {
		return nil, err
	}
	if s.db, err = store.Open(ctx, engine); err != nil {
		engine.Close()
		return nil, err
	}
	if s.Platform, err = readPlatform(ctx, s.db); err != nil {
		return nil, err
	}
	if s.Platform.Dev != c.Dev {
		return nil, fmt.Errorf("%s: %w", c.Dir, wrongKind(s.Platform.Dev))
	}
	if s.audit, err = audit.Open(filepath.Join(c.Dir, auditFile)); err != nil {
		return nil, err
	}
	if s.ca, err = ca.Open(ctx, ca.Config{DB: s.db, Seal: s.master, Domain: s.Platform.Domain, Now: c.Now}); err != nil {
		return nil, err
	}
	s.Endpoints, s.Hosts = origins(s.Platform, c.Listener.Addr())
	s.revoked = feed.Revocations(s.db)
	if err := s.nouns(ctx); err != nil {
		return nil, err
	}
	if seal.Unfinished(s.masterPath()) {
		if err := s.reseal(ctx, innate.Principal{}, nil, "going on with what was not finished"); err != nil {
			return nil, err
		}
	}
	if c.Names != nil {
		s.name(c.Names)
	}
	s.mux, err = s.routes()
	return s, err
}

// name tells names of every name of the platform, those of later vaults too.
func (s *Server) name(names func(string) error) {
	tell := func(host string) {
		if err := names(host); err != nil {
			s.config.Log.Error("making a name resolve", "host", host, "err", err)
		}
	}
	tell("hosts." + s.Platform.Domain)
	s.resources.OnVault(func(name string) { tell(name + ".vault." + s.Platform.Domain) })
}

// nouns makes each noun in the order of design §3's arrows, and hangs on each
// what must happen in its transactions.
func (s *Server) nouns(ctx context.Context) (err error) {
	c, p := s.config, s.Platform
	if s.directory, err = directory.New(directory.Config{
		DB: s.db, Audit: s.audit, Tenant: p.Tenant, Graph: s.Endpoints.Graph,
		MayEdit: func(ctx context.Context, who innate.Principal, action string) error {
			return s.access.Require(ctx, who, access.Control(action), innate.Root)
		},
		Reserved: func(uri string) bool { return s.reserved(uri) },
		OnDelete: []func(store.Tx, directory.Object) error{
			func(tx store.Tx, gone directory.Object) error { return access.DeleteOf(tx, gone.ID) },
			tokens.DeleteOf,
			func(tx store.Tx, gone directory.Object) error { return s.databases.Gone(tx, gone) },
			func(tx store.Tx, gone directory.Object) error {
				return feed.Revoke(tx, client.RevokedIdentity, string(gone.ID), c.Now(), longestToken)
			},
		},
		OnEnable: []func(store.Tx, directory.Object) error{
			func(tx store.Tx, o directory.Object) error {
				if o.Enabled {
					return feed.Restore(tx, client.RevokedIdentity, string(o.ID), c.Now(), longestToken)
				}
				return feed.Revoke(tx, client.RevokedIdentity, string(o.ID), c.Now(), longestToken)
			},
			func(tx store.Tx, o directory.Object) error { return s.hosts.Forget(tx, o) },
			func(tx store.Tx, o directory.Object) error { return s.databases.Enabled(tx, o) },
		},
		OnMember: []func(store.Tx, innate.ObjectID, innate.ObjectID) error{
			func(tx store.Tx, group, member innate.ObjectID) error { return s.databases.Member(tx, group, member) },
		},
		Now: c.Now,
	}); err != nil {
		return err
	}
	if s.access, err = access.New(access.Config{
		DB: s.db, Audit: s.audit, Directory: s.directory, Tenant: p.Tenant,
		Exists: resources.Exists, Now: c.Now,
	}); err != nil {
		return err
	}
	if s.tokens, err = tokens.New(ctx, tokens.Config{
		DB: s.db, Audit: s.audit, Seal: s.master, CA: s.ca, Directory: s.directory,
		Tenant: p.Tenant, Domain: p.Domain, Login: s.Endpoints.Login, Mutual: s.Hosts,
		Services: tokens.FirstParties(s.Endpoints.Management, s.Endpoints.Graph, "https://"+s.Endpoints.VaultSuffix, p.Domain),
		Resource: s.postgresAudience, Resources: s.postgresAudiences,
		MayExchange: func(ctx context.Context, actor innate.Principal, subject directory.Object, _ string) error {
			return s.access.Check(ctx, actor, access.Data(access.ExchangeToken), scopeOf(subject))
		},
		Revoked: s.revokedToken,
		OnRevoke: func(tx store.Tx, kid string) error {
			return feed.Revoke(tx, client.RevokedKey, kid, c.Now(), longestToken)
		},
		Outside: c.Outside, NewKey: c.NewKey, Now: c.Now, Log: c.Log,
	}); err != nil {
		return err
	}
	if s.vault, err = vault.New(vault.Config{
		DB: s.db, Audit: s.audit, Seal: s.master, Access: s.access, Tenant: p.Tenant,
		Login: s.Endpoints.Login, Suffix: s.Endpoints.VaultSuffix,
		ByName:  func(name string) (innate.ResourceID, bool) { return s.resources.VaultByName(name) },
		Revoked: func(who innate.Principal) (string, bool) { return s.revokedToken(who, "") },
		Now:     c.Now, Log: c.Log,
	}); err != nil {
		return err
	}
	if s.databases, err = databases.New(databases.Config{
		DB: s.db, Audit: s.audit, Access: s.access, Tenant: p.Tenant,
		OnLogin: func(tx store.Tx, id innate.ObjectID) error { return s.hosts.LoginsChanged(tx, id) },
		Revoked: func(who innate.Principal) (string, bool) { return s.revokedToken(who, "") },
		Now:     c.Now,
	}); err != nil {
		return err
	}
	challenges, err := challengeKey(ctx, s.db, s.master)
	if err != nil {
		return err
	}
	if s.hosts, err = hosts.New(hosts.Config{
		DB: s.db, Audit: s.audit, CA: s.ca, Directory: s.directory, Tenant: p.Tenant, Domain: p.Domain,
		Mutual: s.Hosts, Address: s.hostsAddress(), Challenges: challenges, TPMRoots: c.TPMRoots,
		Require: func(ctx context.Context, who innate.Principal, action string, at innate.Scope) error {
			return s.access.Require(ctx, who, access.Control(action), at)
		},
		Logins: databases.LoginsOf, Place: s.databases.Place, Displace: s.databases.Displace,
		Now: c.Now, Log: c.Log,
	}); err != nil {
		return err
	}
	s.resources, err = resources.New(resources.Config{
		DB: s.db, Audit: s.audit, Directory: s.directory, Access: s.access, Tenant: p.Tenant,
		Endpoints: s.Endpoints,
		OnWrite:   []func(store.Tx, *resources.Resource, *resources.Resource) error{s.hosts.Placed, s.vaultWritten, s.postgresWritten},
		OnDelete: []func(store.Tx, *resources.Resource) error{
			s.hosts.Gone,
			s.vaultGone,
			s.postgresGone,
			func(tx store.Tx, gone *resources.Resource) error {
				return feed.Revoke(tx, client.RevokedResource, gone.ID.Key(), c.Now(), longestToken)
			},
		},
		OnPurge: []func(store.Tx, *resources.Resource) error{
			func(tx store.Tx, gone *resources.Resource) error { return s.vault.Delete(tx, gone.ID) },
		},
		Actions: s.hosts.Actions(),
		Now:     c.Now,
	})
	return err
}

// revokedToken reports whether the token that somebody came with is revoked,
// and by what; key is the one that signed it, empty where it is not known.
func (s *Server) revokedToken(of innate.Principal, key string) (why string, revoked bool) {
	return s.revoked.Revoked(client.Claim{
		Object: of.Object, Hosting: of.Hosting, Host: of.Host, Token: of.Token, Key: key, IssuedAt: of.IssuedAt,
	})
}

// scopeOf is where a role over a principal hangs: at the resource that a managed
// identity lives with, and for what has none at the root.
func scopeOf(o directory.Object) innate.Scope {
	if o.Owner == "" {
		return innate.Root
	}
	return o.Owner.Scope()
}

// hostsAddress is where agents dial: in development this listener, since the
// name does not resolve there; else empty, which is the name.
func (s *Server) hostsAddress() string {
	if s.Platform.Dev {
		return s.config.Listener.Addr().String()
	}
	return ""
}

// Run serves until ctx ends, then stops everything and closes the platform.
func (s *Server) Run(ctx context.Context) error {
	defer s.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serveTLS(ctx) })
	if s.config.Socket != "" {
		g.Go(func() error { return s.serveSocket(ctx) })
	}
	g.Go(func() error { return s.drain(ctx) })
	g.Go(func() error { return s.forget(ctx) })
	g.Go(func() error { return s.tokens.Run(ctx) })
	g.Go(func() error { return s.vault.Follow(ctx) })
	g.Go(func() error { return s.vault.Run(ctx) })
	return g.Wait()
}

// Close closes what New opened. Run does it by itself.
func (s *Server) Close() error {
	var errs []error
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.audit != nil {
		errs = append(errs, s.audit.Close())
	}
	return errors.Join(errs...)
}

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.config.Listener.Addr() }

// Bundle is the certificate (PEM) of the authority that signs the platform's
// server certificates: what a client must trust.
func (s *Server) Bundle() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.Certificate(ca.Servers).Raw})
}

// forget drops, every hour, revocations that no living token can need,
// assertions that nobody could present again, and vaults whose time is over.
func (s *Server) forget(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if _, err := s.db.Update(ctx, func(tx store.Tx) error {
				return feed.Forget(tx, s.config.Now())
			}); err != nil && ctx.Err() == nil {
				s.config.Log.Error("forgetting old revocations", "err", err)
			}
			if err := s.tokens.Forget(ctx); err != nil && ctx.Err() == nil {
				s.config.Log.Error("forgetting old assertions", "err", err)
			}
			if err := s.resources.Sweep(ctx); err != nil && ctx.Err() == nil {
				s.config.Log.Error("purging deleted vaults", "err", err)
			}
		}
	}
}
