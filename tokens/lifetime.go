package tokens

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"innate"
	"innate/audit"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// What a lifetime can be of.
const (
	OfTenant   = "tenant"
	OfAudience = "audience" // a service that tokens are for
	OfIdentity = "identity" // a principal that asks for them
)

// A Lifetime is how long tokens are good. What a token gets is the audience's
// or the identity's, of both the shorter; where neither is set the tenant's;
// and else Config.Lifetime. A change is for tokens issued after it.
type Lifetime struct {
	Of      string          `json:"of"`             // OfTenant, OfAudience or OfIdentity
	ID      string          `json:"id,omitempty"`   // app id of the audience, or object id of the identity
	Name    string          `json:"name,omitempty"` // of either, for people
	Life    Life            `json:"lifetime"`
	By      innate.ObjectID `json:"changedBy"`
	Changed time.Time       `json:"changedOn"`
}

// lifetimeRows holds Lifetimes as of or of/id.
const lifetimeRows store.Table[Lifetime] = "tokens/lifetimes/"

func (l Lifetime) row() string { return lifetimeRow(l.Of, l.ID) }

func lifetimeRow(of, id string) string {
	if of == OfTenant {
		return of
	}
	return of + "/" + id
}

// lifetimes is the table in memory.
type lifetimes struct {
	usual Life

	mu         sync.RWMutex
	tenant     Life // 0 means that none is set
	audiences  map[innate.ClientID]Life
	identities map[innate.ObjectID]Life
}

func newLifetimes(db *store.DB, usual Life) *lifetimes {
	x := &lifetimes{usual: usual, audiences: map[innate.ClientID]Life{}, identities: map[innate.ObjectID]Life{}}
	lifetimeRows.Index(db, x.apply)
	return x
}

