package agent

import (
	"context"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/feed/client"
)

// runnable finds what a program is to run as: an app by name or id, or by its id
// the machine itself, which has an identity of its own.
func (a *Agent) runnable(ctx context.Context, app string) (*client.Placement, error) {
	if a.machine.Machine.Equal(innate.ResourceID(app)) {
		return a.named(ctx, typeMachine, app)
	}
	return a.named(ctx, typeSite, app)
}

// catching is how long whoever starts a program waits for the control plane to
// say what is new.
const catching = time.Second

// named finds what is placed here by its name or id, as it is at the control
// plane now: who sets something and then starts a program, as scripts do, need
// not wait in between. A control plane that does not answer stops nobody: it is
// then as this host last heard, or hears in a moment.
func (a *Agent) named(ctx context.Context, typ, name string) (p *client.Placement, err error) {
	soon, cancel := context.WithTimeout(ctx, catching)
	defer cancel()
	unknown := a.feed.CatchUp(soon)
	if unknown == nil {
		return a.placed.named(typ, name)
	}
	a.config.Log.Debug("what is new at the control plane is not known; going on with what was heard", "err", unknown)
	a.placed.await(ctx, func() bool {
		p, err = a.placed.named(typ, name)
		return p != nil
	})
	return p, err
}

// shapeOf is where the program of a run looks for its identity.
func shapeOf(p *client.Placement, r RunRequest) appservice.Shape {
	switch {
	case r.Endpoint != "":
		return r.Endpoint
	case p.Resource.Is(typeMachine):
		return appservice.Arc
	}
	return appservice.AppService
}

// defaultClient is the client id that a program means that names no identity;
// empty where the workload has none, or several and none of its own.
func (a *Agent) defaultClient(workload innate.ResourceID) innate.ClientID {
	p, ok := a.placed.get(workload)
	if !ok {
		return ""
	}
	id, err := byDefault(p.Identities)
	if err != nil {
		return ""
	}
	return id.Client
}
