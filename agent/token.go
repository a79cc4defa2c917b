package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"innate"
	"innate/feed/client"
)

// Token returns a token of one of a workload's identities for a resource, good
// for more than five minutes. proof is how surely the caller was recognised as
// the workload; whoever calls Token answers for it.
//
// The error is innate.ErrNoIdentity, innate.ErrManyIdentities or an *innate.Refusal.
func (a *Agent) Token(ctx context.Context, workload innate.ResourceID, which innate.Selector, resource string, proof innate.Assurance) (innate.Token, error) {
	for range attempts {
		o, err := a.await(ctx, workload, which, proof)
		if err != nil {
			return innate.Token{}, err
		}
		o.resource = resource
		token, err := a.tokens.get(ctx, o)
		if !errors.Is(err, errOvertaken) {
			return token, err
		}
	}
	return innate.Token{}, unreachable(errOvertaken)
}

// attempts is how often a request starts again because what it is for changed meanwhile.
const attempts = 3

// await is order, which a workload or identity that is on its way here is given time for.
func (a *Agent) await(ctx context.Context, workload innate.ResourceID, which innate.Selector, proof innate.Assurance) (o order, err error) {
	look := func() bool {
		o, err = a.order(workload, which, proof)
		return !errors.Is(err, innate.ErrNoIdentity)
	}
	a.placed.certain(ctx)
	if look() {
		return o, err
	}
	a.placed.await(ctx, look)
	switch {
	case ctx.Err() != nil:
		return o, ctx.Err()
	case err != nil && !a.placed.heard():
		return o, unreachable(errors.New("the feed has not told yet what is placed on this host"))
	}
	return o, err
}

// order finds the identity that is meant, for a caller who is proved well enough.
func (a *Agent) order(workload innate.ResourceID, which innate.Selector, proof innate.Assurance) (order, error) {
	key := workload.Key()
	p, ok := a.placed.at(key)
	if !ok {
		return order{}, innate.ErrNoIdentity
	}
	if err := a.suffices(p, proof); err != nil {
		return order{}, err
	}
	id, err := choose(p.Identities, which)
	return order{workload: p.Resource, wallet: key, identity: id, proof: proof}, err
}

// minimum is how surely a workload's callers must be recognised.
func (a *Agent) minimum(p *client.Placement) innate.Assurance {
	switch {
	case p.MinimumAssurance != innate.Unproved:
		return p.MinimumAssurance
	case a.config.Dev:
		return innate.SecretOnly
	}
	return innate.CgroupUID
}

// suffices refuses a proof below the workload's minimum.
func (a *Agent) suffices(p *client.Placement, proof innate.Assurance) error {
	need := a.minimum(p)
	if proof >= need {
		return nil
	}
	return &innate.Refusal{
		Status: http.StatusForbidden, OAuth: "access_denied",
		Text: fmt.Sprintf("%s wants its callers proved by %s, and here this one is proved by %s only", p.Name, need, proof),
	}
}
