package resources

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// A change is a PUT or PATCH of one resource.
type change struct {
	id    innate.ResourceID
	kind  *kind
	body  body
	patch bool
	when  conditions
}

// A need is a right at another resource that a change takes, beside write at its own.
type need struct {
	action string
	at     innate.ResourceID
}

// The rights at what a resource is put on or given (design §5).
const (
	placeAction  = "Microsoft.HybridCompute/machines/place/action"
	joinAction   = "Microsoft.Web/serverfarms/join/action"
	assignAction = "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action"
	grantAction  = "Microsoft.Authorization/roleAssignments/write"
)

// needs lists the rights that it takes to make old into now: placing on a
// machine, joining a plan and using an identity are for those who may, however
// much they may do at the resource itself. old is nil at creation.
func needs(old, now *Resource) []need {
	before := &Resource{}
	if old != nil {
		before = old
	}
	var all []need
	if host := now.Host(); host != "" && !host.Equal(before.Host()) {
		all = append(all, need{placeAction, host})
	}
	if plan := now.Plan(); plan != "" && !plan.Equal(before.Plan()) {
		all = append(all, need{joinAction, plan})
	}
	for _, machine := range added(before.Workers(), now.Workers()) {
		all = append(all, need{placeAction, machine})
	}
	for _, id := range added(before.Identity.User, now.Identity.User) {
		all = append(all, need{assignAction, id})
	}
	if old != nil && old.ByPolicy() != now.ByPolicy() {
		all = append(all, need{grantAction, now.ID}) // it takes away what roles grant, or policies
	}
	return all
}

// added is what is in now and not in before.
func added(before, now []innate.ResourceID) []innate.ResourceID {
	return slices.DeleteFunc(slices.Clone(now), func(id innate.ResourceID) bool {
		return slices.ContainsFunc(before, id.Equal)
	})
}

// errUngranted ends a transaction that found out that it takes further rights.
var errUngranted = errors.New("resources: rights to be asked for")

// write makes the change for a caller who may write at the resource. Which
// further rights it takes depends on what is there, and asking for them leaves
// audit events, which a transaction must not: so the transaction gives up,
// naming them, and runs again when they are granted.
func (s *Resources) write(ctx context.Context, who innate.Principal, c change) (now *Resource, created bool, err error) {
	if err := s.config.DB.Sync(ctx); err != nil {
		return nil, false, err
	}
	granted := map[need]bool{}
	for {
		var missing []need
		_, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
			missing = nil
			old, _, err := Get(tx, c.id)
			if err != nil {
				return err
			}
			created = old == nil
			if now, err = s.apply(tx, old, c, func(all []need) error {
				missing = slices.DeleteFunc(all, func(n need) bool { return granted[n] })
				if len(missing) > 0 {
					return errUngranted
				}
				return nil
			}); err != nil {
				return err
			}
			return audit.Leave(tx, s.written(ctx, who, c, old, now))
		})
		if !errors.Is(err, errUngranted) {
			return now, created, err
		}
		for _, n := range missing {
			if err := s.config.Access.Require(ctx, who, access.Control(n.action), n.at.Scope()); err != nil {
				return nil, false, err
			}
			granted[n] = true
		}
	}
}

// apply writes what c makes of old, after grant has agreed to the rights it takes.
func (s *Resources) apply(tx store.Tx, old *Resource, c change, grant func([]need) error) (*Resource, error) {
	now, want, err := s.draft(tx, old, c)
	if err != nil {
		return nil, err
	}
	asked := *now
	asked.Identity.User = want.user
	if err := grant(needs(old, &asked)); err != nil {
		return nil, err
	}
	if err := checkReferences(tx, old, now); err != nil {
		return nil, err
	}
	switch {
	case c.kind.identities:
		err = s.setIdentities(tx, now, want)
	case c.kind.name == TypeIdentity && old == nil:
		err = s.giveIdentity(tx, now, true)
	case c.kind.name == TypeVault && old == nil:
		err = takeVaultName(tx, now.ID, c.recovers())
	case c.kind.name == TypePostgres && old == nil:
		err = takePostgresName(tx, now.ID)
	}
	if err != nil {
		return nil, err
	}
	return now, s.put(tx, old, now)
}

// draft is the resource as c wants it, checked as far as it goes without a look
// at other resources, and the identities that it shall have.
func (s *Resources) draft(tx store.Tx, old *Resource, c change) (*Resource, wanted, error) {
	if err := c.when.check(old); err != nil {
		return nil, wanted{}, err
	}
	now, err := s.begin(tx, old, c)
	if err != nil {
		return nil, wanted{}, err
	}
	switch {
	case c.patch:
		c.body.patch(now)
	case old != nil || !c.recovers(): // what is recovered comes back as it was
		c.body.put(now, c.kind)
	}
	delete(now.Properties, propCreateMode)
	if old != nil && c.kind.settle != nil {
		if err := c.kind.settle(old, now); err != nil {
			return nil, wanted{}, err
		}
	}
	if c.kind.check != nil {
		if err := c.kind.check(s, now); err != nil {
			return nil, wanted{}, err
		}
	}
	want, err := c.body.identity.applyTo(now.Identity, c.patch)
	if err != nil {
		return nil, wanted{}, err
	}
	if old == nil && c.kind.ownAtBirth && c.body.identity == nil {
		want.system = true
	}
	if !c.kind.identities && c.body.identity != nil && (want.system || len(want.user) > 0) {
		return nil, wanted{}, badIdentity("a %s cannot have one", c.kind.name)
	}
	return now, want, nil
}

