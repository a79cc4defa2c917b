package tokens

import (
	"fmt"

	"innate/seal"
	"innate/store"
)

// Reseal seals the signing keys again, under the newest master key. Withdrawn
// ones have nothing left to seal.
func Reseal(tx store.Tx, master *seal.Key) error {
	for id, row := range keyRows.All(tx, "", "") {
		if row.Withdrawn {
			continue
		}
		key, err := master.Reseal(row.Key, place(id))
		if err != nil {
			return fmt.Errorf("signing key %s: %w", row.kid(), err)
		}
		row.Key = key
		if err := keyRows.Put(tx, id, row); err != nil {
			return err
		}
	}
	return nil
}
