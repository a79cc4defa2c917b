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
	return nil
}

// Service serves every vault.
type Service struct{ config Config }

// New checks c.
func New(c Config) (*Service, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Service{c}, nil
}

// Create makes a vault's data key, in the transaction that makes the vault.
func (s *Service) Create(tx store.Tx, id innate.ResourceID) error {
	_, wrapped, err := s.config.Seal.NewDataKey(dataKeyPlace(id))
	if err != nil {
		return fmt.Errorf("data key of %s: %w", id, err)
	}
	return vaults.Put(tx, id.Key(), vaultRow{GUID: innate.NewGUID(), Wrapped: wrapped})
}

// Delete removes a vault's secrets and key, in the transaction that removes the vault.
func (s *Service) Delete(tx store.Tx, id innate.ResourceID) error {
	row, ok, err := vaults.Get(tx, id.Key())
	if err != nil || !ok {
		return err
	}
	for _, table := range []string{string(secrets), string(deleted), string(versions), values} {
		deleteUnder(tx, table+row.GUID+"/")
	}
	vaults.Delete(tx, id.Key())
	return nil
}
