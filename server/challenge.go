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

// challengeKey reads that key, making it when there is none.
func challengeKey(ctx context.Context, db *store.DB, master *seal.Key) (key *seal.Key, err error) {
	place := []byte(string(challengeKeys) + challengeKeyRow)
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
