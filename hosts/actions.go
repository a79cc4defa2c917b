package hosts

import (
	"net/http"
	"time"

	"innate"
	"innate/feed/client"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// Rights at a machine, beside joinAction.
const (
	evictAction = "Microsoft.HybridCompute/machines/evict/action"
	readAction  = "Microsoft.HybridCompute/machines/read"
)

// Actions are what may be posted below a machine's resource id, for resources.Config.Actions:
//
//	POST {machine}/join        → {join, expires}: a join string, shown once
//	POST {machine}/allow {ek}  → {join, ek}: a join string without a secret, for the TPM of that hash
//	POST {machine}/disallow    → {ek}: that TPM is not this machine any more
//	POST {machine}/evict       → {evicted}
//	POST {machine}/status      → Status
//
// and below a virtual machine's, see announce, complete and events.
func (h *Hosts) Actions() map[string]resources.Action {
	return map[string]resources.Action{
		"microsoft.hybridcompute/machines/join":     h.issueTicket,
		"microsoft.hybridcompute/machines/allow":    h.allow,
		"microsoft.hybridcompute/machines/disallow": h.disallow,
		"microsoft.hybridcompute/machines/evict":    h.evict,
		"microsoft.hybridcompute/machines/status":   h.status,

		"microsoft.compute/virtualmachines/announceevent": h.announce,
		"microsoft.compute/virtualmachines/completeevent": h.complete,
		"microsoft.compute/virtualmachines/events":        h.events,
	}
}

// evict shuts a machine out, at once: its certificates and those of identities
// on it, its join token, its feed and every token issued on it end. What is
// placed on it stays so, and it may join again with a new token. Its TPM remains
// that of this machine, and joins by itself no more until it is allowed again.
func (h *Hosts) evict(w http.ResponseWriter, r *http.Request, who innate.Principal, machine *resources.Resource) {
	if err := h.config.Require(r.Context(), who, evictAction, machine.ID.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	now := h.config.Now().UTC()
	_, err := h.config.DB.Update(r.Context(), func(tx store.Tx) error {
		m, _, err := members.Get(tx, machine.ID.Key())
		if err != nil {
			return err
		}
		if err := h.shutOut(tx, machine.ID); err != nil {
			return err
		}
		if err := members.Put(tx, machine.ID.Key(), member{Machine: machine.ID, EK: m.EK, Evicted: now}); err != nil {
			return err
		}
		return h.leave(tx, by(r, who, evictAction, machine.ID), nil)
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	rest.Write(w, http.StatusOK, map[string]any{"evicted": now})
}

// Status is what is known of a machine: its certificate and what it holds.
type Status struct {
	Joined     bool              `json:"joined"`
	ByTPM      bool              `json:"byTpm,omitempty"`      // it joined by its TPM, and renews by it
	EK         string            `json:"ek,omitempty"`         // hash of the endorsement key of the TPM that it is
	Thumbprint string            `json:"thumbprint,omitempty"` // of the newest host certificate
	NotAfter   time.Time         `json:"notAfter,omitzero"`
	LastSeen   time.Time         `json:"lastSeen,omitzero"` // as this server remembers since its start
	Evicted    time.Time         `json:"evicted,omitzero"`
	Placements []PlacementStatus `json:"placements"`
}

// A PlacementStatus is one resource placed on a machine.
type PlacementStatus struct {
	Resource   innate.ResourceID `json:"resource"`
	Identities []IdentityStatus  `json:"identities"`
}

// An IdentityStatus is an identity that such a resource has, and the newest
// certificate that the machine holds for it.
type IdentityStatus struct {
	Object     innate.ObjectID `json:"object"`
	Thumbprint string          `json:"thumbprint,omitempty"`
	NotAfter   time.Time       `json:"notAfter,omitzero"`
}

func (h *Hosts) status(w http.ResponseWriter, r *http.Request, who innate.Principal, machine *resources.Resource) {
	if err := h.config.Require(r.Context(), who, readAction, machine.ID.Scope()); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	st := Status{Placements: []PlacementStatus{}}
	err := h.config.DB.View(r.Context(), func(v store.Reader) error {
		m, _, err := members.Get(v, machine.ID.Key())
		if err != nil {
			return err
		}
		st.Evicted, st.EK, st.ByTPM = m.Evicted, m.EK, m.byTPM()
		if n := len(m.Certificates); n > 0 {
			st.Joined, st.Thumbprint, st.NotAfter = true, m.Certificates[n-1].Thumbprint, m.Certificates[n-1].NotAfter
		}
		placed, err := placedAll(v, machine.ID)
		if err != nil {
			return err
		}
		for _, p := range placed {
			st.Placements = append(st.Placements, h.placementStatus(p, machine.ID))
		}
		return nil
	})
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	if t, ok := h.seen.Load(machine.ID.Key()); ok {
		st.LastSeen = t.(time.Time).UTC()
	}
	rest.Write(w, http.StatusOK, st)
}

func (h *Hosts) placementStatus(p client.Placement, machine innate.ResourceID) PlacementStatus {
	st := PlacementStatus{Resource: p.Resource, Identities: []IdentityStatus{}}
	for _, id := range p.Identities {
		is := IdentityStatus{Object: id.Object}
		for _, k := range h.config.Directory.Keys(id.Object) {
			if k.Hosting.Equal(p.Resource) && k.Host.Equal(machine) && k.NotAfter.After(is.NotAfter) {
				is.Thumbprint, is.NotAfter = k.Thumbprint, k.NotAfter
			}
		}
		st.Identities = append(st.Identities, is)
	}
	return st
}
