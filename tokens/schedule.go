package tokens

import (
	"context"
	"fmt"
	"time"

	"innate/audit"
	"innate/jwt"
	"innate/store"
)

// The life of a signing key (design §5, managed-identity-endpoints §4.2).
const (
	keyTerm  = 30 * 24 * time.Hour                   // how long it signs
	cacheDay = 24 * time.Hour                        // how long a verifier may keep a key set
	cacheAge = time.Hour                             // how old that set may have been: see cacheable
	ahead    = cacheDay + cacheAge                   // for which it is published before it signs
	kept     = time.Duration(longestLife) + cacheDay // for which it is published after
)

// Run keeps the signing keys on their schedule until ctx ends. Any number of
// servers may do so at once: what one has done is not due for another.
func (s *Service) Run(ctx context.Context) error { return s.keys.run(ctx) }

const (
	longestRest = time.Hour   // between two looks: timers stand still while a machine sleeps
	afterFault  = time.Minute // before the schedule is tried again; it has an hour in hand
)

func (r *ring) run(ctx context.Context) error {
	for {
		rest := longestRest
		next, err := r.keepSchedule(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			r.config.Log.Error("keeping the schedule of the signing keys; trying again", "err", err, "in", afterFault)
			rest = afterFault
		default:
			rest = min(rest, next.Sub(r.config.Now()))
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-r.changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// keepSchedule does what is due and returns when something next will be.
func (r *ring) keepSchedule(ctx context.Context) (next time.Time, err error) {
	_, err = r.config.DB.Update(ctx, func(tx store.Tx) error {
		now := r.config.Now().UTC()
		rows := map[string]keyRow{}
		for id, row := range keyRows.All(tx, "", "") {
			rows[id] = row
		}
		var do agenda
		do, next = due(rows, now)
		for _, id := range do.forget {
			if err := r.forget(tx, id, rows[id], now); err != nil {
				return err
			}
		}
		for _, key := range do.publish {
			if err := r.publish(tx, key, rows, now); err != nil {
				return fmt.Errorf("a key for %s: %w", key.alg, err)
			}
		}
		return nil
	})
	return next, err
}

// An agenda is what of the schedule is due.
type agenda struct {
	forget  []string // rows
	publish []succession
}

// A succession is a key to be made.
type succession struct {
	alg    jwt.Alg
	active time.Time // from when it signs
	after  string    // the row of the key that signs until then; empty when none does
}

// due says what is to be done at now, and when there will be more if nothing
// else happens meanwhile.
//
// Of each algorithm one key has no successor yet. When that key has ahead of
// its term left, or has long outlived it because no server was up, the next is
// published, to sign when every verifier has had the time to hear of it; until
// then the old one goes on.
func due(rows map[string]keyRow, now time.Time) (do agenda, next time.Time) {
	later := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	last := map[jwt.Alg]string{} // the row of the key without a successor
	for id, row := range rows {
		switch {
		case row.over(now):
			do.forget = append(do.forget, id)
		case !row.Retired.IsZero():
			later(row.until())
		case last[row.Alg] == "" || rows[last[row.Alg]].Active.Before(row.Active):
			last[row.Alg] = id
		}
	}
	for _, alg := range signingAlgs {
		id, active := last[alg], now // the first signs at once: nobody has a set without it
		if id != "" {
			publish := rows[id].Active.Add(keyTerm - ahead)
			if now.Before(publish) {
				later(publish)
				continue
			}
			active = now.Add(ahead)
		}
		do.publish = append(do.publish, succession{alg, active, id})
		later(active.Add(keyTerm - ahead))
	}
	return do, next
}

// publish makes a key and ends the term of the one before it.
func (r *ring) publish(tx store.Tx, s succession, rows map[string]keyRow, now time.Time) error {
	id, row, err := newKey(r.config, s.alg, now, s.active)
	if err != nil {
		return err
	}
	if err := keyRows.Put(tx, id, row); err != nil {
		return err
	}
	why := "there was none"
	if old, ok := rows[s.after]; ok {
		why = "the time of " + old.kid() + " is up"
		old.Retired = s.active
		if err := keyRows.Put(tx, s.after, old); err != nil {
			return err
		}
	}
	return audit.Leave(tx, event(publishKey, row, now, why))
}

// forget ends a key that no token needs.
func (r *ring) forget(tx store.Tx, id string, row keyRow, now time.Time) error {
	keyRows.Delete(tx, id)
	return audit.Leave(tx, event(forgetKey, row, now, "every token that it signed has ended"))
}

// What the schedule does, for the record.
const (
	publishKey = "Innate.Tokens/keys/publish"
	forgetKey  = "Innate.Tokens/keys/forget"
)

// event is the record of what the schedule did to a key.
func event(action string, row keyRow, now time.Time, why string) audit.Event {
	return audit.Event{
		Time: now, Action: action, Allowed: true, Target: "Innate.Tokens/keys/" + row.kid(), Name: "schedule", Why: why,
		Detail: map[string]string{"alg": string(row.Alg), "active": row.Active.Format(time.RFC3339)},
	}
}
