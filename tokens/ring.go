package tokens

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"innate/jwt"
)

// A ring is the signing keys as the store has them: whichever server changes
// one, all have it. A key is unsealed when its row arrives, never for a token.
type ring struct {
	config  Config
	keys    map[string]*signingKey // by row; the store's index alone uses it, one change after another
	current atomic.Pointer[keySet] // what keys is now
	changed chan struct{}          // has room for one: the schedule may be another
}

// openRing brings the store's keys up to date, making the first of each
// algorithm, and follows them. Of several servers that open one new store, one
// makes them.
func openRing(ctx context.Context, c Config) (*ring, error) {
	r := &ring{config: c, keys: map[string]*signingKey{}, changed: make(chan struct{}, 1)}
	r.current.Store(new(keySet))
	if _, err := r.keepSchedule(ctx); err != nil {
		return nil, err
	}
	keyRows.Index(c.DB, r.apply)
	for _, k := range r.now() {
		if k.fault != nil {
			return nil, fmt.Errorf("key %s: %w", k.id, k.fault)
		}
	}
	return r, nil
}

// apply takes one change of the store's.
func (r *ring) apply(id string, row *keyRow) {
	if row == nil {
		delete(r.keys, id)
	} else {
		k := openKey(r.config, id, *row)
		if k.fault != nil {
			r.config.Log.Error("this server cannot sign by a key that others may sign by", "kid", k.id, "err", k.fault)
		}
		r.keys[id] = k
	}
	set := keySet(slices.SortedFunc(maps.Values(r.keys), func(a, b *signingKey) int {
		if c := a.row.Active.Compare(b.row.Active); c != 0 {
			return c
		}
		return strings.Compare(a.id, b.id)
	}))
	r.current.Store(&set)
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// now is the keys that this process knows of.
func (r *ring) now() keySet { return *r.current.Load() }

// A keySet is the keys at one revision of the store, in the order in which they
// begin to sign. It does not change.
type keySet []*signingKey

// signing is the key of an algorithm that signs: the newest that has begun and
// not ended. It is nil when there is none, which no schedule and no roll leaves.
//
// A server that has yet to hear of a roll goes on signing by the old key for
// the milliseconds until it does. That key still verifies after an ordinary
// roll; after one that withdrew it, such a token is refused wherever it is
// shown, as it must be: nobody can tell it from a forged one.
func (s keySet) signing(alg jwt.Alg, now time.Time) (signs *signingKey) {
	for _, k := range s {
		if k.row.Alg != alg || k.row.Withdrawn || k.row.retired(now) {
			continue
		}
		// The first stands in for none: after a roll on a server whose clock is ahead
		// of ours nothing else may sign, and its key is published.
		if signs == nil || !now.Before(k.row.Active) {
			signs = k
		}
	}
	return signs
}

// published is the keys to verify with, as a JWK set. The v2 document names the issuer of each key.
func (s keySet) published(now time.Time, issuer string) jwt.Set {
	var set jwt.Set
	for _, k := range s {
		if k.published(now) {
			set.Keys = append(set.Keys, jwt.Key{ID: k.id, Alg: k.row.Alg, Public: k.public, Cert: k.row.Certificate, Issuer: issuer})
		}
	}
	return set
}

// named is the published key of that id, or nil.
func (s keySet) named(kid string, now time.Time) *signingKey {
	i := slices.IndexFunc(s, func(k *signingKey) bool { return k.id == kid && k.published(now) })
	if i < 0 {
		return nil
	}
	return s[i]
}

// published reports whether verifiers may use k.
func (k *signingKey) published(now time.Time) bool {
	return k.public != nil && !k.row.Withdrawn && !k.row.over(now)
}
