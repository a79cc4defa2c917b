package feed

import (
	"strings"
	"time"

	"innate/feed/client"
	"innate/store"
)

// RevokedPrefix begins the rows that Revoke writes; their keys go on with client.RevocationKey.
const RevokedPrefix = "feed/revoked/"

const revoked store.Table[client.Revocation] = RevokedPrefix

// margin is by how much the clocks of those who issue and verify may differ,
// and a little more: a row outlives by so much every token that it revokes.
const margin = 5 * time.Minute

// Revoke makes the tokens worthless that have been issued, in the transaction that takes away what they stood for.
// A resource and a machine may be made again under the same id, and a resource moved back, so of theirs only those
// issued up to now are meant;
// an identity, a token and a key are meant whole. The row is kept for keep (the longest life of a token),
// that of a key for ever: whoever has the key writes tokens of any life, and some verifier may remember one.
func Revoke(tx store.Tx, kind client.RevocationKind, id string, now time.Time, keep time.Duration) error {
	row := client.Revocation{Kind: kind, ID: id, Until: now.Add(keep + margin)}
	switch kind {
	case client.RevokedResource, client.RevokedHost, client.RevokedPlacement:
		row.Before = now
	case client.RevokedKey:
		row.Until = time.Time{}
	}
	return revoked.Put(tx, client.RevocationKey(kind, id), row)
}

// Restore takes back a revocation of everything (an identity enabled again); what was issued before now stays revoked.
func Restore(tx store.Tx, kind client.RevocationKind, id string, now time.Time, keep time.Duration) error {
	key := client.RevocationKey(kind, id)
	row, ok, err := revoked.Get(tx, key)
	if err != nil || !ok {
		return err
	}
	row.Before, row.Until = now, now.Add(keep+margin)
	return revoked.Put(tx, key, row)
}

// Forget removes the revocations that no living token can need.
func Forget(tx store.Tx, now time.Time) error {
	for id, row := range revoked.All(tx, "", "") {
		if !row.Until.IsZero() && row.Until.Before(now) {
			revoked.Delete(tx, id)
		}
	}
	return nil
}

// Revocations is the set of this process's own store, current whenever an Update returns.
func Revocations(db *store.DB) *client.Revocations {
	set := client.NewRevocations(nil)
	db.Index(RevokedPrefix, func(c store.Change) {
		set.Apply(client.Event{Key: strings.TrimPrefix(c.Key, RevokedPrefix), Value: c.Value})
	})
	return set
}
