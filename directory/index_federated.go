package directory

import (
	"math"
	"slices"
	"strings"

	"innate"
)

// A federatedIndex finds the credentials that an assertion may be of. An exact
// one is found in one step however many there are.
type federatedIndex struct {
	byName   map[innate.ObjectID]map[string]*FederatedCredential // name in lower case
	byID     map[string]*FederatedCredential
	exact    map[federatedKey]*FederatedCredential
	patterns map[innate.ObjectID][]Pattern
	issuers  map[federatedKey]int // how many credentials of a principal name it; the key has no subject
}

type federatedKey struct {
	principal       innate.ObjectID
	issuer, subject string
}

// A Pattern is a federated credential with its expression, read.
type Pattern struct {
	*FederatedCredential
	Expression Expression
}

// Pattern is c with its expression, which for one with a subject says that sub
// equals it. It was read before it was written: ok is false for one that cannot
// be, and which admits nobody.
func (c *FederatedCredential) Pattern() (_ Pattern, ok bool) {
	if c.Matching == "" {
		return Pattern{c, Expression{{Claim: "sub", Want: c.Subject}}}, true
	}
	e, err := ParseExpression(c.Matching)
	return Pattern{c, e}, err == nil
}

func newFederatedIndex() federatedIndex {
	return federatedIndex{
		byName:   map[innate.ObjectID]map[string]*FederatedCredential{},
		byID:     map[string]*FederatedCredential{},
		exact:    map[federatedKey]*FederatedCredential{},
		patterns: map[innate.ObjectID][]Pattern{},
		issuers:  map[federatedKey]int{},
	}
}

func (x *index) federation(row string, c *FederatedCredential) {
	x.mu.Lock()
	defer x.mu.Unlock()
	first, name, _ := strings.Cut(row, "/")
	principal := innate.ObjectID(first)
	if old := x.federated.byName[principal][name]; old != nil {
		x.federated.drop(old, name)
	}
	if c != nil {
		x.federated.add(c, name)
	}
}

func (f *federatedIndex) add(c *FederatedCredential, name string) {
	if f.byName[c.Principal] == nil {
		f.byName[c.Principal] = map[string]*FederatedCredential{}
	}
	f.byName[c.Principal][name] = c
	f.byID[c.ID] = c
	f.issuers[federatedKey{principal: c.Principal, issuer: c.Issuer}]++
	if c.Matching == "" {
		f.exact[federatedKey{c.Principal, c.Issuer, c.Subject}] = c
		return
	}
	if p, ok := c.Pattern(); ok {
		f.patterns[c.Principal] = append(f.patterns[c.Principal], p) // who reads the slice does not see beyond its end
	}
}

func (f *federatedIndex) drop(c *FederatedCredential, name string) {
	if delete(f.byName[c.Principal], name); len(f.byName[c.Principal]) == 0 {
		delete(f.byName, c.Principal)
	}
	delete(f.byID, c.ID)
	named := federatedKey{principal: c.Principal, issuer: c.Issuer}
	if f.issuers[named]--; f.issuers[named] == 0 {
		delete(f.issuers, named)
	}
	if key := (federatedKey{c.Principal, c.Issuer, c.Subject}); f.exact[key] == c { // it may have gone to another name in the same commit
		delete(f.exact, key)
	}
	kept := slices.DeleteFunc(slices.Clone(f.patterns[c.Principal]), func(p Pattern) bool { return p.FederatedCredential == c })
	if len(kept) == 0 {
		delete(f.patterns, c.Principal)
		return
	}
	f.patterns[c.Principal] = kept
}

// FederatedExact returns the credential of principal for exactly that issuer and subject.
func (d *Directory) FederatedExact(principal innate.ObjectID, issuer, subject string) (FederatedCredential, bool) {
	return get(d.index, d.index.federated.exact, federatedKey{principal, issuer, subject})
}

// FederatedPatterns lists the credentials of principal that have an expression. They are shared: do not modify.
func (d *Directory) FederatedPatterns(principal innate.ObjectID) []Pattern {
	d.index.mu.RLock()
	defer d.index.mu.RUnlock()
	return d.index.federated.patterns[principal]
}

// Federated returns a credential of principal by name.
func (d *Directory) Federated(principal innate.ObjectID, name string) (c FederatedCredential, ok bool) {
	d.index.mu.RLock()
	defer d.index.mu.RUnlock()
	p, ok := d.index.federated.byName[principal][strings.ToLower(name)]
	if !ok {
		return c, false
	}
	return *p, true
}

// FederatedSome lists credentials of principal in no order, at most most of
// them. They are shared: do not modify.
func (d *Directory) FederatedSome(principal innate.ObjectID, most int) (some []*FederatedCredential) {
	d.index.mu.RLock()
	defer d.index.mu.RUnlock()
	for _, c := range d.index.federated.byName[principal] {
		if len(some) == most {
			break
		}
		some = append(some, c)
	}
	return some
}

// FederatedOf lists the credentials of principal, by name. They are shared: do not modify.
func (d *Directory) FederatedOf(principal innate.ObjectID) []*FederatedCredential {
	all := d.FederatedSome(principal, math.MaxInt)
	slices.SortFunc(all, func(a, b *FederatedCredential) int {
		return strings.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name))
	})
	return all
}

// Federates reports whether some credential of principal names that issuer:
// only then are its keys worth fetching.
func (d *Directory) Federates(principal innate.ObjectID, issuer string) bool {
	d.index.mu.RLock()
	defer d.index.mu.RUnlock()
	return d.index.federated.issuers[federatedKey{principal: principal, issuer: issuer}] > 0
}

func (x *index) appRole(row string, a *AppRoleAssignment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	parts := strings.Split(row, "/")
	service, holder, role := innate.ObjectID(parts[0]), innate.ObjectID(parts[1]), parts[2]
	kept := slices.DeleteFunc(slices.Clone(x.assigned[service][holder]), func(id string) bool { return id == role })
	if a != nil {
		kept = append(kept, role)
	}
	if len(kept) > 0 {
		if x.assigned[service] == nil {
			x.assigned[service] = map[innate.ObjectID][]string{}
		}
		x.assigned[service][holder] = kept
		return
	}
	if delete(x.assigned[service], holder); len(x.assigned[service]) == 0 {
		delete(x.assigned, service)
	}
}

// appRoles lists the ids of the roles of service that any of holders has.
func (x *index) appRoles(service innate.ObjectID, holders []innate.ObjectID) (ids []string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	held := x.assigned[service]
	if len(held) == 0 {
		return nil
	}
	for _, id := range holders {
		ids = append(ids, held[id]...)
	}
	return ids
}
