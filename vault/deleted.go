package vault

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"innate/audit"
	"innate/rest"
	"innate/store"
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
		moved := deletedRow{secretRow: row, Deleted: now, Purge: now.AddDate(0, 0, v.days())}
		secrets.Delete(tx, at.key())
		if err := deleted.Put(tx, at.key(), moved); err != nil {
			return err
		}
		gone, err = deletedIn(tx, v, at, moved)
		return err
	})
	return gone, err
}

// getDeleted returns a deleted secret, without a value.
func (s *Service) getDeleted(ctx context.Context, u use) (gone deletedSecret, err error) {
	err = s.read(ctx, u, readDeleted, func(r store.Reader, v vaultRow, _ *audit.Event) error {
		at := v.placeOf(u.secret)
		row, ok, err := deleted.Get(r, at.key())
		if err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		gone, err = deletedIn(r, v, at, row)
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
			one, err := deletedIn(r, v, v.placeOf(row.Name), row)
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
		back, err = latest(tx, v, at, row.secretRow)
		return err
	})
	return back, err
}

// purge removes a deleted secret for good.
func (s *Service) purge(ctx context.Context, u use) error {
	return s.write(ctx, u, purgeSecret, func(tx store.Tx, v vaultRow, _ *audit.Event) error {
		at := v.placeOf(u.secret)
		row, ok, err := deleted.Get(tx, at.key())
		if err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		if v.Protected {
			return purgeProtected(u, row.Purge)
		}
		at.erase(tx)
		return nil
	})
}

// erase removes a deleted secret with all its versions.
func (p place) erase(tx store.Tx) {
	deleted.Delete(tx, p.key())
	for _, table := range []string{string(versions), values} {
		for key := range tx.Scan(table+p.key()+"/", "") {
			tx.Delete(key)
		}
	}
}

func purgeProtected(u use, due time.Time) error {
	return &rest.Error{
		Status: http.StatusForbidden, Code: "Forbidden", Inner: "PurgeProtectionEnabled",
		Message: fmt.Sprintf("Operation purge is not allowed: the vault %s has purge protection. The secret %s goes by itself at %s, and can be recovered until then.",
			u.vault.Name(), u.secret, due.UTC().Format(time.RFC3339)),
	}
}

func deletedIn(r store.Reader, v vaultRow, at place, row deletedRow) (deletedSecret, error) {
	last, err := latest(r, v, at, row.secretRow)
	return deletedSecret{secret: last, deleted: row.Deleted, purge: row.Purge}, err
}
