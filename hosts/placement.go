package hosts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/directory"
	"innate/feed"
	"innate/feed/client"
	"innate/resources"
	"innate/rest"
	"innate/store"
)

// What a host is told is a range of rows, so that "only what is placed on it" is
// a property of a prefix: under told(machine) there is a row for each resource
// placed there, and one for each identity whose tokens it must forget.

// maxRow bounds a placement, in bytes: what a feed's reader takes as one event is 1 MiB.
const maxRow = 960 << 10

// told begins the rows of a machine. No id has a doubled slash, so that no
// machine's prefix begins another's.
func told(machine innate.ResourceID) string { return "hosts/placed" + machine.Key() + "//" }

func placementKey(machine, resource innate.ResourceID) string {
	return told(machine) + strings.TrimPrefix(resource.Key(), "/")
}

// revokedKey is below no resource's: ids begin with subscriptions.
func revokedKey(machine innate.ResourceID, id innate.ObjectID) string {
	return told(machine) + "revoked/" + string(client.RevokedIdentity) + "/" + string(id)
}

// places says, by resource key, on which machines a resource has a row, so that
// it can be taken off them whatever has become of the plan that put it there.
const places store.Table[[]innate.ResourceID] = "hosts/places/"

// Placed brings the rows up to date after a resource was written; old is nil at
// its creation. It is one of resources.Config.OnWrite.
func (h *Hosts) Placed(tx store.Tx, _, now *resources.Resource) error {
	switch {
	case now.ID.Is(resources.TypeMachine): // a machine's own identity is used on itself
		return h.place(tx, now, now.ID)
	case now.ID.Is(resources.TypeVM):
		return h.place(tx, now, now.Host())
	case now.ID.Is(resources.TypeSite):
		workers, err := workersOf(tx, now.Plan())
		if err != nil {
			return err
		}
		return h.place(tx, now, workers...)
	case now.ID.Is(resources.TypePlan):
		return h.placeSites(tx, now.ID, now.Workers())
	}
	return nil
}

// Gone takes a resource off its machines before it is removed; a machine takes
// with it whatever was placed on it. It is one of resources.Config.OnDelete.
func (h *Hosts) Gone(tx store.Tx, gone *resources.Resource) error {
	switch {
	case gone.ID.Is(resources.TypePlan):
		return h.placeSites(tx, gone.ID, nil)
	case gone.ID.Is(resources.TypeMachine):
		return h.removeMachine(tx, gone.ID)
	case gone.ID.Is(resources.TypeVM):
		scheduled.Delete(tx, gone.ID.Key())
	}
	return h.place(tx, gone)
}

// Forget tells the hosts on which an identity is used to throw away the tokens
// that they keep of it, since it was disabled, or enabled again after that. It
// is one of directory.Config.OnEnable.
func (h *Hosts) Forget(tx store.Tx, o directory.Object) error {
	if o.Kind != directory.ManagedIdentity {
		return nil
	}
	now := h.config.Now()
	row, err := json.Marshal(client.Revocation{
		Kind: client.RevokedIdentity, ID: string(o.ID), Before: now, Until: now.Add(longestToken),
	})
	if err != nil {
		return err
	}
	for _, user := range holders(tx, o) {
		machines, _, err := places.Get(tx, user.Key())
		if err != nil {
			return err
		}
		for _, m := range machines {
			tx.Put(revokedKey(m, o.ID), row)
		}
	}
	return nil
}

func workersOf(r store.Reader, plan innate.ResourceID) ([]innate.ResourceID, error) {
	if plan == "" {
		return nil, nil
	}
	p, ok, err := resources.Get(r, plan)
	if err != nil || !ok {
		return nil, err
	}
	return p.Workers(), nil
}

func (h *Hosts) placeSites(tx store.Tx, plan innate.ResourceID, workers []innate.ResourceID) error {
	for _, id := range resources.SitesOn(tx, plan) {
		site, ok, err := resources.Get(tx, id)
		if err != nil {
			return err
		}
		if ok {
			if err := h.place(tx, site, workers...); err != nil {
				return err
			}
		}
	}
	return nil
}

