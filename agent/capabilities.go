package agent

import (
	"errors"
	"fmt"
	"os"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
	"innate/agent/opener"
)

// A Capability is a way to prove callers, and whether this host has it: found
// out by trying at the start, never by the kernel's version (host-attestation §10).
type Capability struct {
	Assurance innate.Assurance `json:"assurance"`
	Available bool             `json:"available"`
	Note      string           `json:"note,omitempty"` // why not, or by what detour
}

// A host is what this machine lets the agent do and prove.
type host struct {
	assurance innate.Assurance            // of an app's callers, at best
	lacks     [innate.Device + 1]error    // by assurance: why it cannot be proved here; nil: it can
	detours   map[innate.Assurance]string // what is proved, but not as it should be

	facts  opener.Facts
	diag   *caller.Diag // nil: nothing can be asked of the kernel
	search bool         // the kernel names no cgroup of a socket: callers' are searched for
}

// look finds out.
func look(c Config, by opener.Opener) *host {
	h := &host{assurance: innate.SecretOnly, detours: map[innate.Assurance]string{}}
	var err error
	if h.facts, err = opener.ReadFacts(by); err != nil {
		h.facts.NoCgroups = err.Error()
	}
	if h.diag, err = c.NewDiag(); err != nil {
		h.lacks[innate.UID] = err
	} else {
		h.lookAtApps(by)
	}
	if !h.facts.Root() {
		h.lacks[innate.UID] = errors.Join(h.lacks[innate.UID], fmt.Errorf("the agent is uid %d: apps run under it too, and one uid is one domain", os.Getuid()))
	}
	h.lacks[innate.CgroupUID] = errors.Join(h.lacks[innate.CgroupUID], reason(h.facts.NoCgroups))
	for _, better := range []innate.Assurance{innate.UID, innate.CgroupUID} {
		if h.lacks[better] != nil {
			break
		}
		h.assurance = better
	}
	h.lookAtVMs()
	return h
}

// reason is why something cannot be done; nil when it can.
func reason(why string) error {
	if why == "" {
		return nil
	}
	return errors.New(why)
}

// lookAtApps finds out what the kernel says of local callers.
func (h *host) lookAtApps(by opener.Opener) {
	own, err := launch.OwnCgroup()
	reached, why := h.diag.Probe(own)
	switch {
	case reached < innate.UID:
		h.lacks[innate.UID] = why
		h.diag.Close()
		h.diag = nil
	case err != nil:
		h.lacks[innate.CgroupUID] = err
	case errors.Is(why, caller.ErrNoCgroup):
		if h.lacks[innate.CgroupUID] = opener.ProbeSearch(by); h.lacks[innate.CgroupUID] == nil {
			h.search = true
			h.detours[innate.CgroupUID] = fmt.Sprintf("%v: who holds a caller's socket is searched for in /proc, once for each connection", why)
		}
	default:
		h.lacks[innate.CgroupUID] = why
	}
}

// lookAtVMs finds out by what VMs can be told apart.
func (h *host) lookAtVMs() {
	h.lacks[innate.NetNS] = reason(h.facts.NoNamespaces)
	h.lacks[innate.Device] = errors.Join(h.lacks[innate.NetNS], reason(h.facts.NoDevices))
	if h.facts.NoRules != "" && h.lacks[innate.Device] == nil {
		h.detours[innate.Device] = "not at the ports of a bridge: " + h.facts.NoRules
	}
}

// why is why an app's callers are not proved better; nil when they are.
func (h *host) why() error { return errors.Join(h.lacks[innate.UID], h.lacks[innate.CgroupUID]) }

// proofOf is how surely an app's callers are recognised: in a network namespace
// of its own its cgroup and uid still have to be right.
func (h *host) proofOf(isolated bool) innate.Assurance {
	if isolated && h.assurance == innate.CgroupUID {
		return innate.NetNS
	}
	return h.assurance
}

// capabilities lists every way to prove a caller, the weakest first.
func (h *host) capabilities() (all []Capability) {
	for a := innate.SecretOnly; a <= innate.Device; a++ {
		c := Capability{Assurance: a, Available: h.lacks[a] == nil, Note: h.detours[a]}
		if why := h.lacks[a]; why != nil {
			c.Note = why.Error()
		} else if a == innate.CgroupUID && h.lacks[innate.UID] != nil {
			c.Available, c.Note = false, "it takes uid, which is not available"
		}
		all = append(all, c)
	}
	return all
}
