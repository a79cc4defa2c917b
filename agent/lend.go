package agent

import (
	"context"
	"errors"
	"fmt"

	"innate"
	"innate/agent/caller"
)

// Lend opens an endpoint for a workload of which there is no process of its own:
// a test's, in development only. Callers are proved by the secret alone. It
// serves until ctx ends; env is what an app would be given.
func (a *Agent) Lend(ctx context.Context, workload innate.ResourceID) (env []string, err error) {
	if !a.config.Dev {
		return nil, errors.New("an endpoint proved by its secret alone is for development: run the program as the app")
	}
	var id innate.ResourceID
	a.placed.await(ctx, func() bool {
		p, ok := a.placed.get(workload)
		if ok {
			id = p.Resource
		}
		return ok
	})
	if id == "" {
		return nil, fmt.Errorf("%s is not placed on this host", workload)
	}
	g, serving, err := a.apps.add(nil, id)
	if err != nil {
		return nil, err
	}
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		a.apps.discard(g)
		return nil, err
	}
	endpoint, env, err := a.apps.endpoint(g, l)
	if err != nil {
		l.Close()
		a.apps.discard(g)
		return nil, err
	}
	g.serving.Store(true)
	close(g.begun)
	context.AfterFunc(ctx, g.End)
	go func() {
		if err := endpoint.Run(serving); err != nil {
			a.config.Log.Warn("closing a lent endpoint", "workload", id, "err", err)
		}
		a.apps.discard(g)
	}()
	return env, nil
}
