package vault

import (
	"context"
	"fmt"
	"net/http"

	"innate/audit"
	"innate/rest"
	"innate/seal"
	"innate/store"
)

// A secret is one version of a secret, as it is read. value is nil where the
// operation does not show it.
type secret struct {
	name    string // in the case of its first writer
	version string
	level   string // recoveryLevel of its vault
	days    int    // for which the vault keeps what was deleted
	versionRow
	value *string
}

// set adds a version, the first one makes the secret.
func (s *Service) set(ctx context.Context, u use, body setBody) (made secret, err error) {
	err = s.write(ctx, u, setSecret, func(tx store.Tx, v vaultRow, ev *audit.Event) error {
		at := v.placeOf(u.secret)
		if _, ok, err := deleted.Get(tx, at.key()); err != nil || ok {
			return firstOf(err, deletedButRecoverable(u.secret))
		}
		row, ok, err := secrets.Get(tx, at.key())
		if err != nil {
			return err
		}
		if !ok {
			row.Name = u.secret
		}
		row.Count++
		row.Latest = newVersion(row.Count)

		key, err := s.dataKey(u.vault, v)
		if err != nil {
			return err
		}
		now := s.config.Now().Unix()
		made = v.secret(row, row.Latest, versionRow{ContentType: body.ContentType, Tags: body.Tags, Created: now, Updated: now})
		made.value = body.Value
		body.Attributes.change(&made.versionRow)
		ev.Detail = map[string]string{"version": row.Latest}
		if err := secrets.Put(tx, at.key(), row); err != nil {
			return err
		}
		tx.Put(values+at.version(row.Latest), key.Seal([]byte(*body.Value), at.sealedUnder(row.Latest)))
		return versions.Put(tx, at.version(row.Latest), made.versionRow)
	})
	return made, err
}

// get returns a version with its value.
func (s *Service) get(ctx context.Context, u use) (found secret, err error) {
	err = s.read(ctx, u, getSecret, func(r store.Reader, v vaultRow, ev *audit.Event) error {
		at := v.placeOf(u.secret)
		if found, err = find(r, v, at, u); err != nil {
			return err
		}
		ev.Detail = map[string]string{"version": found.version}
		if err := found.readable(v, s.config.Now().Unix()); err != nil {
			return err
		}
		key, err := s.dataKey(u.vault, v)
		if err != nil {
			return err
		}
		plain, err := valueOf(r, key, at, found.version)
		if err != nil {
			return fmt.Errorf("secret %s in %s: %w", found.name, u.vault, err)
		}
		value := string(plain)
		found.value = &value
		return nil
	})
	return found, err
}

// valueOf opens the value of a version.
func valueOf(r store.Reader, key *seal.Key, at place, version string) ([]byte, error) {
	sealed, ok := r.Get(values + at.version(version))
	if !ok {
		return nil, fmt.Errorf("version %s has no value", version)
	}
	plain, err := key.Open(sealed, at.sealedUnder(version))
	if err != nil {
		return nil, fmt.Errorf("version %s: %w", version, err)
	}
	return plain, nil
}

// readable refuses the value of a version that is disabled, or in a vault that
// enforces them outside its times.
func (s secret) readable(v vaultRow, now int64) error {
	inner, text := "", ""
	switch {
	case s.Disabled:
		inner, text = "SecretDisabled", "Operation get is not allowed on a disabled secret."
	case v.InTime && s.NotBefore != nil && now < *s.NotBefore:
		inner, text = "SecretNotYetValid", fmt.Sprintf("Operation get is not allowed on a secret before its nbf, %d: this vault enforces it.", *s.NotBefore)
	case v.InTime && s.Expires != nil && now >= *s.Expires:
		inner, text = "SecretExpired", fmt.Sprintf("Operation get is not allowed on a secret after its exp, %d: this vault enforces it.", *s.Expires)
	default:
		return nil
	}
	return &rest.Error{Status: http.StatusForbidden, Code: "Forbidden", Inner: inner, Message: text}
}

