package resources

import (
	"context"
	"strings"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// Delete removes a resource and, in the same transaction, all that lived with
// it: its identity with its role assignments and keys, the assignments at it,
// what others hang on it, and every reference to it. A group goes with all that
// is in it. Absent is a *rest.Error of status 404, after the right to delete.
func (s *Resources) Delete(ctx context.Context, who innate.Principal, id innate.ResourceID) error {
	return s.delete(ctx, who, id, conditions{})
}

func (s *Resources) delete(ctx context.Context, who innate.Principal, id innate.ResourceID, when conditions) error {
	k, err := writable(id.Type())
	if err != nil {
		return err
	}
	if err := s.config.Access.Require(ctx, who, access.Control(k.action("delete")), id.Scope()); err != nil {
		return err
	}
	if err := s.config.DB.Sync(ctx); err != nil {
		return err
	}
	_, err = s.config.DB.Update(ctx, func(tx store.Tx) error {
		gone, ok, err := Get(tx, id)
		if err != nil {
			return err
		}
		if err := when.check(gone); err != nil {
			return err
		}
		if !ok {
			return notFound(id)
		}
		for _, inside := range within(tx, gone) {
			if err := s.removeInside(ctx, tx, who, inside); err != nil {
				return err
			}
		}
		return s.remove(ctx, tx, who, gone)
	})
	return err
}

// within lists what is in a group, in order of id; nothing is in anything else.
func within(tx store.Tx, r *Resource) []innate.ResourceID {
	if !r.ID.Is(TypeGroup) {
		return nil
	}
	var all []innate.ResourceID
	for _, inside := range rows.All(tx, rowOf(r.ID)+"/", "") {
		all = append(all, inside.ID)
	}
	return all
}

// removeInside removes a resource of a group that is going. Its row is read
// again, since an earlier one that went may have been taken out of it.
func (s *Resources) removeInside(ctx context.Context, tx store.Tx, who innate.Principal, id innate.ResourceID) error {
	gone, _, err := Get(tx, id)
	if err != nil {
		return err
	}
	return s.remove(ctx, tx, who, gone)
}

// remove removes one resource in which nothing is left. What goes with its
// group needs no right of its own.
func (s *Resources) remove(ctx context.Context, tx store.Tx, who innate.Principal, gone *Resource) error {
	k, err := writable(gone.ID.Type())
	if err != nil {
		return err
	}
	for _, hook := range s.config.OnDelete {
		if err := hook(tx, gone); err != nil {
			return err
		}
	}
	if own := gone.Identity.System; own != nil {
		if err := s.config.Directory.DeleteObject(tx, own.Principal); err != nil {
			return err
		}
	}
	if err := access.DeleteAt(tx, gone.ID.Scope()); err != nil {
		return err
	}
	switch {
	case gone.ID.Is(TypeVault):
		if err := s.putAway(tx, gone); err != nil {
			return err
		}
	case gone.ID.Is(TypePostgres):
		postgresNames.Delete(tx, strings.ToLower(gone.ID.Name()))
	}
	dropReferences(tx, gone)
	rows.Delete(tx, rowOf(gone.ID))
	for _, id := range referring(tx, gone.ID) {
		if err := s.forget(ctx, tx, who, id, gone.ID); err != nil {
			return err
		}
	}
	ev := s.event(ctx, who, k.action("delete"), gone.ID)
	if own := gone.Identity.System; own != nil {
		ev.Detail = map[string]string{"identityOff": string(own.Principal)}
	}
	return audit.Leave(tx, ev)
}

// forget takes a resource that is gone out of one that refers to it. Azure
// leaves the reference, to be found by whoever takes the name next.
func (s *Resources) forget(ctx context.Context, tx store.Tx, who innate.Principal, id, gone innate.ResourceID) error {
	old, ok, err := Get(tx, id)
	if err != nil || !ok {
		return err
	}
	now := *old
	now.Changed = s.config.Now().UTC()
	now.Identity.User = without(old.Identity.User, gone)
	now.Properties = merge(old.Properties, nil) // a copy
	if old.Host().Equal(gone) {
		delete(now.Properties, propHost)
	}
	if old.Plan().Equal(gone) {
		delete(now.Properties, propPlan)
	}
	if workers := old.Workers(); len(workers) > 0 {
		keep(&now, propWorkers, without(workers, gone))
	}
	if err := s.put(tx, old, &now); err != nil {
		return err
	}
	k, err := writable(id.Type())
	if err != nil {
		return err
	}
	ev := s.written(ctx, who, change{kind: k}, old, &now)
	ev.Why = "deleted with it: " + string(gone)
	return audit.Leave(tx, ev)
}

// conditions are If-Match and If-None-Match (RFC 9110 §13.1).
type conditions struct{ match, noneMatch string }

// check refuses with 412; r is nil when there is none.
func (c conditions) check(r *Resource) error {
	if c == (conditions{}) {
		return nil
	}
	tag := ""
	if r != nil {
		var err error
		if tag, err = r.etag(); err != nil {
			return err
		}
	}
	switch {
	case c.match != "" && !among(c.match, tag):
		return rest.Errorf(412, "PreconditionFailed", "If-Match: the resource is not, or no longer, %s", c.match)
	case c.noneMatch != "" && among(c.noneMatch, tag):
		return rest.Errorf(412, "PreconditionFailed", "If-None-Match: the resource is there already as %s", tag)
	}
	return nil
}

// among reports whether a list of entity tags has tag; an empty tag is in none.
func among(list, tag string) bool {
	if tag == "" {
		return false
	}
	for t := range strings.SplitSeq(list, ",") {
		if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == "*" || t == tag {
			return true
		}
	}
	return false
}
