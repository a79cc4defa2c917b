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
	o, err := a.order(workload, which, proof)
	if errors.Is(err, innate.ErrNoIdentity) {
		a.placed.await(ctx, func() bool {
			o, err = a.order(workload, which, proof)
			return !errors.Is(err, innate.ErrNoIdentity)
		})
		switch {
		case ctx.Err() != nil:
			return innate.Token{}, ctx.Err()
		case err != nil && !a.placed.heard():
			return innate.Token{}, unreachable(errors.New("the feed has not told yet what is placed on this host"))
		}
	}
	if err != nil {
		return innate.Token{}, err
	}
	o.resource = resource
	return a.tokens.get(ctx, o)
}

// order finds the identity that is meant, for a caller who is proved well enough.
func (a *Agent) order(workload innate.ResourceID, which innate.Selector, proof innate.Assurance) (order, error) {
	p, ok := a.placed.get(workload)
	if !ok {
		return order{}, innate.ErrNoIdentity
	}
	if err := a.suffices(p, proof); err != nil {
		return order{}, err
	}
	id, err := choose(p.Identities, which)
	return order{workload: p.Resource, identity: id, proof: proof}, err
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
