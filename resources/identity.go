package resources

import (
	"net/http"
	"slices"
	"strings"

	"innate"
	"innate/directory"
	"innate/rest"
	"innate/store"
)

// The words of identity.type.
const (
	systemAssigned = "SystemAssigned"
	userAssigned   = "UserAssigned"
	noIdentity     = "None"
)

// An identityBlock is the identity that a PUT or PATCH asks for (control-plane §3.6).
type identityBlock struct {
	null bool // "identity": null

	Type *string              `json:"type"`
	User map[string]*struct{} `json:"userAssignedIdentities"` // null takes the identity away
}

// identityType is a parsed identity.type.
type identityType struct{ system, user bool }

func parseIdentityType(s string) (t identityType, err error) {
	none := false
	for word := range strings.SplitSeq(s, ",") {
		switch word = strings.TrimSpace(word); {
		case strings.EqualFold(word, systemAssigned):
			t.system = true
		case strings.EqualFold(word, userAssigned):
			t.user = true
		case strings.EqualFold(word, noIdentity):
			none = true
		default:
			return t, badIdentity("type %q: want None, SystemAssigned, UserAssigned, or \"SystemAssigned, UserAssigned\"", s)
		}
	}
	if none && (t.system || t.user) {
		return t, badIdentity("type %q: None stands alone", s)
	}
	return t, nil
}

func badIdentity(format string, args ...any) error {
	e := rest.Errorf(http.StatusBadRequest, "InvalidIdentity", format, args...)
	e.Message, e.Target = "identity: "+e.Message, "identity"
	return e
}

// A wanted is what a resource's identities shall be.
type wanted struct {
	system bool
	user   []innate.ResourceID
}

func (i Identity) wanted() wanted { return wanted{i.System != nil, i.User} }

// applyTo says what b makes of the identities there are: a PUT names all that
// shall be, a PATCH what changes. In both, a type with UserAssigned and no names
// leaves those there are: that is how SDKs turn the other one on and off.
func (b *identityBlock) applyTo(now Identity, patch bool) (wanted, error) {
	w := now.wanted()
	switch {
	case b == nil, b.null && !patch:
		return w, nil
	case b.null:
		return wanted{}, nil
	case b.Type == nil && !patch:
		return w, badIdentity("type is missing")
	}
	t := identityType{w.system, len(w.user) > 0 || len(b.User) > 0}
	if b.Type != nil {
		var err error
		if t, err = parseIdentityType(*b.Type); err != nil {
			return w, err
		}
	}
	add, remove, err := b.named()
	if err != nil {
		return w, err
	}
	if !t.user && len(add) > 0 {
		return w, badIdentity("userAssignedIdentities names identities, and type has no UserAssigned")
	}
	w.system = t.system
	if !t.user {
		w.user = nil
		return w, nil
	}
	if !patch && len(b.User) > 0 {
		w.user = stayed(w.user, add)
	}
	for _, id := range remove {
		w.user = without(w.user, id)
	}
	for _, id := range add {
		w.user = with(w.user, id)
	}
	if b.Type != nil && len(w.user) == 0 && len(remove) == 0 {
		return w, badIdentity("type has UserAssigned, and userAssignedIdentities names no identity")
	}
	return w, nil
}

// stayed is those of now that are named again, in the order in which they were attached.
func stayed(now, named []innate.ResourceID) []innate.ResourceID {
	var out []innate.ResourceID
	for _, id := range now {
		if slices.ContainsFunc(named, id.Equal) {
			out = append(out, id)
		}
	}
	return out
}

// named reads the map's keys, in order of id: JSON's order says nothing.
func (b *identityBlock) named() (add, remove []innate.ResourceID, err error) {
	for key, value := range b.User {
		id, err := innate.ParseResourceID(key)
		if err != nil {
			return nil, nil, badIdentity("%v", err)
		}
		if !id.Is(TypeIdentity) {
			return nil, nil, badIdentity("%s is not a %s", id, TypeIdentity)
		}
		if value == nil {
			remove = append(remove, id)
		} else {
			add = append(add, id)
		}
	}
	slices.Sort(add)
	for _, id := range remove {
		if slices.ContainsFunc(add, id.Equal) {
			return nil, nil, badIdentity("%s is both added and removed", id)
		}
	}
	return add, remove, nil
}

// setIdentities makes now's identities the wanted ones: its own is created, or
// deleted with its role assignments; those of others are attached under the ids
// by which they are stored.
func (s *Resources) setIdentities(tx store.Tx, now *Resource, w wanted) error {
	switch {
	case w.system && now.Identity.System == nil:
		if err := s.giveIdentity(tx, now, false); err != nil {
			return err
		}
	case !w.system && now.Identity.System != nil:
		if err := s.config.Directory.DeleteObject(tx, now.Identity.System.Principal); err != nil {
			return err
		}
		now.Identity.System = nil
	}
	now.Identity.User = nil
	for _, id := range w.user {
		shared, ok, err := Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return rest.Errorf(http.StatusBadRequest, "FailedIdentityOperation", "identity: there is no %s", id)
		}
		now.Identity.User = append(now.Identity.User, shared.ID)
	}
	return nil
}

// giveIdentity creates the principal of now's own identity.
func (s *Resources) giveIdentity(tx store.Tx, now *Resource, shared bool) error {
	o, err := directory.CreateIdentity(tx, now.ID.Name(), now.ID, shared, s.config.Now())
	if err != nil {
		return err
	}
	now.Identity.System = &Assigned{Principal: o.ID, Client: o.Client}
	return nil
}

// identityShape is the identity block as ARM shows it.
type identityShape struct {
	Type        string              `json:"type"`
	PrincipalID innate.ObjectID     `json:"principalId,omitempty"`
	TenantID    innate.TenantID     `json:"tenantId,omitempty"`
	User        map[string]Assigned `json:"userAssignedIdentities,omitempty"`
}

func (s *Resources) showIdentity(i Identity) *identityShape {
	if i.System == nil && len(i.User) == 0 {
		return nil
	}
	var words []string
	shape := &identityShape{}
	if i.System != nil {
		words = append(words, systemAssigned)
		shape.PrincipalID, shape.TenantID = i.System.Principal, s.config.Tenant
	}
	if len(i.User) > 0 {
		words = append(words, userAssigned)
		shape.User = map[string]Assigned{}
	}
	for _, id := range i.User {
		if shared, ok := s.index.find(id); ok && shared.Identity.System != nil {
			shape.User[string(id)] = *shared.Identity.System
		}
	}
	shape.Type = strings.Join(words, ", ")
	return shape
}
