package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"innate"
	"innate/feed/client"
)

// arrival is how long a request for something unknown is held: a resource, or
// an identity just turned on, may be on its way here.
const arrival = 2 * time.Second

// placements is what is placed on this host, as the feed tells it.
type placements struct {
	// All are called in the feed's order and must not wait.
	changed func(was, now *client.Placement) // nil was: new, nil now: gone
	revoked func(innate.ObjectID)            // what was issued to it so far is worthless
	rolled  func()                           // what was issued to anybody so far may be worthless

	mu      sync.RWMutex
	byKey   map[string]*client.Placement // by resource key; not modified once in here
	again   map[string]bool              // keys seen since a Reset; nil when no snapshot is coming
	whole   bool                         // the first snapshot has come
	settled chan struct{}                // closed when what is remembered from before a restart may be gone by
	moved   chan struct{}                // closed at the next change
	revokes map[innate.ObjectID]time.Time
	keys    map[string]bool // signing keys that are revoked
}

func newPlacements(changed func(was, now *client.Placement), revoked func(innate.ObjectID), rolled func()) *placements {
	settled := make(chan struct{})
	close(settled)
	return &placements{
		changed: changed, revoked: revoked, rolled: rolled,
		byKey: map[string]*client.Placement{}, moved: make(chan struct{}), settled: settled,
		revokes: map[innate.ObjectID]time.Time{}, keys: map[string]bool{},
	}
}

// revocationKeys begins the keys of events that are about tokens (hosts.Handler).
const revocationKeys = "revoked/"

// apply takes one event of the host's feed. A snapshot does not end what it
// only repeats: what has not come again by its end is gone.
func (p *placements) apply(ev client.Event) {
	switch {
	case ev.Reset:
		p.mu.Lock()
		p.again = map[string]bool{}
		p.mu.Unlock()
	case strings.HasPrefix(ev.Key, revocationKeys):
		p.revoke(ev.Value)
	case ev.Key != "":
		p.set("/"+ev.Key, ev.Value)
	case ev.Synced:
		for _, key := range p.notAgain() {
			p.set(key, nil)
		}
		p.settle()
	}
}

// set makes the row of key what value says; nil means gone.
func (p *placements) set(key string, value json.RawMessage) {
	var now *client.Placement
	if value != nil {
		now = new(client.Placement)
		if json.Unmarshal(value, now) != nil || now.Resource.Key() != key {
			now = nil // a row that we cannot read gives nobody an identity
		}
	}
	p.mu.Lock()
	was := p.byKey[key]
	if now != nil {
		p.byKey[key] = now
	} else {
		delete(p.byKey, key)
	}
	if p.again != nil {
		p.again[key] = true
	}
	close(p.moved)
	p.moved = make(chan struct{})
	p.mu.Unlock()
	if (was != nil || now != nil) && !reflect.DeepEqual(was, now) {
		p.changed(was, now)
	}
}

// revoke tells of a revocation that is new here.
func (p *placements) revoke(value json.RawMessage) {
	var r client.Revocation
	if value == nil || json.Unmarshal(value, &r) != nil {
		return
	}
	switch r.Kind {
	case client.RevokedIdentity:
		p.revokeIdentity(innate.ObjectID(r.ID), r.Before)
	case client.RevokedKey:
		p.revokeKey(r.ID)
	}
}

// revokeIdentity compares the server's clock with itself, never with ours.
func (p *placements) revokeIdentity(id innate.ObjectID, before time.Time) {
	p.mu.Lock()
	known := p.revokes[id].Equal(before)
	p.revokes[id] = before
	p.mu.Unlock()
	if !known {
		p.revoked(id)
	}
}

func (p *placements) revokeKey(kid string) {
	p.mu.Lock()
	known := p.keys[kid]
	p.keys[kid] = true
	p.mu.Unlock()
	if !known {
		p.rolled()
	}
}

// notAgain ends a snapshot and returns the keys that it did not repeat.
func (p *placements) notAgain() (gone []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.whole = true
	if p.again == nil {
		return nil // the feed went on where it was
	}
	for key := range p.byKey {
		if !p.again[key] {
			gone = append(gone, key)
		}
	}
	p.again = nil
	return gone
}

// get returns the placement of a resource.
func (p *placements) get(id innate.ResourceID) (*client.Placement, bool) { return p.at(id.Key()) }

// at is get by the resource's key.
func (p *placements) at(key string) (*client.Placement, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	pl, ok := p.byKey[key]
	return pl, ok
}

// heard reports whether the feed has told everything once.
func (p *placements) heard() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.whole
}

// next returns a channel that is closed at the next change.
func (p *placements) next() <-chan struct{} {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.moved
}

// all returns every placement.
func (p *placements) all() []*client.Placement {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return slices.Collect(maps.Values(p.byKey))
}

// await calls look now and after each change, until it reports true, arrival
// has passed or ctx ends.
func (p *placements) await(ctx context.Context, look func() bool) {
	if look() {
		return
	}
	late := time.NewTimer(arrival)
	defer late.Stop()
	for {
		moved := p.next()
		if look() { // again: it may have come before moved was taken
			return
		}
		select {
		case <-moved:
		case <-late.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// named finds a placed resource of a type by its name or id. Of several of that
// name it returns one, and an error that lists them.
func (p *placements) named(typ, name string) (found *client.Placement, err error) {
	var ids []string
	for _, pl := range p.all() {
		if pl.Resource.Is(typ) && (strings.EqualFold(pl.Name, name) || strings.EqualFold(string(pl.Resource), name)) {
			found, ids = pl, append(ids, string(pl.Resource))
		}
	}
	switch len(ids) {
	case 0:
		return nil, fmt.Errorf("no %s called %q is placed on this host: 'innate agent status' lists what is", called[typ], name)
	case 1:
		return found, nil
	}
	return found, fmt.Errorf("%d resources called %q are placed on this host: say which by its id: %s", len(ids), name, strings.Join(ids, ", "))
}

// Types of placements, as resource ids spell them.
const (
	typeSite    = "Microsoft.Web/sites"
	typeVM      = "Microsoft.Compute/virtualMachines"
	typeMachine = "Microsoft.HybridCompute/machines"
)

// called is what people call a resource of a type.
var called = map[string]string{typeSite: "app", typeVM: "VM", typeMachine: "machine"}

// holds returns the identity with that object id that a placement has.
func holds(p *client.Placement, id innate.ObjectID) (client.Identity, bool) {
	for _, held := range p.Identities {
		if held.Object == id {
			return held, true
		}
	}
	return client.Identity{}, false
}

// choose returns the identity that a selector means among those that a workload
// has (managed-identity-endpoints §1.2).
func choose(held []client.Identity, which innate.Selector) (client.Identity, error) {
	if which == (innate.Selector{}) {
		return byDefault(held)
	}
	for _, id := range held {
		switch {
		case which.System && id.System,
			which.Client != "" && strings.EqualFold(string(which.Client), string(id.Client)),
			which.Object != "" && strings.EqualFold(string(which.Object), string(id.Object)),
			which.Resource != "" && which.Resource.Equal(id.Resource):
			return id, nil
		}
	}
	return client.Identity{}, innate.ErrNoIdentity
}

// byDefault is the system-assigned identity, else the only one.
func byDefault(held []client.Identity) (client.Identity, error) {
	for _, id := range held {
		if id.System {
			return id, nil
		}
	}
	switch len(held) {
	case 0:
		return client.Identity{}, innate.ErrNoIdentity
	case 1:
		return held[0], nil
	}
	return client.Identity{}, innate.ErrManyIdentities
}
