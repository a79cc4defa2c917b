// Package access is who may do what, where: role definitions, assignments, and
// one question: Allowed.
//
// It leaves to directory who exists and who is in which group, and knows no
// resources: a scope is a path. What is granted at a resource goes with it
// (DeleteAt), and what is granted to a principal goes with that (DeleteOf), in
// the transaction that removes them.
//
// Deny by default. A refusal is only ever given on a state that has all that was
// committed before the question; an error of Allowed or Require is a refusal too.
package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/audit"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// An Action is something one may be allowed to do. Control actions are granted
// by actions, data actions by dataActions; the same words in the other list grant nothing.
type Action struct {
	Name string
	Data bool
}

// Control is an action on resources.
func Control(name string) Action { return Action{name, false} }

// Data is an action on what is inside them.
func Data(name string) Action { return Action{name, true} }

// A Decision is yes or no, and why.
type Decision struct {
	Allowed    bool   `json:"allowed"`
	Why        string `json:"why"`                  // by which role where, or what is missing
	Assignment string `json:"assignment,omitempty"` // id of the role assignment that allows
	Role       string `json:"role,omitempty"`       // name of its role
	Smallest   string `json:"smallest,omitempty"`   // when refused: the built-in role with the fewest rights that would allow it; empty where a surer proof would
}

// Config says what Access needs. DB, Audit, Directory and Tenant are required.
type Config struct {
	DB        *store.DB
	Audit     *audit.Log
	Directory *directory.Directory
	Tenant    innate.TenantID
	// Exists says whether there is a resource at a scope, inside the transaction that grants there: one that is
	// deleted meanwhile is a conflict, and no grant outlives it. nil means there always is.
	Exists func(store.Reader, innate.Scope) (bool, error)
	Now    func() time.Time
}