// update changes what stands beside a version's value.
func (s *Service) update(ctx context.Context, u use, body patchBody) (changed secret, err error) {
	err = s.write(ctx, u, updateSecret, func(tx store.Tx, v vaultRow, ev *audit.Event) error {
		at := v.placeOf(u.secret)
		if changed, err = find(tx, v, at, u); err != nil {
			return err
		}
		if body.ContentType != nil {
			changed.ContentType = *body.ContentType
		}
		if body.Tags != nil {
			changed.Tags = body.Tags
		}
		body.Attributes.change(&changed.versionRow)
		changed.Updated = s.config.Now().Unix()
		ev.Detail = map[string]string{"version": changed.version}
		return versions.Put(tx, at.version(changed.version), changed.versionRow)
	})
	return changed, err
}

// list returns a page of the vault's secrets, each as its latest version, and
// the name at which the next page begins.
func (s *Service) list(ctx context.Context, u use, page rest.Page) (found []secret, next string, err error) {
	err = s.read(ctx, u, readMetadata, func(r store.Reader, v vaultRow, _ *audit.Event) error {
		found, next = nil, ""
		under := v.GUID + "/"
		for id, row := range secrets.All(r, under, from(under, page)) {
			if len(found) == page.Size {
				next = id[len(under):]
				return nil
			}
			one, err := latest(r, v, v.placeOf(row.Name), row)
			if err != nil {
				return err
			}
			found = append(found, one)
		}
		return nil
	})
	return found, next, err
}

// listVersions returns a page of a secret's versions, oldest first, and the
// version at which the next page begins.
func (s *Service) listVersions(ctx context.Context, u use, page rest.Page) (found []secret, next string, err error) {
	err = s.read(ctx, u, readMetadata, func(r store.Reader, v vaultRow, _ *audit.Event) error {
		found, next = nil, ""
		at := v.placeOf(u.secret)
		row, ok, err := secrets.Get(r, at.key())
		if err != nil || !ok {
			return firstOf(err, notFound(u))
		}
		under := at.key() + "/"
		for id, version := range versions.All(r, under, from(under, page)) {
			if len(found) == page.Size {
				next = id[len(under):]
				return nil
			}
			found = append(found, v.secret(row, id[len(under):], version))
		}
		return nil
	})
	return found, next, err
}

// from is the id of the row at which a page begins; empty means the first.
func from(under string, page rest.Page) string {
	if page.From == "" {
		return ""
	}
	return under + page.From
}

// find returns the version that u names, or the latest, without its value.
func find(r store.Reader, v vaultRow, at place, u use) (secret, error) {
	row, ok, err := secrets.Get(r, at.key())
	if err != nil || !ok {
		return secret{}, firstOf(err, notFound(u))
	}
	if u.version == "" {
		return latest(r, v, at, row)
	}
	version, ok, err := versions.Get(r, at.version(u.version))
	if err != nil || !ok {
		return secret{}, firstOf(err, notFound(u))
	}
	return v.secret(row, u.version, version), nil
}

func latest(r store.Reader, v vaultRow, at place, row secretRow) (secret, error) {
	version, ok, err := versions.Get(r, at.version(row.Latest))
	if err == nil && !ok {
		err = fmt.Errorf("secret %s: its latest version %s is missing", row.Name, row.Latest)
	}
	return v.secret(row, row.Latest, version), err
}

// secret is one version of a secret of the vault's, without its value.
func (v vaultRow) secret(row secretRow, version string, of versionRow) secret {
	return secret{name: row.Name, version: version, level: v.level(), days: v.days(), versionRow: of}
}

// firstOf is err, or what to say when there is none.
func firstOf(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func notFound(u use) error {
	name := u.secret
	if isVersion(u.version) { // anything else is only an echo
		name += "/" + u.version
	}
	return rest.Errorf(http.StatusNotFound, "SecretNotFound",
		"A secret with (name/id) %s was not found in this key vault. If you recently deleted this secret you may be able to recover it using the correct recovery command.", name)
}

func deletedButRecoverable(name string) error {
	return &rest.Error{
		Status: http.StatusConflict, Code: "Conflict", Inner: "ObjectIsDeletedButRecoverable",
		Message: fmt.Sprintf("Secret %s is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the secret can only be recovered or purged.", name),
	}
}
