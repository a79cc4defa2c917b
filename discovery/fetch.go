package discovery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"innate/jwt"
)

const (
	maxDocument = 1 << 20 // bytes of a discovery document or a key set
	maxKeys     = 256     // of one issuer
	maxURL      = 1000    // bytes; it is in what we say of it
)

// fetch reads the issuer's keys by way of its discovery document.
func (k *Keys) fetch(ctx context.Context) ([]jwt.Key, error) {
	at, err := k.discover(ctx)
	if err != nil {
		return nil, err
	}
	var set jwt.Set
	if err := k.read(ctx, at, &set); err != nil {
		return nil, err
	}
	switch n := len(set.Keys); {
	case n == 0:
		return nil, &fault{"it publishes no key that can be used", at + " has no key that can be used"}
	case n > maxKeys:
		return nil, &fault{"it publishes too many keys", fmt.Sprintf("%s has %d keys: want at most %d", at, n, maxKeys)}
	}
	return set.Keys, nil
}

// discover returns where the issuer publishes its keys (jwks_uri).
func (k *Keys) discover(ctx context.Context) (string, error) {
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := k.read(ctx, k.document, &doc); err != nil {
		return "", err
	}
	if doc.Issuer != k.config.Issuer {
		return "", &fault{
			"its discovery document is another issuer's",
			fmt.Sprintf("%s: issuer is %.200q: want %q", k.document, doc.Issuer, k.config.Issuer),
		}
	}
	u, err := url.Parse(doc.Keys)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(doc.Keys) > maxURL ||
		k.config.KeysOn != "" && u.Scheme+"://"+u.Host != k.config.KeysOn {
		return "", &fault{
			"its discovery document has its keys where they must not be",
			fmt.Sprintf("%s: jwks_uri is %.200q: want an https URL on %s", k.document, doc.Keys, cmp.Or(k.config.KeysOn, "any host")),
		}
	}
	return doc.Keys, nil
}

// read reads one JSON document.
func (k *Keys) read(ctx context.Context, at string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	resp, err := k.config.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		what := fmt.Sprintf("%s answered %d", at, resp.StatusCode)
		return &fault{what, what}
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, resp.Body, maxDocument))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		what := fmt.Sprintf("%s is larger than %d bytes", at, tooLarge.Limit)
		return &fault{what, what}
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", at, err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return &fault{at + " is not the JSON document that it should be", fmt.Sprintf("reading %s: %v", at, err)}
	}
	return nil
}
