package bearer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"innate/jwt"
)

const (
	freshKeys    = time.Hour        // after which keys are fetched again while the old go on serving
	oldestKeys   = 24 * time.Hour   // that serve when no newer can be had
	fetchPause   = 5 * time.Second  // between two fetches, whatever is asked
	fetchTimeout = 10 * time.Second // of all requests of one fetch
	maxDocument  = 1 << 20          // bytes of a discovery document or a key set
)

// keys are the issuer's public keys: fetched when first needed, when a token
// names one we do not know, and every hour.
type keys struct {
	authority string
	issuers   [2]string
	http      *http.Client
	now       func() time.Time
	log       *slog.Logger

	mu      sync.Mutex
	byID    map[string]jwt.Key
	fetched time.Time     // when byID was
	tried   time.Time     // when the last fetch began
	failed  error         // why the last fetch failed; nil when it did not
	flight  chan struct{} // closed when the fetch under way ends; nil when none is
}

func newKeys(c Config, issuers [2]string) *keys {
	noRedirects := *c.HTTP
	noRedirects.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &keys{authority: c.Authority, issuers: issuers, http: &noRedirects, now: c.Now, log: c.Log}
}

// get returns the key of that id; its error is an *Error.
func (k *keys) get(ctx context.Context, id string) (jwt.Key, error) {
	if id == "" {
		return jwt.Key{}, invalid("the token does not name the key that signed it")
	}
	key, found, wait := k.look(id)
	if found {
		return key, nil
	}
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return jwt.Key{}, unavailable(ctx.Err())
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	key, found = k.byID[id]
	switch {
	case !k.usable():
		return jwt.Key{}, unavailable(k.failed)
	case !found && k.failed != nil: // it may be in the set that we could not get
		return jwt.Key{}, unavailable(k.failed)
	case !found:
		return jwt.Key{}, invalid("the token is signed by a key that %s does not publish", k.authority)
	}
	return key, nil
}

func unavailable(cause error) *Error {
	return &Error{
		Code:  temporarilyUnavailable,
		Text:  "this service cannot get the keys to check tokens with; try again in a moment",
		Cause: cause,
	}
}

// look returns the key if it is known, and begins a fetch if one is due. wait is
// closed at the end of the fetch that a key not found must wait for.
func (k *keys) look(id string) (key jwt.Key, found bool, wait <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if k.usable() {
		key, found = k.byID[id]
	}
	due := !found || now.Sub(k.fetched) >= freshKeys
	rested := k.tried.IsZero() || now.Sub(k.tried) >= fetchPause || now.Before(k.tried)
	if due && rested && k.flight == nil {
		k.tried, k.flight = now, make(chan struct{})
		go k.refresh()
	}
	return key, found, k.flight
}

// usable reports whether the keys are young enough. k.mu is held.
func (k *keys) usable() bool {
	return k.byID != nil && k.now().Sub(k.fetched) < oldestKeys
}

// refresh is one fetch. It belongs to nobody's request: whoever asked first may
// be gone before others have their answer.
func (k *keys) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	byID, err := k.fetch(ctx)
	if err != nil {
		k.log.Warn("fetching the keys that tokens are checked with", "authority", k.authority, "err", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed = err; err == nil {
		k.byID, k.fetched = byID, k.now()
	}
	close(k.flight)
	k.flight = nil
}

// fetch reads the keys of both issuers by way of their discovery documents.
func (k *keys) fetch(ctx context.Context) (map[string]jwt.Key, error) {
	byID := map[string]jwt.Key{}
	for _, issuer := range k.issuers {
		at, err := k.discover(ctx, issuer)
		if err != nil {
			return nil, err
		}
		var set jwt.Set
		if err := k.document(ctx, at, &set); err != nil {
			return nil, err
		}
		for _, key := range set.Keys {
			byID[key.ID] = key
		}
	}
	if len(byID) == 0 {
		return nil, errors.New("the issuer publishes no key")
	}
	return byID, nil
}

// discover returns where an issuer publishes its keys, which must be on the
// authority's own origin.
func (k *keys) discover(ctx context.Context, issuer string) (string, error) {
	at, err := url.JoinPath(issuer, ".well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := k.document(ctx, at, &doc); err != nil {
		return "", err
	}
	if doc.Issuer != issuer {
		return "", fmt.Errorf("%s: issuer is %q: want %q", at, doc.Issuer, issuer)
	}
	u, err := url.Parse(doc.Keys)
	if err != nil {
		return "", fmt.Errorf("%s: jwks_uri: %w", at, err)
	}
	if u.Scheme+"://"+u.Host != k.authority || u.User != nil {
		return "", fmt.Errorf("%s: jwks_uri is %q: want it on %s", at, doc.Keys, k.authority)
	}
	return doc.Keys, nil
}

// document reads one JSON document.
func (k *keys) document(ctx context.Context, at string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	resp, err := k.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", at, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return fmt.Errorf("reading %s: %w", at, err)
	}
	if len(body) > maxDocument {
		return fmt.Errorf("%s is larger than %d bytes", at, maxDocument)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("reading %s: %w", at, err)
	}
	return nil
}
