// Package resources is what exists: VMs, apps, plans, machines, identities,
// vaults and PostgreSQL servers in their groups and subscriptions; identity on
// or off; the ARM API.
//
// It owns the life of a resource and of the identity that lives with it: both
// come and go in one transaction, with the role assignments at the resource and
// whatever the other nouns hang on it (Config.OnWrite, OnDelete). It leaves to
// access who may do what, to hosts what is placed where, to vault what is
// inside a vault, to databases who may log in at a server.
//
// Deleting a resource takes it out of every resource that refers to it, so that
// a later one of the same name inherits nothing. Ids compare without case: look
// them up with Find and Get, never by comparing strings.
package resources

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// The types we know.
const (
	TypeGroup    = "Microsoft.Resources/resourceGroups"
	TypeVM       = "Microsoft.Compute/virtualMachines"
	TypeSite     = "Microsoft.Web/sites"
	TypePlan     = "Microsoft.Web/serverfarms"
	TypeMachine  = "Microsoft.HybridCompute/machines"
	TypeIdentity = "Microsoft.ManagedIdentity/userAssignedIdentities"
	TypeVault    = "Microsoft.KeyVault/vaults"
	TypePostgres = "Microsoft.DBforPostgreSQL/flexibleServers"
)

// Config says what Resources needs. All but OnWrite, OnDelete, OnPurge, Actions and Now are required.
type Config struct {
	DB        *store.DB
	Audit     *audit.Log
	Directory *directory.Directory
	Access    *access.Access
	Tenant    innate.TenantID
	Endpoints Endpoints
	// OnWrite runs in the transaction that wrote a resource, after its row; old is nil at creation.
	OnWrite []func(tx store.Tx, old, now *Resource) error
	// OnDelete runs in the transaction that removes a resource, before its row and identity go.
	OnDelete []func(tx store.Tx, gone *Resource) error
	// OnPurge runs in the transaction that removes a deleted vault for good.
	OnPurge []func(tx store.Tx, gone *Resource) error
	// Actions are what other nouns serve as POST {resource}/{action}, by type and
	// action in lower case: microsoft.hybridcompute/machines/join.
	Actions map[string]Action
	Now     func() time.Time
}

// An Action answers POST {resource}/{action}. It asks by itself whether who may.
type Action func(w http.ResponseWriter, r *http.Request, who innate.Principal, on *Resource)

// Endpoints are the platform's origins, without a trailing slash.
type Endpoints struct {
	Login, Management, Graph string
	Portal                   string // empty means Management
	VaultSuffix              string // vault.example.org[:port]
	PostgresSuffix           string // postgres.example.org
}

// Resources serves ARM.
type Resources struct {
	config Config
	index  *index
	routes []route
}

// New checks c and indexes the store.
func New(c Config) (*Resources, error) {
	e := c.Endpoints
	for _, field := range []struct {
		name  string
		given bool
	}{
		{"DB", c.DB != nil}, {"Audit", c.Audit != nil}, {"Directory", c.Directory != nil}, {"Access", c.Access != nil},
		{"Tenant", c.Tenant != ""}, {"Endpoints.Login", e.Login != ""}, {"Endpoints.Management", e.Management != ""}, {"Endpoints.Graph", e.Graph != ""}, {"Endpoints.VaultSuffix", e.VaultSuffix != ""}, {"Endpoints.PostgresSuffix", e.PostgresSuffix != ""},
	} {
		if !field.given {
			return nil, errors.New("resources: Config needs " + field.name)
		}
	}
	if c.Endpoints.Portal == "" {
		c.Endpoints.Portal = e.Management
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Resources{config: c, index: newIndex(c.DB)}
	s.routes = s.allRoutes()
	return s, nil
}

// A Subscription holds resource groups.
type Subscription struct {
	ID      string    `json:"id"` // GUID
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// CreateSubscription makes a subscription at the platform's creation.
func CreateSubscription(tx store.Tx, id, name string, now time.Time) error {
	id, err := innate.ParseGUID(id)
	if err != nil {
		return err
	}
	return subscriptions.Put(tx, id, Subscription{id, name, now.UTC()})
}

// Find returns a resource as of now, from memory. Before saying "not found" to
// anybody, call the store's Sync and look again.
func (s *Resources) Find(id innate.ResourceID) (*Resource, bool) { return s.index.find(id) }

// Exists reports whether there is something at a scope: the root, a
// subscription, a group, a resource, or a part of one, such as a vault's secret.
// In a transaction, what it found to be there cannot go before the commit.
func Exists(r store.Reader, at innate.Scope) (ok bool, err error) {
	if at == innate.Root {
		return true, nil
	}
	id := innate.ResourceID(at)
	if id.Is(typeSubscription) {
		_, ok, err = subscriptions.Get(r, id.Subscription())
	} else {
		_, ok, err = Get(r, whole(id))
	}
	return ok, err
}

// whole is the resource that id is, or is a part of.
func whole(id innate.ResourceID) innate.ResourceID {
	const parts = 1 + 8 // /subscriptions/s/resourceGroups/g/providers/ns/type/name, split at slashes
	if all := strings.SplitN(string(id), "/", parts+1); len(all) > parts {
		return innate.ResourceID(strings.Join(all[:parts], "/"))
	}
	return id
}

// VaultByName returns the vault that answers at {name}.vault.{domain}; names are unique and compare without case.
func (s *Resources) VaultByName(name string) (innate.ResourceID, bool) { return s.index.vault(name) }

// OnVault calls fn with the name of every vault: those there are, before it
// returns, and each later one before its creation is acknowledged. fn must be
// quick and must not call the store. Names of deleted vaults are not taken back.
func (s *Resources) OnVault(fn func(name string)) {
	vaultNames.Index(s.config.DB, func(name string, id *innate.ResourceID) {
		if id != nil {
			fn(name)
		}
	})
}

// event is the record of who did what to which resource; Allowed is set.
func (s *Resources) event(ctx context.Context, who innate.Principal, action string, at innate.ResourceID) audit.Event {
	return audit.Event{
		Time: s.config.Now(), Action: action, Allowed: true, Target: string(at),
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace: rest.RequestID(ctx),
	}
}
