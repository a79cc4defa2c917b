package vault

import (
	"context"
	"fmt"
	"time"

	"innate"
	"innate/audit"
	"innate/store"
)

// sweeping is how often Run looks for what is due.
const sweeping = 10 * time.Minute

// A transaction of Sweep's removes so many secrets, or so many rows of a vault
// that is gone.
const (
	sweptSecrets = 100
	sweptRows    = 2000
)

// Run purges what is due, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(sweeping)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.config.Log.Error("purging what is due; trying again", "err", err, "in", sweeping)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Sweep removes for good the deleted secrets whose retention has ended, each on
// record, and what is left of vaults that are gone.
func (s *Service) Sweep(ctx context.Context) error {
	var all map[string]innate.ResourceID // by GUID
	var gone []string
	if err := s.config.DB.View(ctx, func(r store.Reader) error {
		all = map[string]innate.ResourceID{}
		for key, row := range vaults.All(r, "", "") {
			all[row.GUID] = innate.ResourceID(key)
		}
		for guid := range purge.All(r, "", "") {
			gone = append(gone, guid)
		}
		return nil
	}); err != nil {
		return err
	}
	for guid, id := range all {
		if err := s.purgeDue(ctx, guid, id); err != nil {
			return fmt.Errorf("vault %s: %w", id, err)
		}
	}
	for _, guid := range gone {
		if err := s.eraseVault(ctx, guid); err != nil {
			return fmt.Errorf("what is left of vault %s: %w", guid, err)
		}
	}
	return nil
}

// purgeDue purges a vault's deleted secrets that are due, some at a time.
func (s *Service) purgeDue(ctx context.Context, guid string, id innate.ResourceID) error {
	now := s.config.Now()
	var due []string
	if err := s.config.DB.View(ctx, func(r store.Reader) error {
		for _, row := range deleted.All(r, guid+"/", "") {
			if !row.Purge.After(now) {
				due = append(due, row.Name)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for len(due) > 0 {
		some := due[:min(len(due), sweptSecrets)]
		due = due[len(some):]
		if _, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
			return purgeThose(tx, vaultRow{GUID: guid}, id, some, now)
		}); err != nil {
			return err
		}
	}
	return nil
}

// purgeThose purges those of the secrets named that are still deleted and due.
func purgeThose(tx store.Tx, v vaultRow, id innate.ResourceID, names []string, now time.Time) error {
	for _, name := range names {
		at := v.placeOf(name)
		row, ok, err := deleted.Get(tx, at.key())
		if err != nil {
			return err
		}
		if !ok || row.Purge.After(now) {
			continue
		}
		at.erase(tx)
		if err := audit.Leave(tx, audit.Event{
			Time: now, Action: purgeSecret.Name, Allowed: true, Target: string(id) + "/secrets/" + row.Name,
			Why: "deleted on " + row.Deleted.UTC().Format(time.DateOnly) + ", and kept until it was due",
		}); err != nil {
			return err
		}
	}
	return nil
}

// eraseVault removes the rows of a vault that is gone, which nobody else reads
// or writes, and at last the note that there are some.
func (s *Service) eraseVault(ctx context.Context, guid string) error {
	for _, table := range []string{string(secrets), string(deleted), string(versions), values} {
		for left := true; left; {
			if _, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
				left = false
				n := 0
				for key := range tx.Scan(table+guid+"/", "") {
					if left = n == sweptRows; left {
						break
					}
					tx.Delete(key)
					n++
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	_, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
		purge.Delete(tx, guid)
		return nil
	})
	return err
}