// place makes the rows of r those of exactly these machines.
func (h *Hosts) place(tx store.Tx, r *resources.Resource, machines ...innate.ResourceID) error {
	before, _, err := places.Get(tx, r.ID.Key())
	if err != nil {
		return err
	}
	var after []innate.ResourceID
	for _, m := range machines {
		if m == "" || contains(after, m) {
			continue
		}
		if _, ok, err := resources.Get(tx, m); err != nil {
			return err
		} else if ok {
			after = append(after, m)
		}
	}
	for _, m := range before {
		if !contains(after, m) {
			if err := h.remove(tx, m, r.ID); err != nil {
				return err
			}
		}
	}
	if len(after) == 0 {
		if len(before) > 0 {
			places.Delete(tx, r.ID.Key())
		}
		return nil
	}
	row, err := h.placement(tx, r)
	if err != nil {
		return err
	}
	for _, m := range after {
		if err := h.tell(tx, m, row); err != nil {
			return err
		}
	}
	if slices.Equal(before, after) {
		return nil
	}
	return places.Put(tx, r.ID.Key(), after)
}

// remove takes a resource off a machine, and from the machine the certificates
// of the identities that it held for it; the tokens issued to it there end.
func (h *Hosts) remove(tx store.Tx, machine, resource innate.ResourceID) error {
	p, _, err := placedOn(tx, machine, resource)
	if err != nil {
		return err
	}
	tx.Delete(placementKey(machine, resource))
	if err := h.dropKeys(tx, machine, p); err != nil {
		return err
	}
	return feed.Revoke(tx, client.RevokedPlacement, client.PlacementID(resource, machine), h.config.Now(), longestToken)
}

// dropKeys takes from a machine the certificates of the identities of p, one
// identity after the other: the directory's keys are many, a machine's few.
func (h *Hosts) dropKeys(tx store.Tx, machine innate.ResourceID, p client.Placement) error {
	for _, id := range p.Identities {
		if err := directory.DropKeys(tx, id.Object, p.Resource, machine); err != nil {
			return err
		}
		if err := h.config.Displace(tx, client.DatabasePlace{Object: id.Object, Hosting: p.Resource, Host: machine}); err != nil {
			return err
		}
	}
	return nil
}

// placedOn reads a placement's row.
func placedOn(r store.Reader, machine, resource innate.ResourceID) (p client.Placement, ok bool, err error) {
	row, ok := r.Get(placementKey(machine, resource))
	if !ok {
		return p, false, nil
	}
	if err := json.Unmarshal(row, &p); err != nil {
		return p, false, fmt.Errorf("placement of %s on %s: %w", resource, machine, err)
	}
	return p, true, nil
}

