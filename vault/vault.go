// Package vault is secrets with versions and recovery; the Key Vault API.
//
// It owns the secrets, how they are sealed, and the wire of Key Vault's secrets
// (control-plane §5). It leaves to resources that a vault exists and what it is
// called, to access who may do what in it, and to bearer who is asking.
//
// A value is in the clear only between its seal and the one request that may
// have it: never in a row, a log, an error or an audit event.
package vault

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/seal"
	"innate/store"
)

// Config says what a Service needs. All but Now and Log are required.
type Config struct {
	DB     *store.DB
	Audit  *audit.Log
	Seal   *seal.Key
	Access *access.Access
	Tenant innate.TenantID
	Login  string                                      // origin of the token service, for the challenge
	Suffix string                                      // vault.example.org[:port]; https://{Suffix} is the audience
	ByName func(name string) (innate.ResourceID, bool) // vault name → resource
	Now    func() time.Time                            // nil means time.Now
	Log    *slog.Logger                                // nil means slog.Default()

	// Revoked is asked about those whose requests have waited for a change; nil means that nobody is.
	Revoked func(innate.Principal) (why string, revoked bool)
}

func (c *Config) check() error {
	for _, field := range []struct {
		name  string
		empty bool
	}{
		{"DB", c.DB == nil},
		{"Audit", c.Audit == nil},
		{"Seal", c.Seal == nil},
		{"Access", c.Access == nil},
		{"Tenant", c.Tenant == ""},
		{"Login", c.Login == ""},
		{"Suffix", c.Suffix == ""},
		{"ByName", c.ByName == nil},
	} {
		if field.empty {
			return errors.New("vault: Config needs " + field.name)
		}
	}
	c.Suffix = strings.ToLower(c.Suffix)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return nil
}

// Service serves every vault.
type Service struct {
	config  Config
	known   known
	history *history
	waiting *waitingRoom
}

// New checks c.
func New(c Config) (*Service, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Service{config: c, history: newHistory(), waiting: &waitingRoom{those: map[innate.ObjectID]int{}}}, nil
}

// Put makes a vault, or changes its settings, or brings back one that was put
// away, in the transaction that writes its resource.
func (s *Service) Put(tx store.Tx, id innate.ResourceID, set Settings) error {
	row, ok, err := vaults.Get(tx, id.Key())
	if err != nil {
		return err
	}
	// Reseal writes the key that is read here: a vault that is made meanwhile is made
	// again, under the new master key.
	if _, err := backupKey(tx, s.config.Seal); err != nil {
		return err
	}
	if !ok {
		row.GUID = innate.NewGUID()
		if _, row.Wrapped, err = s.config.Seal.NewDataKey(dataKeyPlace(id)); err != nil {
			return fmt.Errorf("data key of %s: %w", id, err)
		}
	}
	row.Settings, row.Away = set, false
	return vaults.Put(tx, id.Key(), row)
}

// PutAway makes a vault that is deleted and may come back answer to nobody, in
// the transaction that deletes its resource.
func (s *Service) PutAway(tx store.Tx, id innate.ResourceID) error {
	row, ok, err := vaults.Get(tx, id.Key())
	if err != nil || !ok {
		return err
	}
	row.Away = true
	return vaults.Put(tx, id.Key(), row)
}

// Delete removes a vault for good, in the transaction that purges its resource.
// What is left of its secrets cannot be opened from then on, and is removed by Sweep.
func (s *Service) Delete(tx store.Tx, id innate.ResourceID) error {
	row, ok, err := vaults.Get(tx, id.Key())
	if err != nil || !ok {
		return err
	}
	vaults.Delete(tx, id.Key())
	return purge.Put(tx, row.GUID, string(id))
}
