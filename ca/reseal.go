package ca

import (
	"fmt"

	"innate/seal"
	"innate/store"
)

// Reseal seals the keys of all authorities again, under the newest master key.
func Reseal(tx store.Tx, master *seal.Key) error {
	for p, r := range rows.All(tx, "", "") {
		key, err := master.Reseal(r.Key, place(Purpose(p)))
		if err != nil {
			return fmt.Errorf("key of the authority for %s: %w", p, err)
		}
		r.Key = key
		if err := rows.Put(tx, p, r); err != nil {
			return err
		}
	}
	return nil
}
