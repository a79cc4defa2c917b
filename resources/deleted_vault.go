package resources

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// A deletedVault can be recovered, as it was, until it is purged. It keeps its name.
type deletedVault struct {
	Vault   Resource  `json:"vault"`
	Deleted time.Time `json:"deleted"`
	Purge   time.Time `json:"purge"` // when it goes by itself
}

const deletedVaults store.Table[deletedVault] = "resources/deletedvaults/" // lower-case name

// putAway takes a vault's name out of use and keeps what was there.
func (s *Resources) putAway(tx store.Tx, gone *Resource) error {
	name := strings.ToLower(gone.ID.Name())
	vaultNames.Delete(tx, name)
	now := s.config.Now().UTC()
	return deletedVaults.Put(tx, name, deletedVault{
		Vault: *gone, Deleted: now, Purge: now.AddDate(0, 0, gone.Vault().Retention),
	})
}

// takeVaultName makes a vault the one that answers to its name.
func takeVaultName(tx store.Tx, id innate.ResourceID, recovered bool) error {
	name := strings.ToLower(id.Name())
	_, taken, err := vaultNames.Get(tx, name)
	if err != nil {
		return err
	}
	if taken {
		return rest.Errorf(http.StatusConflict, "VaultAlreadyExists",
			"the vault name %s is taken: it names a host, and is unique on the platform", id.Name())
	}
	_, away, err := deletedVaults.Get(tx, name)
	if err != nil {
		return err
	}
	if away && !recovered {
		return rest.Errorf(http.StatusConflict, "ConflictError",
			"a deleted vault has the name %s: recover it, by the same PUT with properties.createMode = recover, or purge it", id.Name())
	}
	deletedVaults.Delete(tx, name)
	return vaultNames.Put(tx, name, id)
}

// vaultNameTaken says by whom; empty means by nobody.
func (s *Resources) vaultNameTaken(ctx context.Context, name string) (by string, err error) {
	if _, taken := s.index.vault(name); taken {
		return "the name " + name + " is taken", nil
	}
	err = s.config.DB.View(ctx, func(r store.Reader) error {
		_, away, err := deletedVaults.Get(r, strings.ToLower(name))
		if away {
			by = "the name " + name + " is that of a deleted vault, which can be recovered or purged"
		}
		return err
	})
	return by, err
}

// recovers reports whether c asks for a deleted vault back.
func (c change) recovers() bool {
	if c.kind.name != TypeVault {
		return false
	}
	var mode string
	return json.Unmarshal(c.body.properties[propCreateMode], &mode) == nil && strings.EqualFold(mode, "recover")
}

// recovered is the deleted vault that was at id, as it was.
func (s *Resources) recovered(tx store.Tx, id innate.ResourceID) (*Resource, error) {
	d, ok, err := deletedVaults.Get(tx, strings.ToLower(id.Name()))
	if err != nil {
		return nil, err
	}
	if !ok || !d.Vault.ID.Equal(id) {
		return nil, rest.Errorf(http.StatusNotFound, "DeletedVaultNotFound",
			"there is no deleted vault %s to recover: it is recovered under the id that it had", id)
	}
	if _, err := parentOf(tx, id); err != nil {
		return nil, err
	}
	back := d.Vault
	back.Changed = s.config.Now().UTC()
	return &back, nil
}

// deletedIn reads a deleted vault of a subscription.
func deletedIn(r store.Reader, sub innate.ResourceID, name string) (deletedVault, error) {
	d, ok, err := deletedVaults.Get(r, strings.ToLower(name))
	if err == nil && (!ok || !strings.EqualFold(d.Vault.ID.Subscription(), sub.Subscription())) {
		err = rest.Errorf(http.StatusNotFound, "DeletedVaultNotFound", "there is no deleted vault %.40q", name)
	}
	return d, err
}

// purge removes a deleted vault for good, with ev for the record.
func (s *Resources) purge(tx store.Tx, d deletedVault, ev audit.Event) error {
	for _, hook := range s.config.OnPurge {
		if err := hook(tx, &d.Vault); err != nil {
			return err
		}
	}
	deletedVaults.Delete(tx, strings.ToLower(d.Vault.ID.Name()))
	return audit.Leave(tx, ev)
}

// Sweep removes for good the deleted vaults whose retention has ended.
func (s *Resources) Sweep(ctx context.Context) error {
	now := s.config.Now()
	_, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
		for _, d := range deletedVaults.All(tx, "", "") {
			if d.Purge.After(now) {
				continue
			}
			if err := s.purge(tx, d, audit.Event{
				Time: now, Action: "Microsoft.KeyVault/locations/deletedVaults/purge/action", Allowed: true, Target: string(d.Vault.ID),
				Why: "deleted on " + d.Deleted.Format(time.DateOnly) + ", and kept until it was due",
			}); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
