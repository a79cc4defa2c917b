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
// is waited for, and sees that what each takes is kept fresh.
func (k *logins) followPlacement(ctx context.Context) {
	kept := map[proof]context.CancelFunc{}
	for {
		moved := k.agent.placed.next()
		p, placed := k.agent.placed.get(k.app)
		if !placed {
			p = new(client.Placement)
		}
		rows := usable(p)
		if err := k.turn(rows); err != nil {
			k.log().Error("writing an app's log-ins at PostgreSQL", "err", err)
		}
		want := k.proofs(rows)
		for of, drop := range kept {
			if want[of] == nil {
				drop()
				delete(kept, of)
			}
		}
		for of, get := range want {
			if kept[of] == nil {
				one, drop := context.WithCancel(ctx)
				kept[of] = drop
				k.keeping.Go(func() { k.keep(one, of, get) })
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
// has the next one fetched at half life. A certificate is looked at as often.
func (k *logins) keep(ctx context.Context, of proof, get func(context.Context) error) {
	pause, told := firstWithout, ""
	for {
		moved := k.agent.tokens.next(k.app)
		wait := refreshEvery
		if err := get(ctx); err != nil && ctx.Err() == nil {
			if why := err.Error(); why != told {
				told = why
				k.log().Warn("keeping what an app logs in by at a PostgreSQL server", "by", of, "err", err)
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
