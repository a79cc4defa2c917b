package access

import (
	"iter"
	"slices"

	"innate"
)

// A holding is what one principal has. Nearly all have a few grants, which are
// quickest gone through; a map is made for the few that have many.
type holding struct {
	few  []grant
	many map[string][]grant // by scope key, once there are more than fewest
}

const fewest = 16

// A grant is what decides of an assignment, side by side in memory: most of the
// time of a decision among millions is spent waiting for memory.
type grant struct {
	scope   innate.Scope
	role    string // id
	id      string // of the assignment
	minimum innate.Assurance
}

func (h *holding) add(g grant) {
	if h.many == nil && len(h.few) < fewest {
		h.few = append(h.few, g)
		return
	}
	if h.many == nil {
		h.many = map[string][]grant{}
		for _, f := range h.few {
			h.many[f.scope.Key()] = append(h.many[f.scope.Key()], f)
		}
		h.few = nil
	}
	h.many[g.scope.Key()] = append(h.many[g.scope.Key()], g)
}

// remove takes the grant of an assignment away and reports whether nothing is left.
func (h *holding) remove(as *Assignment) (empty bool) {
	same := func(g grant) bool { return g.id == as.ID && g.scope == as.Scope }
	if h.many == nil {
		h.few = slices.DeleteFunc(h.few, same)
		return len(h.few) == 0
	}
	key := as.Scope.Key()
	if left := slices.DeleteFunc(h.many[key], same); len(left) > 0 {
		h.many[key] = left
	} else {
		delete(h.many, key)
	}
	return len(h.many) == 0
}

// reaching yields the grants at a scope or above it.
func (h *holding) reaching(at innate.Scope) iter.Seq[*grant] {
	return func(yield func(*grant) bool) {
		for i := range h.few {
			if g := &h.few[i]; g.scope.Contains(at) && !yield(g) {
				return
			}
		}
		if h.many == nil {
			return
		}
		for level := range at.Upward() {
			for i := range h.many[level] {
				if !yield(&h.many[level][i]) {
					return
				}
			}
		}
	}
}

// touches reports whether there is a grant at a scope, above or below it, to
// whoever is proved so surely.
func (h *holding) touches(at innate.Scope, proof innate.Assurance) bool {
	enough := func(g grant) bool { return g.minimum <= proof }
	for _, g := range h.few {
		if enough(g) && related(g.scope, at) {
			return true
		}
	}
	for key, grants := range h.many {
		if related(innate.Scope(key), at) && slices.ContainsFunc(grants, enough) {
			return true
		}
	}
	return false
}

// related reports whether one of two scopes contains the other.
func related(a, b innate.Scope) bool { return a.Contains(b) || b.Contains(a) }
