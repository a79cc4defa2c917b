package access

import (
	"iter"
	"slices"
	"strings"
	"sync"

	"innate"
	"innate/store"
)

// An index is the roles and assignments in memory, kept by the store in the
// order of its commits. What it points to is never modified.
type index struct {
	mu       sync.RWMutex
	rules    map[string]*rule            // role id
	rows     map[string]*Assignment      // by its row
	held     map[innate.ObjectID]holding // what a principal has
	verdicts map[Action]map[string]*rule // the roles that allow an action; emptied by every change of a role
}

// maxVerdicts bounds the remembered actions: ours are a few dozen, but anybody
// may ask checkAccess about any word.
const maxVerdicts = 1024

func newIndex(db *store.DB) *index {
	x := &index{
		rules:    map[string]*rule{},
		rows:     map[string]*Assignment{},
		held:     map[innate.ObjectID]holding{},
		verdicts: map[Action]map[string]*rule{},
	}
	for _, r := range builtIn {
		x.rules[r.ID] = newRule(r)
	}
	customRoles.Index(db, x.role)
	assignments.Index(db, x.assignment)
	return x
}

func (x *index) role(id string, r *Role) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r == nil {
		delete(x.rules, id)
	} else {
		x.rules[id] = newRule(*r)
	}
	clear(x.verdicts)
}

func (x *index) assignment(row string, as *Assignment) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old, ok := x.rows[row]; ok {
		h := x.held[old.Principal]
		if h.remove(old) {
			delete(x.held, old.Principal)
		} else {
			x.held[old.Principal] = h
		}
		delete(x.rows, row)
	}
	if as == nil {
		return
	}
	if r, ok := x.rules[as.Role]; ok {
		as.Role = r.ID // one text for all that have the role
	}
	x.rows[row] = as
	h := x.held[as.Principal]
	h.add(grant{as.Scope, as.Role, as.ID, as.Minimum})
	x.held[as.Principal] = h
}

// allowing finds a grant of id that reaches a scope and allows do to whoever is
// proved so surely, and the name of its role.
func (x *index) allowing(id innate.ObjectID, do Action, at innate.Scope, proof innate.Assurance) (grant, string, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	roles, known := x.verdicts[do]
	if !known {
		roles = x.judge(do)
	}
	h, ok := x.held[id]
	if !ok {
		return grant{}, "", false
	}
	for g := range h.reaching(at) {
		if r, ok := roles[g.role]; ok && g.minimum <= proof {
			return *g, r.Name, true
		}
	}
	return grant{}, "", false
}

// judge finds the roles that allow do and remembers them. It is called with mu
// held for reading, and returns with it so.
func (x *index) judge(do Action) map[string]*rule {
	x.mu.RUnlock()
	x.mu.Lock()
	roles := map[string]*rule{}
	for id, r := range x.rules {
		if r.allows(do) {
			roles[id] = r
		}
	}
	if len(x.verdicts) < maxVerdicts {
		x.verdicts[do] = roles
	}
	x.mu.Unlock()
	x.mu.RLock()
	return roles
}

// smallest is the name of the first built-in role that allows do, or empty.
func (x *index) smallest(do Action) string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, r := range builtIn {
		if x.rules[r.ID].allows(do) {
			return r.Name
		}
	}
	return ""
}

// reaching names the roles that any of ids has at a scope when proved so surely,
// each once.
func (x *index) reaching(ids []innate.ObjectID, at innate.Scope, proof innate.Assurance) (names []string) {
	for r := range x.roles(ids, at, proof) {
		if !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
	}
	return names
}

// roles yields the roles that any of ids has at a scope when proved so surely.
func (x *index) roles(ids []innate.ObjectID, at innate.Scope, proof innate.Assurance) iter.Seq[Role] {
	return func(yield func(Role) bool) {
		x.mu.RLock()
		defer x.mu.RUnlock()
		for _, id := range ids {
			h, ok := x.held[id]
			if !ok {
				continue
			}
			for g := range h.reaching(at) {
				if r, ok := x.rules[g.role]; ok && g.minimum <= proof && !yield(r.Role) {
					return
				}
			}
		}
	}
}

// touches reports whether any of ids has anything at a scope, above it or below
// it, when proved so surely.
func (x *index) touches(ids []innate.ObjectID, at innate.Scope, proof innate.Assurance) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, id := range ids {
		if h, ok := x.held[id]; ok && h.touches(at, proof) {
			return true
		}
	}
	return false
}

// get reads one assignment.
func (x *index) get(row string) (Assignment, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	as, ok := x.rows[row]
	if !ok {
		return Assignment{}, false
	}
	return *as, true
}

// around lists the assignments at a scope, above and below it, in order of row.
func (x *index) around(at innate.Scope) []*Assignment {
	x.mu.RLock()
	var found []*Assignment
	for _, as := range x.rows {
		if related(as.Scope, at) {
			found = append(found, as)
		}
	}
	x.mu.RUnlock()
	slices.SortFunc(found, func(a, b *Assignment) int { return strings.Compare(a.row(), b.row()) })
	return found
}

// definitions lists the roles, the built-in ones in their order first.
func (x *index) definitions() (all []Role) {
	x.mu.RLock()
	for _, r := range x.rules {
		if !r.BuiltIn {
			all = append(all, r.Role)
		}
	}
	x.mu.RUnlock()
	slices.SortFunc(all, func(a, b Role) int { return strings.Compare(a.ID, b.ID) })
	return append(slices.Clone(builtIn), all...)
}

// definition reads one role.
func (x *index) definition(id string) (Role, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r, ok := x.rules[id]
	if !ok {
		return Role{}, false
	}
	return r.Role, true
}
