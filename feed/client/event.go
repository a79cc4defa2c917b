package client

import (
	"encoding/json"
	"time"

	"innate"
)

// An Event is one line of a feed (newline-delimited JSON). Exactly one of Key, Reset, Synced and Beat is meant:
// a row changed (Value) or gone (no Value); forget everything, a snapshot follows; all that was true when this
// connection was made has been sent; still here, and all that was true a beat ago has been sent.
type Event struct {
	// Revision is where to go on from once this line was applied (?from=): 0 while a snapshot is incomplete, and
	// for all but the last row of a transaction the one before it, so that half of it is never taken for the whole.
	Revision uint64          `json:"revision"`
	Key      string          `json:"key,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	Reset    bool            `json:"reset,omitempty"`
	Synced   bool            `json:"synced,omitempty"`
	Beat     bool            `json:"beat,omitempty"`
}

// A Placement is what a host must know of a resource placed on it, and no more.
type Placement struct {
	Resource         innate.ResourceID `json:"resource"`
	Type             string            `json:"type"` // Microsoft.Compute/virtualMachines or Microsoft.Web/sites or Microsoft.HybridCompute/machines
	Name             string            `json:"name"`
	Kind             string            `json:"kind,omitempty"`
	Location         string            `json:"location,omitempty"`
	Tags             map[string]string `json:"tags,omitempty"`
	VMID             string            `json:"vmId,omitempty"`
	Instance         map[string]string `json:"instance,omitempty"`  // VMs: what its own properties tell in instance metadata, such as compute.vmSize
	Scheduled        *Scheduled        `json:"scheduled,omitempty"` // VMs: what is going to happen to it; nil: nothing ever was
	Identities       []Identity        `json:"identities,omitempty"`
	Settings         map[string]string `json:"settings,omitempty"`         // appsettings
	SecretsIdentity  innate.ResourceID `json:"secretsIdentity,omitempty"`  // by which settings that refer to secrets are read; empty: the default one
	RunAs            []uint32          `json:"runAs,omitempty"`            // uids that may run as the app, beside root
	MinimumAssurance innate.Assurance  `json:"minimumAssurance,omitempty"` // 0: the host's default
	HealthCheck      string            `json:"healthCheck,omitempty"`      // path
	ConsoleFor       []uint32          `json:"consoleFor,omitempty"`       // uids that may look into the running app, beside root
	MaxGenerationAge *time.Duration    `json:"maxGenerationAge,omitempty"` // nanoseconds; 0: no limit; nil: the host's default
	Logins           []Login           `json:"logins,omitempty"`           // the PostgreSQL servers its identities may log in at
}

// An Identity is one that a placed resource holds.
type Identity struct {
	Object   innate.ObjectID   `json:"object"`
	Client   innate.ClientID   `json:"client"`
	Resource innate.ResourceID `json:"resource"` // xms_mirid: of the identity itself
	System   bool              `json:"system,omitempty"`
}
