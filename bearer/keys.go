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

// ended is a context that has.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Fetch fetches the authority's keys now. With Config.Offline it must succeed
// before the first token can be verified, and again from time to time: keys are
// published a day before they sign, and serve for a day after they were fetched.
func (v *Verifier) Fetch(ctx context.Context) error {
	var errs []error
	for _, keys := range v.keys {
		errs = append(errs, keys.Fetch(ctx))
	}
	return errors.Join(errs...)
}

// For returns a Verifier that accepts other audiences, with the same keys. It
// is for a service that learns while it runs whose tokens it accepts.
func (v *Verifier) For(audiences ...string) *Verifier {
	other := &Verifier{config: v.config, issuers: v.issuers, keys: v.keys}
	other.config.Audiences = audiences
	other.accept()
	return other
}

// key returns the key that t says it is signed by; its error is an *Error.
func (v *Verifier) key(ctx context.Context, issuer string, t *jwt.Token) (jwt.Key, error) {
	if t.KeyID == "" {
		return jwt.Key{}, invalid(Malformed, "the token does not name the key that signed it")
	}
	if v.config.Offline {
		ctx = ended // begins the fetch that a key is missing for, and does not wait for it
	}
	key, err := v.keys[issuer].Get(ctx, t.KeyID, t.Alg)
	var e *discovery.Error
	switch {
	case err == nil:
		return key, nil
	case errors.As(err, &e) && !e.Temporary:
		return jwt.Key{}, &Error{
			Fault: UnknownKey, Code: invalidToken,
			Text:  fmt.Sprintf("the token is signed by a key that %s does not publish for %s", v.config.Authority, t.Alg),
			Cause: err,
		}
	}
	return jwt.Key{}, &Error{
		Fault: Unavailable, Code: temporarilyUnavailable,
		Text:  "this service does not have the key to check the token with yet; try again in a moment",
		Cause: err,
	}
}
