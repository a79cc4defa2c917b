package bearer

import (
	"context"
	"errors"
	"fmt"

	"innate/discovery"
	"innate/jwt"
)

// newKeys returns the keys of both issuers, which must be on the authority's own
// origin.
func newKeys(c Config, issuers [2]string) (map[string]*discovery.Keys, error) {
	keys := map[string]*discovery.Keys{}
	for _, issuer := range issuers {
		var err error
		keys[issuer], err = discovery.New(discovery.Config{
			Issuer: issuer, KeysOn: c.Authority, HTTP: c.HTTP, Now: c.Now, Log: c.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("bearer: %w", err)
		}
	}
	return keys, nil
}

// key returns the key that t says it is signed by; its error is an *Error.
func (v *Verifier) key(ctx context.Context, issuer string, t *jwt.Token) (jwt.Key, error) {
	if t.KeyID == "" {
		return jwt.Key{}, invalid("the token does not name the key that signed it")
	}
	key, err := v.keys[issuer].Get(ctx, t.KeyID, t.Alg)
	var e *discovery.Error
	switch {
	case err == nil:
		return key, nil
	case errors.As(err, &e) && !e.Temporary:
		return jwt.Key{}, &Error{
			Code:  invalidToken,
			Text:  fmt.Sprintf("the token is signed by a key that %s does not publish for %s", v.config.Authority, t.Alg),
			Cause: err,
		}
	}
	return jwt.Key{}, &Error{
		Code:  temporarilyUnavailable,
		Text:  "this service does not have the key to check the token with yet; try again in a moment",
		Cause: err,
	}
}
