package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"innate"
	"innate/jwt"
	"innate/store"
)

// A seenAssertion is one that an application with one-time assertions has
// presented. It is kept, by its jti, as long as it could be presented again.
type seenAssertion struct {
	Until time.Time `json:"until"`
}

const seenAssertions store.Table[seenAssertion] = "tokens/seen/" // client/SHA-256 of the jti, hex

// spend takes an assertion of an application that has chosen to have each of its
// own taken once (RFC 7523 §3, item 7). It is the one proof that costs a write
// to the store: without that, two servers would each take it.
func (s *Service) spend(ctx context.Context, q *request, a *assertion) error {
	if a.spent {
		return nil
	}
	jti, _ := jwt.Text(a.claims["jti"])
	if jti == "" {
		return settled{unproved(700027, "The client assertion has no jti, and app %s takes each assertion once: give each its own jti", q.client)}
	}
	sum := sha256.Sum256([]byte(jti))
	row := string(q.client) + "/" + hex.EncodeToString(sum[:])
	_, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
		seen, ok, err := seenAssertions.Get(tx, row)
		if err != nil {
			return err
		}
		if ok && !q.now.After(seen.Until) {
			return settled{unproved(700027, "The client assertion came before: app %s takes each assertion once, known by its jti. Sign a new one for each request", q.client)}
		}
		return seenAssertions.Put(tx, row, seenAssertion{a.expires.Add(clockSkew).UTC()})
	})
	a.spent = err == nil
	return err
}

// forgottenAtOnce bounds one transaction of Forget.
const forgottenAtOnce = 1000

// Forget removes what is kept of assertions that nobody could present again.
// Call it now and then.
func (s *Service) Forget(ctx context.Context) error {
	now := s.config.Now()
	var ended []string
	if err := s.config.DB.View(ctx, func(r store.Reader) error {
		for row, seen := range seenAssertions.All(r, "", "") {
			if now.After(seen.Until) {
				ended = append(ended, row)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for len(ended) > 0 {
		some := ended[:min(len(ended), forgottenAtOnce)]
		ended = ended[len(some):]
		if _, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
			for _, row := range some {
				// Its jti may have come again meanwhile, in a new assertion.
				if seen, ok, err := seenAssertions.Get(tx, row); err != nil {
					return err
				} else if ok && now.After(seen.Until) {
					seenAssertions.Delete(tx, row)
				}
			}
			return nil
		}); err != nil {
			return fmt.Errorf("forgetting seen assertions: %w", err)
		}
	}
	return nil
}

// dropSeen removes what is kept of a client's assertions.
func dropSeen(tx store.Tx, client innate.ClientID) {
	for row := range seenAssertions.All(tx, string(client)+"/", "") {
		seenAssertions.Delete(tx, row)
	}
}
