// Package directory is who exists: users, groups, app registrations, service
// principals and managed identities, and the keys they hold.
//
// It leaves to access what they may do (who may edit is a function in Config),
// to tokens how they prove themselves, and to resources when a managed identity
// comes and goes: it lives and dies with its resource, never by itself.
//
// What happens inside another noun's transaction is a function that takes its
// store.Tx, decides nothing about permission and leaves no audit event: that
// noun does. What people and programs ask for is a method of Directory or Graph,
// and asks Config.MayEdit.
//
// A lookup answers from this process's memory. Before saying "not found" to
// anybody, call Sync and look again.
package directory

import (
	"context"
	"errors"
	"net/http"
	"time"

	"innate"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// The actions that MayEdit is asked about.
const (
	actionRead        = "microsoft.directory/read" // to read others than oneself
	actionApplication = "microsoft.directory/applications/"
	actionPrincipal   = "microsoft.directory/servicePrincipals/"
	actionUser        = "microsoft.directory/users/"
	actionGroup       = "microsoft.directory/groups/"
)

// Config says what a Directory needs. DB, Audit, Tenant, Graph and MayEdit are required.
type Config struct {
	DB     *store.DB
	Audit  *audit.Log
	Tenant innate.TenantID
	Graph  string // origin of GRAPH, for odata links
	// MayEdit says whether who may do action (microsoft.directory/groups/create, say), nil when it may; the error is a *rest.Error.
	MayEdit func(ctx context.Context, who innate.Principal, action string) error
	// Reserved says whether uri is an audience of the platform's own services, which no registration may take; nil means none is.
	Reserved func(uri string) bool
	// OnDelete runs in the transaction that removes a principal: its role assignments and tokens go with it.
	OnDelete []func(store.Tx, Object) error
	// OnEnable runs in the transaction that enables or disables a principal.
	OnEnable []func(store.Tx, Object) error
	// OnMember runs in the transaction that puts a member, which may be a group itself, into a group or takes it out.
	OnMember []func(tx store.Tx, group, member innate.ObjectID) error
	Now      func() time.Time
}

func (c *Config) check() error {
	switch {
	case c.DB == nil:
		return errors.New("directory: Config needs DB")
	case c.Audit == nil:
		return errors.New("directory: Config needs Audit")
	case c.Tenant == "":
		return errors.New("directory: Config needs Tenant")
	case c.Graph == "":
		return errors.New("directory: Config needs Graph")
	case c.MayEdit == nil:
		return errors.New("directory: Config needs MayEdit")
	}
	if c.Reserved == nil {
		c.Reserved = func(string) bool { return false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// A Directory answers questions about principals from an index in memory, and serves Graph.
type Directory struct {
	config Config
	index  *index
}

// New checks c and indexes the store.
func New(c Config) (*Directory, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Directory{config: c, index: newIndex(c.DB)}, nil
}

// Sync makes this process see all that was committed before the call: ask again after it before saying "not found".
func (d *Directory) Sync(ctx context.Context) error { return d.config.DB.Sync(ctx) }

// errMissing is the cause of a refusal for what is not there, whatever its status.
var errMissing = errors.New("not there")

// update runs fn in a transaction. When fn finds something missing, it runs
// again on a state that has all that was committed before the call.
func (d *Directory) update(ctx context.Context, fn func(store.Tx) error) error {
	_, err := d.config.DB.Update(ctx, fn)
	if !errors.Is(err, errMissing) {
		return err
	}
	if err := d.Sync(ctx); err != nil {
		return err
	}
	_, err = d.config.DB.Update(ctx, fn)
	return err
}

// leave puts the record of who did action to target in the transaction that did it.
func (d *Directory) leave(ctx context.Context, tx store.Tx, who innate.Principal, action, target string) error {
	return audit.Leave(tx, audit.Event{
		Time: d.config.Now(), Action: action, Allowed: true, Target: target,
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace: rest.RequestID(ctx),
	})
}

// notFound is Graph's answer for an object that is not there.
func notFound[ID ~string](id ID) error {
	e := rest.Errorf(http.StatusNotFound, "Request_ResourceNotFound",
		"Resource '%s' does not exist or one of its queried reference-property objects are not present.", id)
	e.Cause = errMissing
	return e
}

// bad is Graph's answer to what no retry will make right.
func bad(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, "Request_BadRequest", format, args...)
}

// taken is Graph's answer for a value that another object has.
func taken(format string, args ...any) error {
	return rest.Errorf(http.StatusConflict, "Request_MultipleObjectsWithSameKeyValue", format, args...)
}
