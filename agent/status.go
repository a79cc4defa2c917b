package agent

import (
	"slices"
	"strings"
	"time"

	"innate"
	"innate/audit/ship"
)

// Status is what an agent is, holds and runs. There is no secret in it.
type Status struct {
	Machine     innate.ResourceID `json:"machine"`
	Certificate time.Time         `json:"certificateNotAfter"`
	Assurance   innate.Assurance  `json:"assurance"`                  // of an app's callers, at best
	Why         string            `json:"notBetterBecause,omitempty"` // no better
	Proofs      []Capability      `json:"proofs"`                     // every way to prove a caller, weakest first
	Whole       bool              `json:"whole"`                      // the feed has told everything once
	Placements  []Placed          `json:"placements"`
	Generations []Running         `json:"generations"`
	Attached    []Met             `json:"attached"` // VMs with their metadata service
	Audit       ship.State        `json:"audit"`    // how far the control plane has this host's audit log
}

// A Met is a VM that has its metadata service, and where.
type Met struct {
	VM        innate.ResourceID `json:"vm"`
	Place     Place             `json:"place"`
	Assurance innate.Assurance  `json:"assurance"` // of its callers
}

// Placed is a workload on this host.
type Placed struct {
	Resource   innate.ResourceID `json:"resource"`
	Identities []innate.ObjectID `json:"identities"`
	Minimum    innate.Assurance  `json:"minimumAssurance"`
	Logins     []PlacedLogin     `json:"logins,omitempty"` // at PostgreSQL servers
}

// A PlacedLogin is a role as which a workload may log in at a PostgreSQL server.
type PlacedLogin struct {
	Server   innate.ResourceID `json:"server"`
	Role     string            `json:"role"`
	Identity innate.ObjectID   `json:"identity"`
}

// Status tells what the agent is, holds and runs.
func (a *Agent) Status() Status {
	here := a.host()
	st := Status{
		Machine: a.machine.Machine, Certificate: a.upstream.key.Load().Leaf.NotAfter, Assurance: here.assurance,
		Proofs: here.capabilities(), Whole: a.placed.heard(), Placements: []Placed{}, Generations: a.apps.list(), Attached: a.metadata.list(),
		Audit: a.shipping.State(),
	}
	if why := here.why(); why != nil {
		st.Why = why.Error()
	}
	for _, p := range a.placed.all() {
		ids := []innate.ObjectID{}
		for _, id := range p.Identities {
			ids = append(ids, id.Object)
		}
		placed := Placed{Resource: p.Resource, Identities: ids, Minimum: a.minimum(p)}
		for _, l := range usable(p) {
			placed.Logins = append(placed.Logins, PlacedLogin{l.Server, l.Role, l.Identity})
		}
		st.Placements = append(st.Placements, placed)
	}
	slices.SortFunc(st.Placements, func(a, b Placed) int { return strings.Compare(a.Resource.Key(), b.Resource.Key()) })
	return st
}
