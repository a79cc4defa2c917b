package access

import (
	"iter"
	"slices"
	"strings"

	"innate"
)

// A holding is what one principal has. Nearly all have a few grants, which are
// quickest gone through; a map is made for the few that have many.
type holding struct {
	few  []*grant
	many map[string][]*grant // by scope key, once there are more than fewest
}

const fewest = 16

func (h *holding) add(g *grant) {
	if h.many == nil && len(h.few) < fewest {
		h.few = append(h.few, g)
		return
	}
	if h.many == nil {
		h.many = map[string][]*grant{}
		for _, f := range h.few {
			h.many[f.key] = append(h.many[f.key], f)
		}
		h.few = nil
	}
	h.many[g.key] = append(h.many[g.key], g)
}

// remove takes a grant away and reports whether nothing is left.
func (h *holding) remove(g *grant) (empty bool) {
	same := func(o *grant) bool { return o == g }
	if h.many == nil {
		h.few = slices.DeleteFunc(h.few, same)
		return len(h.few) == 0
	}
	if left := slices.DeleteFunc(h.many[g.key], same); len(left) > 0 {
		h.many[g.key] = left
	} else {
		delete(h.many, g.key)
	}
	return len(h.many) == 0
}

// reaching yields the grants at the scope with that key or above it.
func (h *holding) reaching(key string) iter.Seq[*grant] {
	return func(yield func(*grant) bool) {
		for _, g := range h.few {
			if contains(g.key, key) && !yield(g) {
				return
			}
		}
		if h.many == nil {
			return
		}
		for level := range innate.Scope(key).Upward() {
			for _, g := range h.many[level] {
				if !yield(g) {
					return
				}
			}
		}
	}
}

// touches reports whether there is a grant at the scope with that key, above or
// below it, to whoever is proved so surely.
func (h *holding) touches(key string, proof innate.Assurance) bool {
	enough := func(g *grant) bool { return g.Minimum <= proof }
	for _, g := range h.few {
		if enough(g) && (contains(g.key, key) || contains(key, g.key)) {
			return true
		}
	}
	for k, grants := range h.many {
		if (contains(k, key) || contains(key, k)) && slices.ContainsFunc(grants, enough) {
			return true
		}
	}
	return false
}

// contains is Scope.Contains for scopes in the form that compares.
func contains(above, key string) bool {
	return above == "/" || strings.HasPrefix(key, above) && (len(key) == len(above) || key[len(above)] == '/')
}
