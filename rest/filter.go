package rest

import (
	"net/http"
	"slices"
	"strings"
)

// A Filter is a parsed $filter: eq, ne, and, or, not, startswith(a,'b'),
// name(args), and collection/any(x:x eq 'v'). Strings compare without case, as
// Azure's do for names, types and GUIDs.
type Filter struct {
	root node // nil means everything
}

// Match evaluates the filter; field yields the value(s) of a property by its
// name as the filter spells it, and call decides functions other than
// startswith, such as atScope() and assignedTo('x'). A nil call knows none.
// Each condition on a property with several values is met when one value meets
// it; ne is met when none is equal.
func (f *Filter) Match(field func(name string) []string, call func(name string, args []string) (bool, error)) (bool, error) {
	if f.root == nil {
		return true, nil
	}
	if call == nil {
		call = unknownFunction
	}
	return f.root.match(env{field, call})
}

func unknownFunction(name string, _ []string) (bool, error) {
	return false, badFilter("function %s is not known here", clip(name))
}

func badFilter(format string, args ...any) *Error {
	e := Errorf(http.StatusBadRequest, "InvalidFilterInQueryString", format, args...)
	e.Message, e.Target = "$filter: "+e.Message, "$filter"
	return e
}

// env is what a filter is evaluated against.
type env struct {
	field func(name string) []string
	call  func(name string, args []string) (bool, error)
}

type node interface {
	match(env) (bool, error)
}

type (
	and    struct{ left, right node }
	or     struct{ left, right node }
	not    struct{ of node }
	equals struct {
		field, value string
		not          bool
	}
	startsWith struct{ field, prefix string }
	function   struct {
		name string
		args []string
	}
	anyOf struct {
		field, variable string
		of              node
	}
)

func (n and) match(e env) (bool, error) {
	if ok, err := n.left.match(e); !ok || err != nil {
		return false, err
	}
	return n.right.match(e)
}

func (n or) match(e env) (bool, error) {
	if ok, err := n.left.match(e); ok || err != nil {
		return ok, err
	}
	return n.right.match(e)
}

func (n not) match(e env) (bool, error) {
	ok, err := n.of.match(e)
	return !ok && err == nil, err
}

func (n equals) match(e env) (bool, error) {
	found := slices.ContainsFunc(e.field(n.field), func(v string) bool { return strings.EqualFold(v, n.value) })
	return found != n.not, nil
}

func (n startsWith) match(e env) (bool, error) {
	return slices.ContainsFunc(e.field(n.field), func(v string) bool {
		return strings.HasPrefix(strings.ToLower(v), strings.ToLower(n.prefix))
	}), nil
}

func (n function) match(e env) (bool, error) { return e.call(n.name, n.args) }

func (n anyOf) match(e env) (bool, error) {
	for _, v := range e.field(n.field) {
		element := env{func(name string) []string {
			if name == n.variable {
				return []string{v}
			}
			return e.field(name)
		}, e.call}
		if ok, err := n.of.match(element); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
