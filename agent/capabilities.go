package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
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

	cgroups *launch.Cgroups // nil: none may be made
	process string          // directory above it, which other agents of this process share
	diag    *caller.Diag    // nil: nothing can be asked of the kernel
	search  bool            // the kernel names no cgroup of a socket: callers' are searched for
	mounts  error           // why apps cannot have a mount namespace; nil when they can
	swept   error           // what an earlier agent left and could not be removed; nothing depends on it
}

// look finds out.
func look(c Config) *host {
	h := &host{assurance: innate.SecretOnly, detours: map[innate.Assurance]string{}}
	var err error
	if h.diag, err = c.NewDiag(); err != nil {
		h.lacks[innate.UID] = err
	} else {
		h.lookAtApps()
	}
	if os.Getuid() != 0 {
		h.lacks[innate.UID] = errors.Join(h.lacks[innate.UID], fmt.Errorf("the agent is uid %d: apps run under it too, and one uid is one domain", os.Getuid()))
	}
	if err := h.openCgroups(c.Cgroups); err != nil {
		h.lacks[innate.CgroupUID] = errors.Join(h.lacks[innate.CgroupUID], err)
	}
	for _, better := range []innate.Assurance{innate.UID, innate.CgroupUID} {
		if h.lacks[better] != nil {
			break
		}
		h.assurance = better
	}
	h.lookAtVMs()
	if os.Getuid() != 0 && (c.Hosts != "" || len(c.Hide) > 0) {
		h.mounts = launch.UserNamespaces(c.Stub)
	}
	return h
}

// lookAtApps finds out what the kernel says of local callers.
func (h *host) lookAtApps() {
	dir, err := launch.OwnDirectory()
	var own uint64
	if err == nil {
		own, err = launch.OwnCgroup()
	}
	reached, why := h.diag.Probe(own)
	switch {
	case reached < innate.UID:
		h.lacks[innate.UID] = why
		h.diag.Close()
		h.diag = nil
	case err != nil:
		h.lacks[innate.CgroupUID] = err
	case errors.Is(why, caller.ErrNoCgroup):
		if h.lacks[innate.CgroupUID] = h.diag.ProbeHolders(dir); h.lacks[innate.CgroupUID] == nil {
			h.search = true
			h.detours[innate.CgroupUID] = fmt.Sprintf("%v: who holds a caller's socket is searched for in /proc, once for each connection", why)
		}
	default:
		h.lacks[innate.CgroupUID] = why
	}
}

// lookAtVMs finds out by what VMs can be told apart.
func (h *host) lookAtVMs() {
	h.lacks[innate.NetNS] = caller.ProbeNamespaces()
	h.lacks[innate.Device] = errors.Join(h.lacks[innate.NetNS], caller.ProbeDevices())
	if _, err := nft(); err != nil && h.lacks[innate.Device] == nil {
		h.detours[innate.Device] = "not at the ports of a bridge: " + err.Error()
	}
}

// nft is the program that puts rules at the ports of a bridge.
func nft() (string, error) {
	for _, name := range []string{"nft", "/usr/sbin/nft"} { // a service's PATH may lack the folder
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no nft here: install the package nftables")
}

// why is why an app's callers are not proved better; nil when they are.
func (h *host) why() error { return errors.Join(h.lacks[innate.UID], h.lacks[innate.CgroupUID]) }

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