// begin is a copy of old to be changed, or a new resource.
func (s *Resources) begin(tx store.Tx, old *Resource, c change) (*Resource, error) {
	clock := s.config.Now().UTC()
	if old != nil {
		if l := c.body.location; l != nil && plainLocation(*l) != plainLocation(old.Location) {
			return nil, rest.Errorf(http.StatusConflict, "InvalidResourceLocation",
				"%s is in %s and cannot move to %s: delete it and create it there", old.ID, old.Location, *l)
		}
		now := *old
		now.Changed = clock
		return &now, nil
	}
	if c.patch {
		return nil, notFound(c.id)
	}
	if c.recovers() {
		return s.recovered(tx, c.id)
	}
	now := &Resource{ID: c.id, Location: "local", Created: clock, Changed: clock}
	parent, err := parentOf(tx, c.id)
	if err != nil {
		return nil, err
	}
	if parent != nil { // in the group, and as the group is spelled
		now.ID = parent.ID + c.id[len(parent.ID):]
		now.Location = parent.Location
	}
	if l := c.body.location; l != nil && *l != "" {
		now.Location = *l
	}
	if c.kind.create != nil {
		c.kind.create(now)
	}
	return now, nil
}

// plainLocation is a location in the form that compares: Azure takes West Europe for westeurope.
func plainLocation(l string) string { return strings.ToLower(strings.ReplaceAll(l, " ", "")) }

// parentOf is the group that id would be in, or nil for a group itself, whose
// subscription must be there.
func parentOf(tx store.Tx, id innate.ResourceID) (*Resource, error) {
	if !id.Is(TypeGroup) {
		group, ok, err := Get(tx, groupOf(id))
		if err == nil && !ok {
			err = rest.Errorf(http.StatusNotFound, "ResourceGroupNotFound",
				"there is no resource group %s: create it first", id.Group())
		}
		return group, err
	}
	_, ok, err := subscriptions.Get(tx, id.Subscription())
	if err == nil && !ok {
		err = noSubscription(id.Subscription())
	}
	return nil, err
}

func groupOf(id innate.ResourceID) innate.ResourceID {
	return innate.ResourceID("/subscriptions/" + id.Subscription() + "/resourceGroups/" + id.Group())
}

// codeNoResource tells a missing resource from a missing group.
const codeNoResource = "ResourceNotFound"

func notFound(id innate.ResourceID) error {
	if id.Is(TypeGroup) {
		return rest.Errorf(http.StatusNotFound, "ResourceGroupNotFound", "there is no resource group %s", id.Group())
	}
	return rest.Errorf(http.StatusNotFound, codeNoResource, "there is no %s", id)
}

func noSubscription(id string) error {
	return rest.Errorf(http.StatusNotFound, "SubscriptionNotFound", "there is no subscription %s", id)
}

// checkReferences refuses a new reference to a machine or plan that is not there.
func checkReferences(tx store.Tx, old, now *Resource) error {
	for _, n := range needs(old, now) {
		_, ok, err := Get(tx, n.at)
		if err != nil {
			return err
		}
		if !ok {
			return rest.Errorf(http.StatusBadRequest, "InvalidParameter", "properties: there is no %s", n.at)
		}
	}
	return nil
}

// put writes a row and runs the hooks.
func (s *Resources) put(tx store.Tx, old, now *Resource) error {
	row, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("row of %s: %w", now.ID, err)
	}
	if len(row) > maxResource {
		return rest.Errorf(http.StatusRequestEntityTooLarge, "ResourceTooLarge",
			"%s would take %d bytes: want at most %d", now.ID, len(row), maxResource)
	}
	if err := putRow(tx, old, now); err != nil {
		return err
	}
	for _, hook := range s.config.OnWrite {
		if err := hook(tx, old, now); err != nil {
			return err
		}
	}
	return nil
}

// written is the record of a change: what became of the identities, and no
// property's value.
func (s *Resources) written(ctx context.Context, who innate.Principal, c change, old, now *Resource) audit.Event {
	ev := s.event(ctx, who, c.kind.action("write"), now.ID)
	ev.Detail = map[string]string{"change": "updated"}
	before := &Resource{}
	if old == nil {
		ev.Detail["change"] = "created"
	} else {
		before = old
	}
	if i := now.Identity.System; i != nil && (before.Identity.System == nil || *before.Identity.System != *i) {
		ev.Detail["identityOn"] = string(i.Principal)
	}
	if i := before.Identity.System; i != nil && now.Identity.System == nil {
		ev.Detail["identityOff"] = string(i.Principal)
	}
	note(ev.Detail, "attached", added(before.Identity.User, now.Identity.User))
	note(ev.Detail, "detached", added(now.Identity.User, before.Identity.User))
	if !slices.EqualFunc(before.policies(), now.policies(), accessPolicy.equal) {
		ev.Detail["accessPolicies"] = "changed"
	}
	note(ev.Detail, "placedOn", added(before.places(), now.places()))
	note(ev.Detail, "takenFrom", added(now.places(), before.places()))
	return ev
}

// places are the machines and the plan that r is on.
func (r *Resource) places() []innate.ResourceID {
	return slices.DeleteFunc(append(r.Workers(), r.Host(), r.Plan()), func(id innate.ResourceID) bool { return id == "" })
}

// note puts ids into a record, if there are any.
func note(detail map[string]string, name string, ids []innate.ResourceID) {
	if len(ids) == 0 {
		return
	}
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = string(id)
	}
	detail[name] = strings.Join(words, " ")
}
