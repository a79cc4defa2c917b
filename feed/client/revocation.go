package client

import (
	"encoding/json"
	"strings"
	"sync"
	"time"

	"innate"
)

// A Revocation says that tokens are no longer to be believed.
type Revocation struct {
	Kind   RevocationKind `json:"kind"`
	ID     string         `json:"id"`
	Before time.Time      `json:"before"` // tokens issued at or before this; zero means all
	Until  time.Time      `json:"until"`  // when the row may be forgotten; zero means never
}

// A RevocationKind says what a Revocation names.
type RevocationKind string

// The kinds, and what is in ID: the first four are compared without regard to case.
const (
	RevokedIdentity  RevocationKind = "identity"  // object id
	RevokedResource  RevocationKind = "resource"  // hosting resource id (xms_az_rid)
	RevokedHost      RevocationKind = "host"      // machine's resource id
	RevokedPlacement RevocationKind = "placement" // hosting resource id, "@", machine's resource id: see PlacementID
	RevokedToken     RevocationKind = "token"     // uti
	RevokedKey       RevocationKind = "key"       // kid of a signing key
)

// Revocations is the set of what is revoked, safe for many goroutines.
type Revocations struct {
	age func() time.Duration

	mu   sync.RWMutex
	rows map[name]Revocation
	next map[name]Revocation // the snapshot that is coming in; until it is whole, rows go on deciding
}

// A name is what a Revocation names, in the form that compares.
type name struct {
	kind RevocationKind
	id   string
}

func nameOf(kind RevocationKind, id string) name {
	switch kind {
	case RevokedIdentity, RevokedResource, RevokedHost, RevokedPlacement:
		id = strings.ToLower(id)
	}
	return name{kind, id}
}

// PlacementID is the ID of a RevokedPlacement.
func PlacementID(hosting, machine innate.ResourceID) string {
	return string(hosting) + "@" + string(machine)
}

// RevocationKey is the key of a revocation's row in its feed: the kind, a slash and the id.
func RevocationKey(kind RevocationKind, id string) string {
	n := nameOf(kind, id)
	return string(n.kind) + "/" + n.id
}

// NewRevocations returns an empty set. age says how old the view is; nil means it
// is always current (the set is fed by the process's own store).
func NewRevocations(age func() time.Duration) *Revocations {
	if age == nil {
		age = func() time.Duration { return 0 }
	}
	return &Revocations{age: age, rows: map[name]Revocation{}}
}

// Apply takes one event of the feed of revocations: the key is a RevocationKey,
// the value a Revocation. What cannot be read revokes all that its key names,
// rather than nothing.
func (r *Revocations) Apply(ev Event) {
	kind, id, _ := strings.Cut(ev.Key, "/")
	of := nameOf(RevocationKind(kind), id)
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := r.rows
	if r.next != nil {
		rows = r.next
	}
	switch {
	case ev.Reset:
		r.next = map[name]Revocation{}
	case ev.Synced && r.next != nil:
		r.rows, r.next = r.next, nil
	case ev.Key == "":
	case len(ev.Value) == 0:
		delete(rows, of)
	default:
		var row Revocation
		if json.Unmarshal(ev.Value, &row) != nil {
			row = Revocation{}
		}
		rows[of] = row
	}
}

// A Claim is what of a token decides whether it is revoked.
type Claim struct {
	Object   innate.ObjectID
	Hosting  innate.ResourceID
	Host     innate.ResourceID
	Token    string // uti
	Key      string // kid
	IssuedAt time.Time
}

// Revoked reports whether the token is revoked and by what. A token that names
// the second of its issue and no more is taken to be from that second's begin.
func (r *Revocations) Revoked(c Claim) (why string, revoked bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(r.rows) == 0 {
		return "", false
	}
	for _, of := range []struct {
		name name
		why  string
	}{
		{nameOf(RevokedIdentity, string(c.Object)), "its identity was deleted or disabled"},
		{nameOf(RevokedResource, string(c.Hosting)), "the resource it was issued to was deleted"},
		{nameOf(RevokedHost, string(c.Host)), "the machine it was issued on was evicted"},
		{nameOf(RevokedPlacement, PlacementID(c.Hosting, c.Host)), "the resource it was issued to was moved off the machine it was issued on"},
		{nameOf(RevokedToken, c.Token), "it was revoked"},
		{nameOf(RevokedKey, c.Key), "the key that signed it was revoked"},
	} {
		row, ok := r.rows[of.name]
		if ok && (row.Before.IsZero() || !c.IssuedAt.After(row.Before)) {
			return of.why, true
		}
	}
	return "", false
}

// Age is how old the set's view is.
func (r *Revocations) Age() time.Duration { return r.age() }
