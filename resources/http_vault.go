package resources

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/rest"
	"innate/store"
)

// checkVaultName answers POST …/Microsoft.KeyVault/checkNameAvailability.
func (s *Resources) checkVaultName(c call) error {
	id, err := c.subscription()
	if err != nil {
		return err
	}
	if err := s.need(c, "Microsoft.KeyVault/checkNameAvailability/read", id); err != nil {
		return err
	}
	var ask struct {
		Name string `json:"name"`
	}
	if err := rest.Read(c.Request, &ask); err != nil {
		return err
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	answer := struct {
		Available bool   `json:"nameAvailable"`
		Reason    string `json:"reason,omitempty"`
		Message   string `json:"message,omitempty"`
	}{Available: true}
	var bad *rest.Error
	if errors.As(vaultNaming(ask.Name), &bad) {
		answer.Available, answer.Reason, answer.Message = false, "AccountNameInvalid", bad.Message
	} else if taken, err := s.vaultNameTaken(c.Context(), ask.Name); err != nil {
		return err
	} else if taken != "" {
		answer.Available, answer.Reason, answer.Message = false, "AlreadyExists", taken
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// A deletedShape is a deleted vault as ARM shows it.
type deletedShape struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Properties deletedProperties `json:"properties"`
}

type deletedProperties struct {
	Vault     innate.ResourceID `json:"vaultId"`
	Location  string            `json:"location"`
	Tags      map[string]string `json:"tags"`
	Deleted   time.Time         `json:"deletionDate"`
	Purge     time.Time         `json:"scheduledPurgeDate"`
	Protected bool              `json:"purgeProtectionEnabled,omitempty"`
}

func (d deletedVault) shape() deletedShape {
	id := d.Vault.ID
	tags := d.Vault.Tags
	if tags == nil {
		tags = map[string]string{}
	}
	return deletedShape{
		ID:   "/subscriptions/" + id.Subscription() + "/providers/Microsoft.KeyVault/locations/" + d.Vault.Location + "/deletedVaults/" + id.Name(),
		Name: id.Name(), Type: "Microsoft.KeyVault/deletedVaults",
		Properties: deletedProperties{id, d.Vault.Location, tags, d.Deleted, d.Purge, d.Vault.Vault().Protected},
	}
}

// listDeletedVaults answers GET {subscription}/…/deletedVaults.
func (s *Resources) listDeletedVaults(c call) error {
	sub, err := c.subscription()
	if err != nil {
		return err
	}
	if err := s.need(c, "Microsoft.KeyVault/deletedVaults/read", sub); err != nil {
		return err
	}
	page, err := rest.PageOf(c.Request, pageSize)
	if err != nil {
		return err
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	answer := list[deletedShape]{Value: []deletedShape{}}
	err = s.config.DB.View(c.Context(), func(r store.Reader) error {
		for name, d := range deletedVaults.All(r, "", page.From) {
			if !strings.EqualFold(d.Vault.ID.Subscription(), sub.Subscription()) {
				continue
			}
			if len(answer.Value) == page.Size {
				answer.Next = page.Next(c.Request, name)
				return nil
			}
			answer.Value = append(answer.Value, d.shape())
		}
		return nil
	})
	if err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// getDeletedVault answers GET …/locations/{location}/deletedVaults/{name}; azurerm
// wants to hear 404 before every create.
func (s *Resources) getDeletedVault(c call) error {
	sub, err := c.subscription()
	if err != nil {
		return err
	}
	if err := s.need(c, "Microsoft.KeyVault/locations/deletedVaults/read", sub); err != nil {
		return err
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	var found deletedVault
	if err := s.config.DB.View(c.Context(), func(r store.Reader) error {
		found, err = deletedIn(r, sub, c.args["name"])
		return err
	}); err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, found.shape())
	return nil
}

// purgeDeletedVault answers POST …/deletedVaults/{name}/purge.
func (s *Resources) purgeDeletedVault(c call) error {
	const action = "Microsoft.KeyVault/locations/deletedVaults/purge/action"
	sub, err := c.subscription()
	if err != nil {
		return err
	}
	if err := s.need(c, action, sub); err != nil {
		return err
	}
	if err := s.config.DB.Sync(c.Context()); err != nil {
		return err
	}
	_, err = s.config.DB.Update(c.Context(), func(tx store.Tx) error {
		d, err := deletedIn(tx, sub, c.args["name"])
		if err != nil {
			return err
		}
		if d.Vault.Vault().Protected {
			return rest.Errorf(http.StatusForbidden, "Forbidden",
				"the vault %s has purge protection: it goes by itself at %s, and can be recovered until then", d.Vault.ID.Name(), d.Purge.Format(time.RFC3339))
		}
		return s.purge(tx, d, s.event(c.Context(), c.who, action, d.Vault.ID))
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}
