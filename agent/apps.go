package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"innate"
)

// apps are the generations on this host, and the programs that they are runs of.
type apps struct {
	agent   *Agent
	running sync.WaitGroup
	reading sync.WaitGroup // of what apps that run detached write

	mu      sync.Mutex
	ctx     context.Context // of Agent.Run; nil when it is not running
	numbers map[string]int  // the newest generation's, by app key
	all     map[*Generation]bool
	kept    map[*Instance]bool
}

func newApps(a *Agent) *apps {
	return &apps{agent: a, numbers: map[string]int{}, all: map[*Generation]bool{}, kept: map[*Instance]bool{}}
}

// open lets apps start, until ctx ends.
func (s *apps) open(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
}

// ending reports whether the agent ends, and everything with it.
func (s *apps) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ctx == nil || s.ctx.Err() != nil
}

// wait returns when every generation is over; none starts any more.
func (s *apps) wait() {
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.running.Wait()
	s.reading.Wait()
}

// gone ends an app that is no longer placed here.
func (s *apps) gone(app innate.ResourceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if i.App.Equal(app) {
			i.End()
		}
	}
	for g := range s.all {
		if g.App.Equal(app) {
			g.End()
		}
	}
}

// endUnplaced ends what runs of apps that are not placed here, when that is sure:
// they were taken off while no agent ran.
func (s *apps) endUnplaced() {
	s.mu.Lock()
	apps := map[string]innate.ResourceID{}
	for g := range s.all {
		apps[g.App.Key()] = g.App
	}
	s.mu.Unlock()
	for _, app := range apps {
		if _, placed := s.agent.placed.get(app); !placed {
			s.gone(app)
		}
	}
}

// A Running is a generation as it is now.
type Running struct {
	Started
	Processes int    `json:"processes"` // 0: not known, for there is no cgroup
	State     string `json:"state"`     // starting, serving or ending
}

// list returns what runs, by app and age.
func (s *apps) list() []Running {
	s.mu.Lock()
	var found []*Generation
	for g := range s.all {
		found = append(found, g)
	}
	s.mu.Unlock()
	all := make([]Running, 0, len(found))
	for _, g := range found {
		if g.starting() {
			continue // it has not all that it is listed by
		}
		all = append(all, Running{Started: g.Started, Processes: g.members(), State: g.state()})
	}
	slices.SortFunc(all, func(a, b Running) int {
		return cmp.Or(strings.Compare(a.App.Key(), b.App.Key()), a.Generation-b.Generation)
	})
	return all
}

// instances returns the programs that are kept running as an app, the oldest
// first; number chooses the one of that generation, 0 all.
func (s *apps) instances(app innate.ResourceID, number int) (found []*Instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if i.App.Equal(app) && (number == 0 || i.current().Generation == number) {
			found = append(found, i)
		}
	}
	slices.SortFunc(found, func(a, b *Instance) int { return a.current().Generation - b.current().Generation })
	return found
}

const mostInstances = 256 // of an app: they may be started by somebody who is not root

// keep makes a place for a program that is to be kept running.
func (s *apps) keep(i *Instance) (context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.startable(i.App); err != nil {
		return nil, err
	}
	others := 0
	for k := range s.kept {
		if k.App.Equal(i.App) {
			others++
		}
	}
	if others >= mostInstances {
		return nil, fmt.Errorf("%s runs %d times here already: stop some with 'innate app stop'", i.App.Name(), others)
	}
	ctx, end := context.WithCancel(s.ctx)
	i.end = end
	s.kept[i] = true
	s.running.Add(1)
	return ctx, nil
}

// left takes away what keep made.
func (s *apps) left(i *Instance) {
	if s.agent.leaves() {
		return
	}
	i.end()
	i.settled()
	s.mu.Lock()
	delete(s.kept, i)
	s.mu.Unlock()
	s.running.Done()
}

// add makes a place for a new generation, which ends with ctx; nil means with the agent.
func (s *apps) add(ctx context.Context, app innate.ResourceID) (*Generation, context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.startable(app); err != nil {
		return nil, nil, err
	}
	if ctx == nil {
		ctx = s.ctx
	}
	s.numbers[app.Key()]++
	ctx, end := context.WithCancel(ctx)
	g := newGeneration(app, s.numbers[app.Key()], s.agent.config.Now().UTC())
	g.end = end
	s.all[g] = true
	s.running.Add(1)
	return g, ctx, nil
}

// startable says why an app cannot start now; s.mu is held, so that from here on gone finds what is added.
func (s *apps) startable(app innate.ResourceID) error {
	if s.ctx == nil || s.ctx.Err() != nil {
		return errors.New("the agent is ending: start the app again when it is back")
	}
	if _, ok := s.agent.placed.get(app); !ok {
		return fmt.Errorf("%s was just taken off this host", app.Name())
	}
	return nil
}

// remove takes away what add made, when all of g is gone.
func (s *apps) remove(g *Generation) {
	g.end()
	s.mu.Lock()
	delete(s.all, g)
	s.mu.Unlock()
	close(g.over)
	s.running.Done()
}
