package vault

import (
	"fmt"

	"innate"
	"innate/seal"
	"innate/store"
)

// Reseal seals the data keys of all vaults, and the key of backups, again: under
// the newest master key. Values stay as they are.
func Reseal(tx store.Tx, master *seal.Key) error {
	for id, row := range vaults.All(tx, "", "") {
		wrapped, err := master.Reseal(row.Wrapped, dataKeyPlace(innate.ResourceID(id)))
		if err != nil {
			return fmt.Errorf("data key of %s: %w", id, err)
		}
		row.Wrapped = wrapped
		if err := vaults.Put(tx, id, row); err != nil {
			return err
		}
	}
	if _, err := backupKey(tx, master); err != nil { // in a store from before there were backups
		return err
	}
	for id, wrapped := range keys.All(tx, "", "") {
		again, err := master.Reseal(wrapped, []byte(string(keys)+id))
		if err != nil {
			return fmt.Errorf("key of %s: %w", id, err)
		}
		if err := keys.Put(tx, id, again); err != nil {
			return err
		}
	}
	return nil
}
