// Package discovery is the relying side of OpenID discovery: an issuer's public
// keys, found by its discovery document, fetched when needed, kept, bounded.
//
// Keys are those of one issuer, Issuers those of many, and Outside makes the
// HTTP client for fetches that someone else's input causes: it goes nowhere
// inside unless told to by name. Whom to believe is the caller's decision, made
// before it asks for a key: asking may cause a request to that issuer.
package discovery

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"innate/jwt"
)

const (
	freshKeys    = time.Hour        // after which keys are fetched again while the old go on serving
	oldestKeys   = 24 * time.Hour   // that serve when no newer can be had
	fetchPause   = 5 * time.Second  // after which another fetch may begin, whatever is asked
	fetchBurst   = 3                // fetches that may come at once: an issuer may roll its keys twice in a moment
	fetchTimeout = 10 * time.Second // of both requests of one fetch
)

// Config says whose keys. Issuer is required.
type Config struct {
	Issuer string           // https URL exactly as tokens and the discovery document say it
	KeysOn string           // origin on which jwks_uri must be; empty: any https origin
	HTTP   *http.Client     // its redirects are not followed; nil means Outside{}.Client()
	Now    func() time.Time // nil means time.Now
	Log    *slog.Logger     // nil means slog.Default()
}

// Keys are one issuer's public keys: fetched when first needed, when a token
// names one that is not known, and every hour.
type Keys struct {
	config   Config
	document string // where the discovery document is

	mu      sync.Mutex
	keys    []jwt.Key
	fetched time.Time // when keys were
	tried   time.Time // when the last fetch began
	fetches *rate.Limiter
	failed  *Error        // why the last fetch failed; nil when it did not
	flight  chan struct{} // closed when the fetch under way ends; nil when none is
}

// New checks c; keys are fetched when first needed.
func New(c Config) (*Keys, error) {
	if err := checkIssuer(c.Issuer); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	if c.HTTP == nil {
		c.HTTP = Outside{}.Client()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	noRedirects := *c.HTTP
	noRedirects.CheckRedirect = neverRedirect
	c.HTTP = &noRedirects
	return &Keys{
		config:  c,
		fetches: rate.NewLimiter(rate.Every(fetchPause), fetchBurst),
		// Appended as it stands (OpenID Connect Discovery 1.0 §4.1): a cleaned path could be another issuer's.
		document: strings.TrimSuffix(c.Issuer, "/") + "/.well-known/openid-configuration",
	}, nil
}

// checkIssuer checks that issuer is a URL as OpenID Connect Discovery 1.0 §3 wants it.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(issuer, "?#") {
		return fmt.Errorf("issuer %+.200q: want an https URL without user, query and fragment", issuer)
	}
	return nil
}

// Get returns the key of that id that fits alg. Without an id it is the only
// published key that fits: some issuers have one key and do not name it.
// Its error is an *Error.
func (k *Keys) Get(ctx context.Context, kid string, alg jwt.Alg) (jwt.Key, error) {
	asked := k.config.Now()
	key, found, wait := k.look(kid, alg, asked)
	if found {
		return key, nil
	}
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return jwt.Key{}, k.unavailable("they are still being fetched", ctx.Err())
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if key, found = k.find(kid, alg); found {
		return key, nil
	}
	switch {
	case k.failed != nil: // the key may be in the set that we could not get
		return jwt.Key{}, k.failed
	case k.tried.Before(asked): // or in one published since
		return jwt.Key{}, k.unavailable("it published no such key a moment ago, and is asked again in a few seconds", k.noSuch(kid, alg))
	}
	return jwt.Key{}, k.noSuch(kid, alg)
}

// Fetch fetches the keys now, or waits for the fetch under way. It is for who
// must not wait when a key is needed, and so has them before. Its error is an
// *Error or ctx's.
func (k *Keys) Fetch(ctx context.Context) error {
	k.mu.Lock()
	if k.flight == nil {
		k.tried, k.flight = k.config.Now(), make(chan struct{})
		go k.refresh()
	}
	ended := k.flight
	k.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed != nil {
		return k.failed
	}
	return nil
}

// look returns the key if it is known, and begins a fetch if one is due. wait is
// closed at the end of the fetch that a key not found must wait for.
func (k *Keys) look(kid string, alg jwt.Alg, now time.Time) (key jwt.Key, found bool, wait <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, found = k.find(kid, alg)
	due := !found && !k.tried.Equal(now) || now.Sub(k.fetched) >= freshKeys
	if due && k.flight == nil && k.fetches.AllowN(now, 1) {
		k.tried, k.flight = now, make(chan struct{})
		go k.refresh()
	}
	return key, found, k.flight
}

// find looks among the keys that are young enough. k.mu is held.
func (k *Keys) find(kid string, alg jwt.Alg) (found jwt.Key, ok bool) {
	if k.config.Now().Sub(k.fetched) >= oldestKeys {
		return jwt.Key{}, false
	}
	for _, key := range k.keys {
		switch {
		case !key.Fits(alg):
		case kid != "" && key.ID == kid:
			return key, true
		case kid == "" && ok:
			return jwt.Key{}, false // two fit: to try one after the other is to guess
		case kid == "":
			found, ok = key, true
		}
	}
	return found, ok
}

// refresh is one fetch. It belongs to nobody's request: whoever asked first may
// be gone before others have their answer.
func (k *Keys) refresh() {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	keys, err := k.fetch(ctx)
	if err != nil {
		k.config.Log.Warn("fetching an issuer's keys", "issuer", k.config.Issuer, "err", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.failed = k.unavailable(explain(err), err)
	} else {
		k.keys, k.fetched, k.failed = keys, k.config.Now(), nil
	}
	close(k.flight)
	k.flight = nil
}
