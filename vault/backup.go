package vault

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"innate/audit"
	"innate/rest"
	"innate/seal"
	"innate/store"
)

const (
	// MaxBody is the length in bytes of the longest body that a vault takes: that
	// of a restore. All other bodies are at most 1 MiB.
	MaxBody = 24 << 20

	// maxVersions is the most versions that a backup has, as in Azure: with the
	// longest values they are somewhat less than MaxBody.
	maxVersions = 500
)

// A backupBody is what backup answers and restore takes: base64url of a sealed
// backup, opaque to clients.
type backupBody struct {
	Value string `json:"value"`
}

// A backup is a secret with all its versions, oldest first.
type backup struct {
	Name     string          `json:"name"`
	Count    uint64          `json:"count"`
	Versions []backupVersion `json:"versions"`
}

type backupVersion struct {
	ID    string `json:"id"`
	Value []byte `json:"value"`
	versionRow
}

// Backups are sealed under a key of the platform's own, not the vault's: they
// are for the day when that vault is gone.
const backupKeyRow = "backup"

var (
	backupKeyPlace = []byte(string(keys) + backupKeyRow)
	backupPlace    = []byte("vault/backup/secret")
)

// backupKey reads that key, making it when there is none.
func backupKey(tx store.Tx, master *seal.Key) (*seal.Key, error) {
	wrapped, ok, err := keys.Get(tx, backupKeyRow)
	if err != nil {
		return nil, err
	}
	if ok {
		key, err := master.DataKey(wrapped, backupKeyPlace)
		if err != nil {
			return nil, fmt.Errorf("the key of backups: %w", err)
		}
		return key, nil
	}
	key, wrapped, err := master.NewDataKey(backupKeyPlace)
	if err != nil {
		return nil, fmt.Errorf("the key of backups: %w", err)
	}
	return key, keys.Put(tx, backupKeyRow, wrapped)
}

// backup seals a secret with all its versions, to be restored on this platform alone.
func (s *Service) backup(ctx context.Context, u use) (blob string, err error) {
	err = s.write(ctx, u, backupSecret, func(tx store.Tx, v vaultRow, _ *audit.Event) error {
		copied, err := s.copy(tx, v, u)
		if err != nil {
			return err
		}
		key, err := backupKey(tx, s.config.Seal)
		if err != nil {
			return err
		}
		plain, err := json.Marshal(copied)
		if err != nil {
			return fmt.Errorf("backup of %s in %s: %w", u.secret, u.vault, err)
		}
		blob = base64.RawURLEncoding.EncodeToString(key.Seal(plain, backupPlace))
		return nil
	})
	return blob, err
}

// copy opens every version of a secret.
func (s *Service) copy(r store.Reader, v vaultRow, u use) (backup, error) {
	at := v.placeOf(u.secret)
	row, ok, err := secrets.Get(r, at.key())
	if err != nil || !ok {
		return backup{}, firstOf(err, notFound(u))
	}
	key, err := s.dataKey(u.vault, v)
	if err != nil {
		return backup{}, err
	}
	b := backup{Name: row.Name, Count: row.Count}
	under := at.key() + "/"
	for id, version := range versions.All(r, under, "") {
		if len(b.Versions) == maxVersions {
			return backup{}, rest.Errorf(http.StatusBadRequest, "BadParameter",
				"the secret %s has more than %d versions, and a backup has no more", row.Name, maxVersions)
		}
		one := backupVersion{ID: id[len(under):], versionRow: version}
		if one.Value, err = valueOf(r, key, at, one.ID); err != nil {
			return backup{}, fmt.Errorf("secret %s in %s: %w", row.Name, u.vault, err)
		}
		b.Versions = append(b.Versions, one)
	}
	return b, nil
}

// restore puts a backup back under its name, with the ids and times of its
// versions. allowed is the record of who may.
func (s *Service) restore(ctx context.Context, u use, allowed audit.Event, blob string) (back secret, err error) {
	err = s.change(ctx, u, allowed, func(tx store.Tx, v vaultRow, ev *audit.Event) error {
		b, err := s.openBackup(tx, blob)
		if err != nil {
			return err
		}
		ev.Detail = map[string]string{"secret": b.Name}
		at := v.placeOf(b.Name)
		if err := vacant(tx, at, b.Name); err != nil {
			return err
		}
		key, err := s.dataKey(u.vault, v)
		if err != nil {
			return err
		}
		for _, one := range b.Versions {
			tx.Put(values+at.version(one.ID), key.Seal(one.Value, at.sealedUnder(one.ID)))
			if err := versions.Put(tx, at.version(one.ID), one.versionRow); err != nil {
				return err
			}
		}
		row := secretRow{Name: b.Name, Latest: b.Versions[len(b.Versions)-1].ID, Count: b.Count}
		if err := secrets.Put(tx, at.key(), row); err != nil {
			return err
		}
		back, err = latest(tx, v, at, row)
		return err
	})
	return back, err
}

// openBackup reads what backup made. What opens was sealed here, as it is.
func (s *Service) openBackup(tx store.Tx, blob string) (b backup, err error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(blob, "="))
	if err != nil {
		return b, badBackup(err)
	}
	key, err := backupKey(tx, s.config.Seal)
	if err != nil {
		return b, err
	}
	plain, err := key.Open(sealed, backupPlace)
	if err != nil {
		return b, badBackup(err)
	}
	if err := json.Unmarshal(plain, &b); err != nil {
		return b, badBackup(err)
	}
	if len(b.Versions) == 0 {
		return b, badBackup(errors.New("it has no version"))
	}
	return b, nil
}

func badBackup(cause error) error {
	return &rest.Error{
		Status: http.StatusBadRequest, Code: "BadParameter", Target: "value",
		Message: "the backup does not open: it was changed, or it is of another platform; send the value that backup answered, as it is",
		Cause:   cause,
	}
}

// vacant refuses a name that a secret has, or a deleted one.
func vacant(r store.Reader, at place, name string) error {
	if _, ok, err := secrets.Get(r, at.key()); err != nil || ok {
		return firstOf(err, rest.Errorf(http.StatusConflict, "Conflict", "A secret with the name %s already exists in this vault: restore it into another, or purge this one first.", name))
	}
	_, ok, err := deleted.Get(r, at.key())
	if err != nil || ok {
		return firstOf(err, deletedButRecoverable(name))
	}
	return nil
}
