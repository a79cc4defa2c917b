package agent

import (
	"context"

	"innate"
	"innate/agent/appservice"
	"innate/feed/client"
)

// runnable finds what a program is to run as: an app by name or id, or by its id
// the machine itself, which has an identity of its own.
func (a *Agent) runnable(ctx context.Context, app string) (*client.Placement, error) {
	if a.machine.Machine.Equal(innate.ResourceID(app)) {
		return a.placed.named(ctx, typeMachine, app)
	}
	return a.placed.named(ctx, typeSite, app)
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
