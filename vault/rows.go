package vault

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"innate"
	"innate/seal"
	"innate/store"
)

// The rows of a vault. All but the first begin with the vault's GUID, which no
// other vault ever has, not even one made later under the same name.
const (
	vaults   store.Table[vaultRow]   = "vault/vaults/"   // resource id key
	secrets  store.Table[secretRow]  = "vault/secrets/"  // GUID/name
	deleted  store.Table[deletedRow] = "vault/deleted/"  // GUID/name, instead of a row in secrets
	versions store.Table[versionRow] = "vault/versions/" // GUID/name/version, oldest first
	values                           = "vault/values/"   // GUID/name/version: the sealed value, bytes as they are

	keys  store.Table[[]byte] = "vault/keys/"  // keys that are no vault's own, under the master key
	purge store.Table[string] = "vault/purge/" // GUID of a vault that is gone, whose rows go bit by bit; its id
)

// A vaultRow is a vault's data key, and what its resource says of its secrets.
type vaultRow struct {
	GUID    string `json:"guid"`
	Wrapped []byte `json:"wrapped"` // under the master key
	Settings
	Away bool `json:"away,omitempty"` // deleted, and may come back
}

// dataKeyPlace is what a wrapped data key is bound to.
func dataKeyPlace(id innate.ResourceID) []byte { return []byte(id.Key()) }

// A secretRow is a secret that is not deleted.
type secretRow struct {
	Name   string `json:"name"`   // in the case of its first writer
	Latest string `json:"latest"` // version
	Count  uint64 `json:"count"`  // of the versions made so far; puts the next in order
}

// A deletedRow is a secret that was deleted and can be recovered.
type deletedRow struct {
	secretRow
	Deleted time.Time `json:"deleted"`
	Purge   time.Time `json:"purge"` // when it may go for good
}

// A versionRow is all of a version but its value.
type versionRow struct {
	ContentType string            `json:"contentType,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Disabled    bool              `json:"disabled,omitempty"`
	NotBefore   *int64            `json:"nbf,omitempty"` // seconds since 1970; informational, as in Azure
	Expires     *int64            `json:"exp,omitempty"`
	Created     int64             `json:"created"`
	Updated     int64             `json:"updated"`
}

// newVersion is the id of the n-th version of a secret: 32 hexadecimal digits,
// of which the first half puts versions in order and the second tells them from
// those of a secret of that name that was purged.
func newVersion(n uint64) string {
	var tail [8]byte
	rand.Read(tail[:]) // never fails, see crypto/rand
	return fmt.Sprintf("%016x", n) + hex.EncodeToString(tail[:])
}

// A place is where a secret's rows are.
type place struct {
	vault string // GUID
	name  string // lower case
}

func (p place) key() string                 { return p.vault + "/" + p.name }
func (p place) version(v string) string     { return p.key() + "/" + v }
func (p place) sealedUnder(v string) []byte { return []byte(p.vault + "\x00" + p.name + "\x00" + v) }

// placeOf is where the secret of that name is in a vault.
func (v vaultRow) placeOf(name string) place { return place{v.GUID, strings.ToLower(name)} }

// dataKey is the key that a vault's values are sealed with.
func (s *Service) dataKey(id innate.ResourceID, v vaultRow) (*seal.Key, error) {
	key, err := s.config.Seal.DataKey(v.Wrapped, dataKeyPlace(id))
	if err != nil {
		return nil, fmt.Errorf("vault %s: %w", id, err)
	}
	return key, nil
}
