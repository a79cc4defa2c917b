package discovery

import (
	"container/list"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"innate/jwt"
)

const mostIssuers = 1000

// IssuersConfig says how keys of many issuers are had. Nothing is required.
type IssuersConfig struct {
	HTTP *http.Client     // nil means Outside{}.Client()
	Most int              // issuers whose keys are kept; 0 means 1000
	Now  func() time.Time // nil means time.Now
	Log  *slog.Logger     // nil means slog.Default()
}

// Issuers keeps the keys of many issuers; of those too many, the keys of the one
// that was not asked for the longest are forgotten.
type Issuers struct {
	config IssuersConfig

	mu     sync.Mutex
	kept   map[string]*list.Element // by issuer; in recent
	recent list.List                // of *Keys, the last used first
}

// NewIssuers returns Issuers without any; keys are fetched when first needed.
func NewIssuers(c IssuersConfig) *Issuers {
	if c.HTTP == nil {
		c.HTTP = Outside{}.Client()
	}
	if c.Most == 0 {
		c.Most = mostIssuers
	}
	return &Issuers{config: c, kept: map[string]*list.Element{}}
}

// Get is Keys.Get of that issuer. The caller has made sure that it is one that
// is believed: a stranger's token must not make us ask a stranger's host.
func (s *Issuers) Get(ctx context.Context, issuer, kid string, alg jwt.Alg) (jwt.Key, error) {
	keys, err := s.of(issuer)
	if err != nil {
		return jwt.Key{}, &Error{Text: err.Error(), Cause: err}
	}
	return keys.Get(ctx, kid, alg)
}

func (s *Issuers) of(issuer string) (*Keys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.kept[issuer]; ok {
		s.recent.MoveToFront(e)
		return e.Value.(*Keys), nil
	}
	keys, err := New(Config{Issuer: issuer, HTTP: s.config.HTTP, Now: s.config.Now, Log: s.config.Log})
	if err != nil {
		return nil, err
	}
	s.kept[issuer] = s.recent.PushFront(keys)
	if s.recent.Len() > s.config.Most {
		oldest := s.recent.Remove(s.recent.Back()).(*Keys)
		delete(s.kept, oldest.config.Issuer)
	}
	return keys, nil
}
