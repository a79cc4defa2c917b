package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"innate"
	"innate/agent"
)

// idleApps is how many apps wait for nothing in the rows of an idle agent.
const idleApps = 200

// agentIdle is the share of a core, in percent, that an agent uses for apps that
// ask for nothing. The control plane is in the same process and idle too, so it
// is rather too much.
func agentIdle(ctx context.Context, b *bench) (contest, error) {
	apps, err := b.idle(ctx)
	if err != nil {
		return contest{}, err
	}
	return contest{ours: func(ctx context.Context, d time.Duration) (float64, error) {
		cpu, begun := cpuTime(), time.Now()
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		return 100 * float64(cpuTime()-cpu) / float64(time.Since(begun)), nil
	}, end: apps.end}, nil
}

// agentMemory is what the agent's own memory, heap and stacks, grows by for each
// app that runs, in KiB.
func agentMemory(ctx context.Context, b *bench) (contest, error) {
	apps, err := b.idle(ctx)
	if err != nil {
		return contest{}, err
	}
	return contest{ours: func(context.Context, time.Duration) (float64, error) {
		return (memoryUsed() - apps.before) / 1024 / idleApps, nil
	}, less: true, end: apps.end}, nil
}

// memoryUsed is what this process's heap and stacks hold, in bytes.
func memoryUsed() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what has a finaliser goes the second time
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// lodgers are apps that run and do nothing.
type lodgers struct {
	socket string
	apps   []innate.ResourceID
	before float64 // memory, before the first of them ran
}

// idle starts idleApps apps, each with an identity of its own.
func (b *bench) idle(ctx context.Context) (_ *lodgers, err error) {
	st, err := b.platform(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := ensurePlan(ctx, st.Admin, benchGroup, st.Machine)
	if err != nil {
		return nil, err
	}
	l := &lodgers{socket: st.Dir.AgentSocket()}
	var placed []innate.ResourceID
	for i := range idleApps {
		id := st.resource(typeSite, fmt.Sprintf("idle-%d", i))
		if _, err := st.put(ctx, id, map[string]any{
			"kind": "app", "properties": map[string]any{"serverFarmId": plan}, "identity": map[string]string{"type": "SystemAssigned"},
		}); err != nil {
			return nil, err
		}
		placed = append(placed, id)
	}
	l.before = memoryUsed()
	defer func() {
		if err != nil {
			err = errors.Join(err, l.end())
		}
	}()
	for _, id := range placed {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, err := agent.Run(l.socket, agent.RunRequest{
			App: string(id), Args: []string{"sleep", "3600"}, Dir: "/", Env: []string{"PATH=/usr/bin:/bin"}, Detach: true,
		}); err != nil {
			return nil, err
		}
		l.apps = append(l.apps, id)
	}
	return l, nil
}

// end ends them all.
func (l *lodgers) end() error {
	var errs []error
	for _, id := range l.apps {
		errs = append(errs, agent.End(l.socket, string(id), 0, true))
	}
	return errors.Join(errs...)
}