// apply is told of every row; a nil one is gone.
func (x *lifetimes) apply(row string, l *Lifetime) {
	if l == nil {
		l = &Lifetime{}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch of, id, _ := strings.Cut(row, "/"); of {
	case OfTenant:
		x.tenant = l.Life
	case OfAudience:
		set(x.audiences, innate.ClientID(id), l.Life)
	case OfIdentity:
		set(x.identities, innate.ObjectID(id), l.Life)
	}
}

func set[K comparable](lives map[K]Life, id K, l Life) {
	if l == 0 {
		delete(lives, id)
		return
	}
	lives[id] = l
}

// of is the life of a token of identity for audience, by the rule of Lifetime.
func (x *lifetimes) of(audience innate.ClientID, identity innate.ObjectID) Life {
	x.mu.RLock()
	defer x.mu.RUnlock()
	one, other := x.audiences[audience], x.identities[identity]
	switch {
	case one != 0 && other != 0:
		return min(one, other)
	case one != 0 || other != 0:
		return max(one, other)
	case x.tenant != 0:
		return x.tenant
	}
	return x.usual
}

// The actions on lifetimes, at the root; whether who may is asked by whoever
// calls Lifetimes, SetLifetime and ClearLifetime.
const (
	ReadLifetimes   = "Innate.Tokens/lifetimes/read"
	WriteLifetimes  = "Innate.Tokens/lifetimes/write"
	DeleteLifetimes = "Innate.Tokens/lifetimes/delete"
)

// Lifetimes lists what is set, and usual: the life of the other tokens.
func (s *Service) Lifetimes(ctx context.Context) (all []Lifetime, usual Life, err error) {
	if err := s.config.DB.Sync(ctx); err != nil {
		return nil, 0, err
	}
	all = []Lifetime{}
	err = s.config.DB.View(ctx, func(r store.Reader) error {
		for _, l := range lifetimeRows.All(r, "", "") {
			l.Name = s.lifetimeName(l)
			all = append(all, l)
		}
		return nil
	})
	return all, s.lifetimes.usual, err
}

// lifetimeName is what people call that which has l.
func (s *Service) lifetimeName(l Lifetime) string {
	if own := s.services[l.ID]; own != nil {
		return own.Name
	}
	if r, ok := s.config.Directory.Registration(innate.ClientID(l.ID)); ok {
		return r.Name
	}
	o, _ := s.config.Directory.Object(innate.ObjectID(l.ID))
	return o.Name
}

// SetLifetime sets how long tokens are good: of the tenant, where name is
// empty; of an audience by any of its URIs or its app id; of an identity by its object id.
func (s *Service) SetLifetime(ctx context.Context, who innate.Principal, of, name string, life Life) (Lifetime, error) {
	if err := life.check(); err != nil {
		return Lifetime{}, badLifetime("%v", err)
	}
	l, holder, err := s.lifetimeOf(ctx, of, name)
	if err != nil {
		return Lifetime{}, err
	}
	l.Life, l.By, l.Changed = life, who.Object, s.config.Now().UTC()
	_, err = s.config.DB.Update(ctx, func(tx store.Tx) error {
		// It goes with its holder: read here, so that one which is deleted meanwhile is a conflict.
		if holder != "" {
			if _, ok, err := directory.Find(tx, holder); err != nil {
				return err
			} else if !ok {
				return noLifetimeOf(of, name)
			}
		}
		if err := lifetimeRows.Put(tx, l.row(), l); err != nil {
			return err
		}
		return s.leaveLifetime(ctx, tx, who, WriteLifetimes, l)
	})
	l.Name = s.lifetimeName(l)
	return l, err
}

// ClearLifetime undoes SetLifetime; one that is not set is no error.
func (s *Service) ClearLifetime(ctx context.Context, who innate.Principal, of, name string) error {
	l, _, err := s.lifetimeOf(ctx, of, name)
	if err != nil {
		return err
	}
	_, err = s.config.DB.Update(ctx, func(tx store.Tx) error {
		was, ok, err := lifetimeRows.Get(tx, l.row())
		if err != nil || !ok {
			return err
		}
		lifetimeRows.Delete(tx, l.row())
		return s.leaveLifetime(ctx, tx, who, DeleteLifetimes, was)
	})
	return err
}

// lifetimeOf finds what a lifetime is of, and the principal that it goes with;
// holder is empty where that is forever. What is not there is looked for again
// with all that was committed before the call.
func (s *Service) lifetimeOf(ctx context.Context, of, name string) (l Lifetime, holder innate.ObjectID, err error) {
	l.Of = of
	switch of {
	case OfTenant:
		if name != "" {
			return l, "", badLifetime("A lifetime of the tenant is of nothing in particular: leave %s away.", shown(name))
		}
		return l, "", nil
	case OfAudience, OfIdentity:
	default:
		return l, "", badLifetime("There is no lifetime of %s: want one of the %s, an %s or an %s.", shown(of), OfTenant, OfAudience, OfIdentity)
	}
	if name == "" {
		return l, "", badLifetime("The query has no 'of', which says of which %s the lifetime is.", of)
	}
	var ok bool
	if l.ID, holder, ok = s.findLifetimeOf(of, name); ok {
		return l, holder, nil
	}
	if err := s.config.DB.Sync(ctx); err != nil {
		return l, "", err
	}
	if l.ID, holder, ok = s.findLifetimeOf(of, name); !ok {
		return l, "", noLifetimeOf(of, name)
	}
	return l, holder, nil
}

func (s *Service) findLifetimeOf(of, name string) (id string, holder innate.ObjectID, ok bool) {
	if of == OfAudience {
		to, err := s.audience(name)
		if err != nil {
			return "", "", false
		}
		if to.app != nil {
			holder = to.app.Principal
		}
		return string(to.id), holder, true
	}
	o, ok := s.config.Directory.Object(innate.ObjectID(strings.ToLower(name)))
	return string(o.ID), o.ID, ok && o.Client != "" // only service principals ask for tokens
}

func badLifetime(format string, args ...any) error {
	return rest.Errorf(http.StatusBadRequest, "InvalidTokenLifetime", format, args...)
}

func noLifetimeOf(of, name string) error {
	if of == OfAudience {
		return rest.Errorf(http.StatusNotFound, "AudienceNotFound", "No service takes tokens for %s: 'innate services' lists those that do.", shown(name))
	}
	return rest.Errorf(http.StatusNotFound, "IdentityNotFound",
		"No managed identity or app registration has the object id %s: users and groups are given no tokens here.", shown(name))
}

func (s *Service) leaveLifetime(ctx context.Context, tx store.Tx, who innate.Principal, action string, l Lifetime) error {
	return audit.Leave(tx, audit.Event{
		Time: s.config.Now(), Action: action, Allowed: true, Target: l.row(),
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace:  rest.RequestID(ctx),
		Detail: map[string]string{"lifetime": time.Duration(l.Life).String()},
	})
}
