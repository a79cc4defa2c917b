package agent

import (
	"context"
	"fmt"
	"math"
	"time"
)

// usualMaxAge is how old a generation gets where a new one can be asked whether
// it is well: several rotations a day, as App Service has. Elsewhere it gets as
// old as it likes, for SDKs keep what they were given for the life of their
// process (host-attestation §7.4).
const usualMaxAge = 8 * time.Hour

// A rotation is asked of an instance.
type rotation struct {
	now  bool // an emergency: the old generation gets no grace
	done chan<- rotated
}

// rotated is how a rotation went.
type rotated struct {
	old *Generation // ending; nil: there was none any more
	err error       // why the old generation goes on
}

// Rotate puts a new generation in the place of the one that serves, and returns
// when that is over; with now it is killed without a grace. A new generation
// that does not get well is ended, the old one goes on, and that is the error.
func (i *Instance) Rotate(ctx context.Context, now bool) error {
	done := make(chan rotated, 1)
	select {
	case i.orders <- rotation{now, done}:
	case <-i.exited:
		return fmt.Errorf("%s has ended", i.App.Name())
	case <-ctx.Done():
		return ctx.Err()
	}
	var over <-chan struct{}
	select {
	case r := <-done:
		if r.err != nil || r.old == nil {
			return r.err
		}
		over = r.old.over
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rotate is what Rotate asks for.
func (i *Instance) rotate(ctx context.Context, now bool) (r rotated) {
	old := i.current()
	log := i.apps.agent.config.Log.With("app", i.App, "generation", old.Generation)
	next, err := i.start(ctx)
	if err != nil {
		log.Error("rotating an app: its new generation did not start, the old one goes on", "err", err)
		return rotated{err: fmt.Errorf("a new generation did not start, generation %d goes on: %w", old.Generation, err)}
	}
	if err := i.getsWell(ctx, next); err != nil {
		next.Kill()
		<-next.over
		log.Error("rotating an app: its new generation is not well and was ended, the old one goes on", "new", next.Generation, "err", err)
		return rotated{err: fmt.Errorf("generation %d is not well and was ended, generation %d goes on: %w", next.Generation, old.Generation, err)}
	}
	log.Info("an app was rotated", "new", next.Generation)
	i.turn(next)
	if now {
		old.rush()
	}
	i.retire(old)
	return rotated{old: old}
}

// retire ends a generation that another has followed.
func (i *Instance) retire(old *Generation) {
	old.End()
	i.ending.Go(func() { <-old.over })
}

// age rotates because the generation is old enough. When that fails, it waits a
// while before the next attempt.
func (i *Instance) age(ctx context.Context) {
	if r := i.rotate(ctx, false); r.err != nil {
		i.notBefore = i.apps.agent.config.Now().Add(i.maxAge() / 10)
	}
}

// due is how long from now g may go on before it is replaced.
func (i *Instance) due(g *Generation) time.Duration {
	age := i.maxAge()
	if age == 0 {
		return math.MaxInt64
	}
	at := g.Created.Add(time.Duration(float64(age) * g.share))
	if i.notBefore.After(at) {
		at = i.notBefore
	}
	return at.Sub(i.apps.agent.config.Now())
}

// maxAge is how old a generation may get, by the placement as it is now; 0
// means as old as it likes.
func (i *Instance) maxAge() time.Duration {
	p, ok := i.apps.agent.placed.get(i.App)
	switch {
	case !ok:
		return 0
	case p.MaxGenerationAge != nil:
		return *p.MaxGenerationAge
	case p.HealthCheck != "" || len(i.check) > 0:
		return usualMaxAge
	}
	return 0
}