// placedAll reads the rows of all that is placed on a machine, in order of id.
func placedAll(r store.Reader, machine innate.ResourceID) ([]client.Placement, error) {
	var all []client.Placement
	for key, row := range r.Scan(told(machine)+"subscriptions/", "") {
		var p client.Placement
		if err := json.Unmarshal(row, &p); err != nil {
			return nil, fmt.Errorf("placement %s: %w", key, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// tell writes p's row on a machine, if it says something new, and drops the
// certificates of identities that p has no longer.
func (h *Hosts) tell(tx store.Tx, machine innate.ResourceID, p client.Placement) error {
	// Places are made here, before there are certificates for them: the first one
	// finds its server's gateway to have heard.
	p.Logins = slices.Clone(p.Logins)
	for i, l := range p.Logins {
		if !l.Certificate {
			continue
		}
		place, err := h.config.Place(tx, l.Server, client.DatabasePlace{Object: l.Identity, Hosting: p.Resource, Host: machine})
		if err != nil {
			return err
		}
		p.Logins[i].Place = place
	}
	row, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if len(row) > maxRow {
		return rest.Errorf(http.StatusRequestEntityTooLarge, "PlacementTooLarge",
			"what %s has to be told of %s would take %d bytes, and at most %d can be: let its identities log in at fewer servers, or as fewer roles", machine.Name(), p.Resource, len(row), maxRow)
	}
	key := placementKey(machine, p.Resource)
	if old, ok := tx.Get(key); ok && bytes.Equal(old, row) {
		return nil
	}
	was, _, err := placedOn(tx, machine, p.Resource)
	if err != nil {
		return err
	}
	was.Identities = slices.DeleteFunc(was.Identities, func(id client.Identity) bool { return holds(p, id.Object) })
	if err := h.dropKeys(tx, machine, was); err != nil {
		return err
	}
	tx.Put(key, row)
	return nil
}

// placement is what a host may know of r.
func (h *Hosts) placement(r store.Reader, res *resources.Resource) (client.Placement, error) {
	p := client.Placement{
		Resource: res.ID, Type: res.ID.Type(), Name: res.ID.Name(), Kind: res.Kind, Location: res.Location, Tags: res.Tags,
		VMID: res.VMID(), Settings: res.Settings, SecretsIdentity: res.SecretsIdentity(), RunAs: res.RunAs(),
		MinimumAssurance: res.MinimumAssurance(),
		HealthCheck:      res.HealthCheck(), ConsoleFor: res.ConsoleFor(), MaxGenerationAge: res.MaxGenerationAge(),
	}
	if res.ID.Is(resources.TypeVM) {
		p.Instance = instance(res)
		s, ok, err := scheduled.Get(r, res.ID.Key())
		if err != nil {
			return p, err
		}
		if ok {
			p.Scheduled = &s
		}
	}
	if s := res.Identity.System; s != nil {
		p.Identities = append(p.Identities, client.Identity{Object: s.Principal, Client: s.Client, Resource: res.ID, System: true})
	}
	for _, id := range res.Identity.User {
		shared, ok, err := resources.Get(r, id)
		if err != nil {
			return p, err
		}
		if !ok || shared.Identity.System == nil {
			continue // it is being deleted: its users are rewritten in the same transaction
		}
		s := shared.Identity.System
		p.Identities = append(p.Identities, client.Identity{Object: s.Principal, Client: s.Client, Resource: shared.ID})
	}
	for _, id := range p.Identities {
		logins, err := h.config.Logins(r, id.Object)
		if err != nil {
			return p, err
		}
		p.Logins = append(p.Logins, logins...)
	}
	return p, nil
}

// removeMachine ends a machine: no certificate of it or of an identity on it is
// good any more, no token issued on it either, and nothing is placed on it.
func (h *Hosts) removeMachine(tx store.Tx, machine innate.ResourceID) error {
	if err := h.shutOut(tx, machine); err != nil {
		return err
	}
	m, _, err := members.Get(tx, machine.Key())
	if err != nil {
		return err
	}
	unbind(tx, &m)
	members.Delete(tx, machine.Key())
	shipped.Delete(tx, machine.Key())
	placed, err := placedAll(tx, machine)
	if err != nil {
		return err
	}
	for _, p := range placed {
		machines, _, err := places.Get(tx, p.Resource.Key())
		if err != nil {
			return err
		}
		if machines = slices.DeleteFunc(machines, machine.Equal); len(machines) == 0 {
			places.Delete(tx, p.Resource.Key())
		} else if err := places.Put(tx, p.Resource.Key(), machines); err != nil {
			return err
		}
	}
	var rows []string
	for key := range tx.Scan(told(machine), "") {
		rows = append(rows, key)
	}
	for _, key := range rows {
		tx.Delete(key)
	}
	return nil
}

// shutOut ends what a machine holds: the certificates of identities, its join
// token, and every token issued on it.
func (h *Hosts) shutOut(tx store.Tx, machine innate.ResourceID) error {
	m, _, err := members.Get(tx, machine.Key())
	if err != nil {
		return err
	}
	if m.Ticket != "" {
		tickets.Delete(tx, m.Ticket)
	}
	if err := h.dropAllKeys(tx, machine); err != nil {
		return err
	}
	return feed.Revoke(tx, client.RevokedHost, machine.Key(), h.config.Now(), longestToken)
}

// dropAllKeys takes from a machine every certificate of an identity.
func (h *Hosts) dropAllKeys(tx store.Tx, machine innate.ResourceID) error {
	placed, err := placedAll(tx, machine)
	if err != nil {
		return err
	}
	for _, p := range placed {
		if err := h.dropKeys(tx, machine, p); err != nil {
			return err
		}
	}
	return nil
}

func contains(ids []innate.ResourceID, id innate.ResourceID) bool {
	return slices.ContainsFunc(ids, id.Equal)
}

func holds(p client.Placement, id innate.ObjectID) bool {
	return slices.ContainsFunc(p.Identities, func(i client.Identity) bool { return i.Object == id })
}
