package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"innate/feed/client"
)

const (
	firstWithout   = time.Second // after a token could not be had; doubled each time
	longestWithout = 20 * time.Second
)

// follow keeps the files as new as the tokens, and as true as the placement, until close.
func (k *logins) follow(ctx context.Context) {
	ctx, k.stop = context.WithCancel(ctx)
	k.keeping.Go(func() { k.followPlacement(ctx) })
}

// close stops what writes to the folder.
func (k *logins) close() {
	if k.stop != nil {
		k.stop()
		k.keeping.Wait()
	}
}

// followPlacement takes a log-in that went out of the files at once, whatever else
// is waited for, and sees that a token is kept for each that there is.
func (k *logins) followPlacement(ctx context.Context) {
	kept := map[loginToken]context.CancelFunc{}
	for {
		moved := k.agent.placed.next()
		p, placed := k.agent.placed.get(k.app)
		if !placed {
			p = new(client.Placement)
		}
		rows := usable(p)
		if err := k.turn(rows); err != nil {
			k.agent.config.Log.Error("writing an app's log-ins at PostgreSQL", "app", k.app, "generation", k.number, "err", err)
		}
		want := needed(rows)
		for of, drop := range kept {
			if !want[of] {
				drop()
				delete(kept, of)
			}
		}
		for of := range want {
			if kept[of] == nil {
				one, drop := context.WithCancel(ctx)
				kept[of] = drop
				k.keeping.Go(func() { k.keep(one, of) })
			}
		}
		select {
		case <-moved:
		case <-ctx.Done():
			for _, drop := range kept {
				drop()
			}
			return
		}
	}
}

// keep puts each new token into the file as the cache gets it: by asking, it also
// has the next one fetched at half life.
func (k *logins) keep(ctx context.Context, of loginToken) {
	pause, told := firstWithout, ""
	for {
		moved := k.agent.tokens.next(k.app)
		wait := refreshEvery
		if err := k.fetch(ctx, of); err != nil && ctx.Err() == nil {
			if why := err.Error(); why != told {
				told = why
				k.agent.config.Log.Warn("keeping the password of an app's log-ins at a PostgreSQL server", "app", k.app, "generation", k.number, "audience", of.audience, "err", err)
			}
			moved, wait = nil, pause+rand.N(pause/10)
			pause = min(2*pause, longestWithout)
		} else {
			pause, told = firstWithout, ""
		}
		again := time.NewTimer(wait)
		select {
		case <-moved:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}
