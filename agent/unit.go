package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"innate"
	"innate/agent/launch"
	"innate/agent/unit"
	"innate/audit"
	"innate/feed/client"
)

// A unit of the host's service manager is an app by a drop-in, which only who may
// install units can write: at each start of the unit, and as root in the unit's
// cgroup, the manager runs a program of ours that asks for a generation and writes
// the variables for the manager to read. The cgroup is the manager's; when it is
// taken away, the generation is over.

// An Attachment is what the drop-in of a unit says.
type Attachment struct {
	App   innate.ResourceID `json:"app"`
	After string            `json:"after,omitempty"` // the agent's own unit; empty: it is none
}

// tendUnit answers what is asked of units.
func (a *Agent) tendUnit(ctx context.Context, q request, by uint32) (report, error) {
	if q.Service != nil {
		q.Unit = q.Service.Unit
	}
	if err := unit.CheckName(q.Unit); err != nil {
		return report{}, err
	}
	switch q.Op {
	case "attach-unit":
		at, err := a.attachUnit(ctx, q, by)
		return report{Attachment: at}, err
	case "start-unit":
		env, err := a.startUnit(ctx, q, by)
		return report{Env: env}, err
	}
	return report{Done: true}, a.detachUnit(ctx, q, by)
}

// attachUnit decides whether a unit is to be an app.
func (a *Agent) attachUnit(ctx context.Context, q request, by uint32) (*Attachment, error) {
	p, err := a.named(ctx, typeSite, q.App)
	if err != nil {
		return nil, err
	}
	at := &Attachment{App: p.Resource, After: ownUnit()}
	ev := a.unitEvent(q.Op, p.Resource, q.Unit, by)
	ev.Assurance = a.host().assurance
	refused := a.mayRun(p, by)
	switch {
	case refused != nil:
	case q.Unit == at.After:
		refused = fmt.Errorf("%s is this agent's own unit", q.Unit)
	default:
		refused = a.knowsUnits(p)
	}
	return at, a.decide(ctx, ev, refused)
}

// knowsUnits refuses where units cannot be told apart, or not as surely as an app wants.
func (a *Agent) knowsUnits(p *client.Placement) error {
	here := a.host()
	if here.assurance < innate.CgroupUID {
		return fmt.Errorf("a unit is known by its cgroup, and here callers are proved by %s only: %w", here.assurance, here.why())
	}
	return a.suffices(p, here.assurance)
}

// unitEvent is what is recorded of what a local user asks for with a unit.
func (a *Agent) unitEvent(action string, app innate.ResourceID, unit string, by uint32) audit.Event {
	return audit.Event{
		Time: a.config.Now(), Action: action, Target: string(app), Name: app.Name(), Host: string(a.machine.Machine),
		Detail: map[string]string{"uid": fmt.Sprint(by), "unit": unit},
	}
}

// ownUnit is the service that this process is of; empty where it is of none.
func ownUnit() string {
	dir, err := launch.OwnDirectory()
	if err != nil {
		return ""
	}
	if name := filepath.Base(dir); strings.HasSuffix(name, ".service") {
		return strings.TrimPrefix(name, "_")
	}
	return ""
}

// booting is how long a unit's start waits for an agent that was just started, too,
// and has not heard yet what is placed here.
const booting = 30 * time.Second

// startUnit makes the generation of a unit that is about to start, in the place of
// an earlier one of the unit, and returns the variables that the unit has not.
func (a *Agent) startUnit(ctx context.Context, q request, by uint32) ([]string, error) {
	if q.Service == nil {
		return nil, errors.New("start-unit wants the unit and its cgroup")
	}
	p, err := a.placedAtBoot(ctx, q.App)
	if err != nil {
		return nil, err
	}
	ev := a.unitEvent(q.Op, p.Resource, q.Unit, by)
	ev.Assurance, ev.Detail["invocation"] = a.host().assurance, q.Invocation
	refused := a.knowsUnits(p)
	if by != 0 {
		refused = &innate.Refusal{
			Status: http.StatusForbidden, OAuth: "access_denied",
			Text: fmt.Sprintf("uid %d may not say that a unit starts: the service manager does, as root", by),
		}
	}
	if err := a.decide(ctx, ev, refused); err != nil {
		return nil, err
	}
	if err := a.apps.endUnits(ctx, "", q.Unit); err != nil {
		return nil, err
	}
	g, env, err := a.apps.start(nil, p, program{service: q.Service, env: q.Env})
	if err != nil {
		return nil, err
	}
	g.serving.Store(true)
	return slices.DeleteFunc(env, func(v string) bool { return slices.Contains(q.Env, v) }), nil
}