func (c *Config) check() error {
	switch {
	case c.DB == nil:
		return errors.New("access: Config needs DB")
	case c.Audit == nil:
		return errors.New("access: Config needs Audit")
	case c.Directory == nil:
		return errors.New("access: Config needs Directory")
	case c.Tenant == "":
		return errors.New("access: Config needs Tenant")
	}
	if c.Exists == nil {
		c.Exists = func(store.Reader, innate.Scope) (bool, error) { return true, nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// Access answers Allowed from an index in memory.
type Access struct {
	config Config
	index  *index
}

// New checks c and indexes the store.
func New(c Config) (*Access, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Access{config: c, index: newIndex(c.DB)}, nil
}

// Allowed decides. A refusal is given only after the process has seen all that was committed before the call.
func (a *Access) Allowed(ctx context.Context, who innate.Principal, do Action, at innate.Scope) (Decision, error) {
	if who.Object == "" {
		return a.refusal(who, do, at, "nobody is asking"), nil
	}
	if who.Tenant != "" && who.Tenant != a.config.Tenant {
		return a.refusal(who, do, at, "it is of another tenant"), nil
	}
	if d, ok := a.grant(who, do, at); ok {
		return d, nil
	}
	if err := a.config.DB.Sync(ctx); err != nil {
		return Decision{}, fmt.Errorf("deciding %s: %w", do.Name, err)
	}
	if d, ok := a.grant(who, do, at); ok {
		return d, nil
	}
	if d, ok := a.tooWeak(who, do, at); ok {
		return d, nil
	}
	return a.refusal(who, do, at, "no role assignment allows it"), nil
}

// grant looks for an assignment that allows it: the principal's own first, then
// those of its groups.
func (a *Access) grant(who innate.Principal, do Action, at innate.Scope) (Decision, bool) {
	if g, role, ok := a.index.allowing(who.Object, do, at, who.Assurance); ok {
		return Decision{Allowed: true, Why: role + " at " + string(g.scope), Assignment: g.id, Role: role}, true
	}
	for _, group := range a.config.Directory.Groups(who.Object) {
		if g, role, ok := a.index.allowing(group, do, at, who.Assurance); ok {
			why := role + " at " + string(g.scope) + " through " + a.groupName(group)
			return Decision{Allowed: true, Why: why, Assignment: g.id, Role: role}, true
		}
	}
	return Decision{}, false
}

// tooWeak refuses who would be allowed if it were proved more surely where it runs.
func (a *Access) tooWeak(who innate.Principal, do Action, at innate.Scope) (Decision, bool) {
	for _, id := range a.identities(who.Object) {
		g, role, ok := a.index.allowing(id, do, at, surest)
		if !ok {
			continue
		}
		why := fmt.Sprintf("%s at %s is granted to whoever is proved by %s or more surely, and this caller's proof is %s",
			role, g.scope, g.minimum, who.Assurance)
		return Decision{Why: why}, true
	}
	return Decision{}, false
}

// surest meets every minimum.
const surest = innate.Assurance(255)

func (a *Access) groupName(id innate.ObjectID) string {
	if g, ok := a.config.Directory.Object(id); ok {
		return "the group " + g.Name
	}
	return "the group " + string(id)
}

// refusal says no, what the principal does have there, and what it would take.
func (a *Access) refusal(who innate.Principal, do Action, at innate.Scope, why string) Decision {
	if roles := a.index.reaching(a.identities(who.Object), at, who.Assurance); len(roles) > 0 {
		why += "; it has " + strings.Join(roles, ", ") + " there, which does not include it"
	}
	return Decision{Why: why, Smallest: a.index.smallest(do)}
}

// Identities are the object ids under which something may be granted to who: its
// own and those of every group it is in.
func (a *Access) Identities(who innate.Principal) []innate.ObjectID { return a.identities(who.Object) }

// identities are a principal and every group it is in.
func (a *Access) identities(id innate.ObjectID) []innate.ObjectID {
	return append([]innate.ObjectID{id}, a.config.Directory.Groups(id)...)
}

// Require is Allowed, recorded in the audit log, and for a refusal the *rest.Error (403 AuthorizationFailed)
// that names the action, the scope and the smallest role.
func (a *Access) Require(ctx context.Context, who innate.Principal, do Action, at innate.Scope) error {
	d, err := a.Allowed(ctx, who, do, at)
	if err != nil {
		return err
	}
	ev := a.event(ctx, who, do.Name, string(at))
	ev.Allowed, ev.Why = d.Allowed, d.Why
	if err := a.config.Audit.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording the decision on %s: %w", do.Name, err)
	}
	if d.Allowed {
		return nil
	}
	return a.forbidden(who, do, at, d)
}

// Check is Require for a caller that records the decision as part of its own.
func (a *Access) Check(ctx context.Context, who innate.Principal, do Action, at innate.Scope) error {
	d, err := a.Allowed(ctx, who, do, at)
	if err != nil || d.Allowed {
		return err
	}
	return a.forbidden(who, do, at, d)
}

func (a *Access) forbidden(who innate.Principal, do Action, at innate.Scope, d Decision) error {
	return rest.Errorf(http.StatusForbidden, "AuthorizationFailed", "%s", a.refusalText(who, do, at, d))
}

// refusalText is what the one who was refused reads.
func (a *Access) refusalText(who innate.Principal, do Action, at innate.Scope, d Decision) string {
	name := who.Name
	if name == "" {
		name = string(who.Object)
	}
	text := fmt.Sprintf("%s may not do %s at %s: %s.", name, do.Name, at, d.Why)
	if d.Smallest != "" {
		text += fmt.Sprintf(" The smallest built-in role that would is '%s'; grant it with: innate role assign --to %s --role '%s' --at %s",
			d.Smallest, who.Object, d.Smallest, at)
	}
	return text
}

// event is the record of who and what, without the decision.
func (a *Access) event(ctx context.Context, who innate.Principal, action, target string) audit.Event {
	return audit.Event{
		Time: a.config.Now(), Action: action, Target: target,
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace: rest.RequestID(ctx),
	}
}

// Sees reports whether who has any role at id, above it or below it: lists show only that.
func (a *Access) Sees(who innate.Principal, id innate.ResourceID) bool {
	return a.index.touches(a.identities(who.Object), id.Scope(), who.Assurance)
}
