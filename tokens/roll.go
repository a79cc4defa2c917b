package tokens

import (
	"context"
	"fmt"
	"strings"
	"time"

	"innate"
	"innate/audit"
	"innate/jwt"
	"innate/rest"
	"innate/store"
)

// A Key is a signing key as its administrators see it; none of it is secret.
type Key struct {
	ID        string    `json:"kid"`
	Alg       jwt.Alg   `json:"alg"`
	State     KeyState  `json:"state"`
	Published time.Time `json:"published"`
	Active    time.Time `json:"active"`           // from when it signs
	Retired   time.Time `json:"retired,omitzero"` // from when it does not
	Until     time.Time `json:"until,omitzero"`   // when it is forgotten; zero while it has no successor
}

// Keys lists the signing keys in the order in which they begin to sign.
func (s *Service) Keys(ctx context.Context) ([]Key, error) {
	if err := s.config.DB.Sync(ctx); err != nil {
		return nil, fmt.Errorf("catching up with the store: %w", err)
	}
	now, list := s.config.Now(), []Key{}
	for _, k := range s.keys.now() {
		list = append(list, Key{
			ID: k.id, Alg: k.row.Alg, State: k.row.state(now),
			Published: k.row.Published, Active: k.row.Active, Retired: k.row.Retired, Until: k.row.until(),
		})
	}
	return list, nil
}

// RollKeys is the action of Roll, at the root; whether who may is its caller's to ask.
const RollKeys = "Innate.Tokens/keys/roll/action"

// Roll makes new keys of every algorithm, which sign from now on, and ends the
// others: those that sign, and those that wait to. They verify what is out
// until it has ended. With compromised they are withdrawn instead, those that
// only verify too: what lies in one store leaks together.
func (s *Service) Roll(ctx context.Context, who innate.Principal, compromised bool) error {
	return s.keys.roll(ctx, compromised, audit.Event{
		Action: RollKeys, Allowed: true, Target: string(innate.Root),
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace: rest.RequestID(ctx),
	})
}

func (r *ring) roll(ctx context.Context, compromised bool, ev audit.Event) error {
	_, err := r.config.DB.Update(ctx, func(tx store.Tx) error {
		now := r.config.Now().UTC()
		ended, err := r.end(tx, now, compromised)
		if err != nil {
			return err
		}
		var made []string
		for _, alg := range signingAlgs {
			id, row, err := newKey(r.config, alg, now, now)
			if err != nil {
				return fmt.Errorf("a key for %s: %w", alg, err)
			}
			if err := keyRows.Put(tx, id, row); err != nil {
				return err
			}
			made = append(made, row.kid())
		}
		fate := "retired"
		if compromised {
			fate = "withdrawn"
		}
		ev.Time, ev.Detail = now, map[string]string{"made": strings.Join(made, " "), fate: strings.Join(ended, " ")}
		return audit.Leave(tx, ev)
	})
	return err
}

// end retires every key that signs or is to, or withdraws every key, and
// returns their ids.
func (r *ring) end(tx store.Tx, now time.Time, compromised bool) (kids []string, err error) {
	for id, row := range keyRows.All(tx, "", "") {
		if row.Withdrawn || row.retired(now) && !compromised {
			continue
		}
		row.Retired = now
		if compromised {
			row.Withdrawn, row.Key = true, nil
			if err := r.config.OnRevoke(tx, row.kid()); err != nil {
				return nil, fmt.Errorf("revoking key %s: %w", row.kid(), err)
			}
		}
		if err := keyRows.Put(tx, id, row); err != nil {
			return nil, err
		}
		kids = append(kids, row.kid())
	}
	return kids, nil
}