// placedAtBoot finds an app, also when this agent is just being told of it.
func (a *Agent) placedAtBoot(ctx context.Context, app string) (*client.Placement, error) {
	p, err := a.named(ctx, typeSite, app)
	if err == nil || a.placed.heard() {
		return p, err
	}
	late := time.NewTimer(booting)
	defer late.Stop()
	select {
	case <-a.ready:
		return a.named(ctx, typeSite, app)
	case <-late.C:
	case <-ctx.Done():
	case <-a.leaving:
		return nil, errLeaves
	}
	return nil, fmt.Errorf("the control plane has not told this agent yet what is placed here: %w", err)
}

// errLeaves means that the next agent is to be asked.
var errLeaves = errors.New("this agent makes way for the next one")

// detachUnit ends the generations of a unit that is to be an app no longer.
func (a *Agent) detachUnit(ctx context.Context, q request, by uint32) error {
	app := innate.ResourceID(q.App)
	var refused error
	if p, placed := a.placed.get(app); placed {
		refused = a.mayRun(p, by)
	} else if !a.rules(by) {
		refused = fmt.Errorf("%s is not placed on this host: its units are root's to detach", app)
	}
	if err := a.decide(ctx, a.unitEvent(q.Op, app, q.Unit, by), refused); err != nil {
		return err
	}
	return a.apps.endUnits(ctx, app, q.Unit)
}

// endUnits ends the generations of a unit, or of every instance of a template, and
// waits until they are over; an app that is empty means all.
func (s *apps) endUnits(ctx context.Context, app innate.ResourceID, unit string) error {
	var found []*Generation
	s.mu.Lock()
	for g := range s.all {
		if !g.starting() && isUnit(g.Unit, unit) && (app == "" || g.App.Equal(app)) {
			found = append(found, g)
		}
	}
	s.mu.Unlock()
	for _, g := range found {
		g.End()
	}
	for _, g := range found {
		select {
		case <-g.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// isUnit reports whether name is the unit or, where that is a template, an instance of it.
func isUnit(name, unit string) bool {
	template, suffix, _ := strings.Cut(unit, "@")
	return name == unit && name != "" || suffix == ".service" && strings.HasPrefix(name, template+"@")
}

// units are those that run as an app.
func (s *apps) units(app innate.ResourceID) (all []string) {
	for _, r := range s.list() {
		if r.Unit != "" && r.App.Equal(app) {
			all = append(all, r.Unit)
		}
	}
	return all
}

// attendUnit sees a generation that is a unit to its end: the unit's, or that of its
// being the app here. The unit's processes are not ours to end.
func (s *apps) attendUnit(ctx context.Context, g *Generation, serving <-chan error, shut func()) {
	a := s.agent
	waiting, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	select {
	case <-g.home.Empty(waiting):
	case <-ctx.Done():
	case err := <-serving:
		if a.leaves() {
			return
		}
		a.config.Log.Error("a unit's endpoint ended by itself: restart the unit", "app", g.App, "generation", g.Generation, "unit", g.Unit, "err", err)
	}
	close(g.exited)
	shut()
	if err := <-serving; err != nil {
		a.config.Log.Warn("closing a unit's endpoint", "app", g.App, "generation", g.Generation, "unit", g.Unit, "err", err)
	}
	s.takeAway(g)
	if !s.ending() {
		if err := s.record(context.WithoutCancel(ctx), "end-app", g, nil); err != nil {
			a.config.Log.Warn("recording the end of an app", "app", g.App, "generation", g.Generation, "unit", g.Unit, "err", err)
		}
	}
	s.remove(g)
}
