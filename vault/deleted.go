package vault

import (
	"context"
	"time"

	"innate/audit"
	"innate/rest"
	"innate/store"
)

// Every vault keeps deleted secrets for so many days, and lets them be purged before.
const (
	recoverableDays = 90
	recoveryLevel   = "Recoverable+Purgeable"
)

// A deletedSecret can be recovered until it is purged.
type deletedSecret struct {
	secret
	deleted time.Time
	purge   time.Time
}

// delete puts a secret with all its versions where only recover and purge reach it.
func (s *Service) delete(ctx context.Context, u use) (gone deletedSecret, err error) {
	err = s.write(ctx, u, deleteSecret, func(tx store.Tx, v vaultRow, _ *audit.Event) error {
		at := v.placeOf(u.secret)
		row, ok, err := secrets.Get(tx, at.key())
		if err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		now := s.config.Now()
		moved := deletedRow{secretRow: row, Deleted: now, Purge: now.AddDate(0, 0, recoverableDays)}
		secrets.Delete(tx, at.key())
		if err := deleted.Put(tx, at.key(), moved); err != nil {
			return err
		}
		gone, err = deletedIn(tx, at, moved)
		return err
	})
	return gone, err
}

// getDeleted returns a deleted secret, without a value.
func (s *Service) getDeleted(ctx context.Context, u use) (gone deletedSecret, err error) {
	err = s.read(ctx, u, readMetadata, func(r store.Reader, v vaultRow, _ *audit.Event) error {
		at := v.placeOf(u.secret)
		row, ok, err := deleted.Get(r, at.key())
		if err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		gone, err = deletedIn(r, at, row)
		return err
	})
	return gone, err
}

// listDeleted returns a page of the vault's deleted secrets and the name at
// which the next page begins.
func (s *Service) listDeleted(ctx context.Context, u use, page rest.Page) (found []deletedSecret, next string, err error) {
	err = s.read(ctx, u, readMetadata, func(r store.Reader, v vaultRow, _ *audit.Event) error {
		found, next = nil, ""
		under := v.GUID + "/"
		for id, row := range deleted.All(r, under, from(under, page)) {
			if len(found) == page.Size {
				next = id[len(under):]
				return nil
			}
			one, err := deletedIn(r, v.placeOf(row.Name), row)
			if err != nil {
				return err
			}
			found = append(found, one)
		}
		return nil
	})
	return found, next, err
}

// recover takes a deletion back.
func (s *Service) recover(ctx context.Context, u use) (back secret, err error) {
	err = s.write(ctx, u, recoverSecret, func(tx store.Tx, v vaultRow, _ *audit.Event) error {
		at := v.placeOf(u.secret)
		row, ok, err := deleted.Get(tx, at.key())
		if err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		deleted.Delete(tx, at.key())
		if err := secrets.Put(tx, at.key(), row.secretRow); err != nil {
			return err
		}
		back, err = latest(tx, at, row.secretRow)
		return err
	})
	return back, err
}

// purge removes a deleted secret for good.
func (s *Service) purge(ctx context.Context, u use) error {
	return s.write(ctx, u, purgeSecret, func(tx store.Tx, v vaultRow, _ *audit.Event) error {
		at := v.placeOf(u.secret)
		if _, ok, err := deleted.Get(tx, at.key()); err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		deleted.Delete(tx, at.key())
		deleteUnder(tx, string(versions)+at.key()+"/")
		deleteUnder(tx, values+at.key()+"/")
		return nil
	})
}

func deletedIn(r store.Reader, at place, row deletedRow) (deletedSecret, error) {
	last, err := latest(r, at, row.secretRow)
	return deletedSecret{secret: last, deleted: row.Deleted, purge: row.Purge}, err
}
