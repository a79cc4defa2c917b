package agent

import (
	"context"
	"time"

	"innate/agent/opener"
)

// hearing is how long an agent that starts may wait to be told what is placed
// here before it says that it serves: what it held before a restart it has anyway.
const hearing = 5 * time.Second

// tellAlive tells the opener that the agent serves, and again as long as it does.
func (a *Agent) tellAlive(ctx context.Context) error {
	if a.local != nil {
		return nil
	}
	wait := time.NewTimer(hearing)
	defer wait.Stop()
	select {
	case <-a.ready:
	case <-wait.C:
	case <-ctx.Done():
		return nil
	}
	for {
		a.Status() // waits for every lock that a request may wait for
		within, err := opener.Alive(a.opener)
		if err != nil {
			a.config.Log.Warn("telling the opener that the agent serves", "err", err)
			return nil
		}
		wait.Reset(within)
		select {
		case <-wait.C:
		case <-ctx.Done():
			return nil
		}
	}
}
