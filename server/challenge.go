package server

import (
	"context"
	"fmt"

	"innate/seal"
	"innate/store"
)

// challengeKeys has the key, under the master key, that seals what hosts with a
// TPM are challenged with: anybody may make us use it, so it is none that keeps
// anything else, and it is in the store, so that each server has the same.
const challengeKeys store.Table[[]byte] = "server/keys/"

const challengeKeyRow = "challenges"

// challengeKeyPlace is what such a key is bound to.
func challengeKeyPlace(id string) []byte { return []byte(string(challengeKeys) + id) }

// resealChallenges seals it again, under the newest master key.
func resealChallenges(tx store.Tx, master *seal.Key) error {
	for id, wrapped := range challengeKeys.All(tx, "", "") {
		again, err := master.Reseal(wrapped, challengeKeyPlace(id))
		if err != nil {
			return fmt.Errorf("the key of hosts' challenges: %w", err)
		}
		if err := challengeKeys.Put(tx, id, again); err != nil {
			return err
		}
	}
	return nil
}

// challengeKey reads that key, making it when there is none.
func challengeKey(ctx context.Context, db *store.DB, master *seal.Key) (key *seal.Key, err error) {
	place := challengeKeyPlace(challengeKeyRow)
	_, err = db.Update(ctx, func(tx store.Tx) error {
		wrapped, ok, err := challengeKeys.Get(tx, challengeKeyRow)
		if err != nil {
			return err
		}
		if ok {
			key, err = master.DataKey(wrapped, place)
			return err
		}
		if key, wrapped, err = master.NewDataKey(place); err != nil {
			return err
		}
		return challengeKeys.Put(tx, challengeKeyRow, wrapped)
	})
	if err != nil {
		return nil, fmt.Errorf("the key of hosts' challenges: %w", err)
	}
	return key, nil
}
