package resources

import (
	"errors"
	"net/http"

	"innate/rest"
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
	} else if _, taken := s.index.vault(ask.Name); taken {
		answer.Available, answer.Reason, answer.Message = false, "AlreadyExists", "the name "+ask.Name+" is taken"
	}
	rest.Write(c.w, http.StatusOK, answer)
	return nil
}

// listDeletedVaults answers with none: a vault is deleted for good.
func (s *Resources) listDeletedVaults(c call) error {
	id, err := c.subscription()
	if err != nil {
		return err
	}
	if err := s.need(c, "Microsoft.KeyVault/deletedVaults/read", id); err != nil {
		return err
	}
	rest.Write(c.w, http.StatusOK, list[any]{Value: []any{}})
	return nil
}

// getDeletedVault answers 404, which azurerm wants to hear before every create.
func (s *Resources) getDeletedVault(c call) error {
	id, err := c.subscription()
	if err != nil {
		return err
	}
	if err := s.need(c, "Microsoft.KeyVault/locations/deletedVaults/read", id); err != nil {
		return err
	}
	return rest.Errorf(http.StatusNotFound, "DeletedVaultNotFound", "there is no deleted vault %.40q", c.args["name"])
}
