package resources

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"innate"
	"innate/store"
)

// A Resource is one row.
type Resource struct {
	ID         innate.ResourceID          `json:"id"`
	Location   string                     `json:"location,omitempty"`
	Kind       string                     `json:"kind,omitempty"`
	Tags       map[string]string          `json:"tags,omitempty"`
	SKU        json.RawMessage            `json:"sku,omitempty"`
	Identity   Identity                   `json:"identity,omitzero"`
	Properties map[string]json.RawMessage `json:"properties,omitempty"`
	Extra      map[string]json.RawMessage `json:"extra,omitempty"`    // other members of the envelope, such as zones
	Settings   map[string]string          `json:"settings,omitempty"` // sites: config/appsettings
	Created    time.Time                  `json:"created"`
	Changed    time.Time                  `json:"changed"`
}

// Identity is a resource's identity block: its own and those it shares.
// For userAssignedIdentities, System is the identity itself.
type Identity struct {
	System *Assigned           `json:"system,omitempty"`
	User   []innate.ResourceID `json:"user,omitempty"` // in order of attachment; ids as stored
}

// Assigned is a service principal as ARM shows it.
type Assigned struct {
	Principal innate.ObjectID `json:"principalId"`
	Client    innate.ClientID `json:"clientId"`
}

// Properties that mean something to us. The others are kept and returned.
const (
	propHost             = "host"             // VMs: {"id": machine}
	propPlan             = "serverFarmId"     // sites
	propWorkers          = "workers"          // plans: ids of machines
	propRunAs            = "runAs"            // sites: uids
	propMinimumAssurance = "minimumAssurance" // VMs and sites
	propVMID             = "vmId"             // VMs and machines
)

// Host is the machine that a VM is placed on, or empty.
func (r *Resource) Host() innate.ResourceID {
	if !r.ID.Is(TypeVM) {
		return "" // there it is data like any other
	}
	host, _ := hostOf(r)
	return host
}

// Plan is the plan that a site is on, or empty.
func (r *Resource) Plan() innate.ResourceID {
	if !r.ID.Is(TypeSite) {
		return ""
	}
	plan, _ := planOf(r)
	return plan
}

// Workers are the machines of a plan.
func (r *Resource) Workers() []innate.ResourceID {
	if !r.ID.Is(TypePlan) {
		return nil
	}
	workers, _ := workersOf(r)
	return workers
}

// RunAs lists the uids that may run as a site, beside root.
func (r *Resource) RunAs() []uint32 {
	uids, _ := property[[]uint32](r, propRunAs)
	return uids
}

// MinimumAssurance is the weakest proof of a caller that will do; Unproved
// means the host's default.
func (r *Resource) MinimumAssurance() innate.Assurance {
	word, _ := property[innate.Assurance](r, propMinimumAssurance)
	return word
}

// VMID is the GUID that a VM or machine keeps for life.
func (r *Resource) VMID() string {
	id, _ := property[string](r, propVMID)
	return id
}

// property reads a property; an absent one, or null, is the zero value.
func property[T any](r *Resource, name string) (v T, err error) {
	raw, ok := r.Properties[name]
	if !ok {
		return v, nil
	}
	err = json.Unmarshal(raw, &v)
	return v, err
}

// etag changes with every write of r, and is never that of an earlier resource of the same name.
func (r *Resource) etag() (string, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("etag of %s: %w", r.ID, err)
	}
	sum := sha256.Sum256(b)
	return `"` + hex.EncodeToString(sum[:12]) + `"`, nil
}

// references are the resources that r names: those that it is placed on, and
// the identities that are attached to it.
func (r *Resource) references() []innate.ResourceID {
	refs := slices.Clone(r.Identity.User)
	for _, id := range append(r.Workers(), r.Host(), r.Plan()) {
		if id != "" {
			refs = append(refs, id)
		}
	}
	return refs
}

// The rows. Ids of resources stand in keys in lower case, without their leading
// slash.
const (
	rows          store.Table[Resource]          = "resources/rows/"
	subscriptions store.Table[Subscription]      = "resources/subscriptions/"
	vaultNames    store.Table[innate.ResourceID] = "resources/vaults/"   // by lower-case name: unique on the platform
	postgresNames store.Table[innate.ResourceID] = "resources/postgres/" // the same of servers
	// referrers has, for each reference, a row named after the resource that is
	// referred to and the one that refers to it, whose id is the value.
	referrers store.Table[innate.ResourceID] = "resources/referrers/"
)

func rowOf(id innate.ResourceID) string { return strings.TrimPrefix(id.Key(), "/") }

// referrersOf begins the rows of those that refer to id. No id has a doubled
// slash, so that no resource's prefix begins another's.
func referrersOf(id innate.ResourceID) string { return rowOf(id) + "//" }

// Get reads a resource inside a transaction.
func Get(r store.Reader, id innate.ResourceID) (*Resource, bool, error) {
	row, ok, err := rows.Get(r, rowOf(id))
	if err != nil || !ok {
		return nil, false, err
	}
	return &row, true, nil
}

// UsersOf lists the resources that have a user-assigned identity attached, in order of id.
func UsersOf(r store.Reader, identity innate.ResourceID) []innate.ResourceID {
	return referring(r, identity)
}

// SitesOn lists the sites of a plan, in order of id.
func SitesOn(r store.Reader, plan innate.ResourceID) []innate.ResourceID { return referring(r, plan) }

// referring lists the resources that refer to id.
func referring(r store.Reader, id innate.ResourceID) []innate.ResourceID {
	var all []innate.ResourceID
	for _, user := range referrers.All(r, referrersOf(id), "") {
		all = append(all, user)
	}
	return all
}

// putRow writes now's row and those of its references; old is nil at creation.
func putRow(tx store.Tx, old, now *Resource) error {
	if old != nil {
		dropReferences(tx, old)
	}
	for _, to := range now.references() {
		if err := referrers.Put(tx, referrersOf(to)+rowOf(now.ID), now.ID); err != nil {
			return err
		}
	}
	return rows.Put(tx, rowOf(now.ID), *now)
}

func dropReferences(tx store.Tx, r *Resource) {
	for _, to := range r.references() {
		referrers.Delete(tx, referrersOf(to)+rowOf(r.ID))
	}
}
