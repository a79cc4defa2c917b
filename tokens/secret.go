package tokens

import (
	"net/http"

	"innate"
	"innate/directory"
)

// What a secret or a certificate proved, as appidacr says it.
const (
	acrSecret = "1"
	acrKey    = "2"
)

// bySecret proves an application by one of its secrets.
func (s *Service) bySecret(q *request) (caller, error) {
	q.credential = "client secret"
	object, r, err := s.application(q)
	if err != nil {
		return caller{}, err
	}
	ended := false
	for _, secret := range r.Secrets {
		ok, expired := secret.Matches(q.client, q.secret, q.now)
		if ok {
			q.key = secret.KeyID
			return caller{object: object, acr: acrSecret}, nil
		}
		ended = ended || expired
	}
	if ended {
		return caller{}, unproved(7000222, "The provided client secret of app %s has expired: make a new one and give it to the program", q.client)
	}
	return caller{}, unproved(7000215, "Invalid client secret provided for app %s. Send the secret's value, which was shown once, and not its id", q.client)
}

// application finds the app registration that q says it is.
func (s *Service) application(q *request) (directory.Object, directory.Registration, error) {
	object, ok := s.config.Directory.ByClient(q.client)
	if !ok {
		return object, directory.Registration{}, unknownClient(q.client, s.config.Tenant)
	}
	r, ok := s.config.Directory.Registration(q.client)
	if !ok {
		return object, r, unproved(7000218,
			"%s is a managed identity, which has no secret and signs no assertion: the host that it runs on proves it, by its certificate at %s", q.client, s.config.Mutual)
	}
	return object, r, nil
}

func unknownClient(id innate.ClientID, tenant innate.TenantID) error {
	return refusal(http.StatusBadRequest, "unauthorized_client", 700016,
		"Application with identifier '%s' was not found in the directory '%s'. It may have been deleted, or belong to another tenant", id, tenant)
}
