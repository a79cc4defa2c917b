package endpoint

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"innate"
)

// A Query is the parsed query of a request; names are compared with their case.
type Query []parameter

type parameter struct{ name, value string }

// Limits of what we read.
const (
	maxParameters = 32
	maxResource   = 1024
)

// ParseQuery reads raw. A parameter given twice is refused: two readers of the
// request could each believe another one.
func ParseQuery(raw string) (Query, error) {
	q := make(Query, 0, 4)
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		if err != nil {
			return nil, badRequest("query: %v", err)
		}
		if value, err = url.QueryUnescape(value); err != nil {
			return nil, badRequest("query parameter '%s': %v", clip(name), err)
		}
		if q.has(name) {
			return nil, badRequest("query parameter '%s' is given twice", clip(name))
		}
		if len(q) == maxParameters {
			return nil, badRequest("more than %d query parameters", maxParameters)
		}
		q = append(q, parameter{name, value})
	}
	return q, nil
}

func (q Query) has(name string) bool {
	return slices.ContainsFunc(q, func(p parameter) bool { return p.name == name })
}

// Get is the value of a parameter; an empty one counts as absent.
func (q Query) Get(name string) string {
	for _, p := range q {
		if p.name == name {
			return p.value
		}
	}
	return ""
}

// Misprint refuses a query that begins with a second question mark, as the one
// printed in the article that this project began with does.
func (q Query) Misprint() error {
	if len(q) > 0 && strings.HasPrefix(q[0].name, "?") {
		return badRequest("%s is missing; found %q: is there one question mark too many?", clip(q[0].name[1:]), clip(q[0].name))
	}
	return nil
}

// Resource is the audience asked for, byte for byte. It is empty where the
// caller gave none.
func (q Query) Resource() (string, error) {
	s := q.Get("resource")
	if len(s) > maxResource {
		return "", badRequest("resource of %d characters: want at most %d", len(s), maxResource)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "", badRequest("resource has characters that no identifier URI has")
	}
	return s, nil
}

// selectors are the spellings by which clients name an identity, and what each names.
var selectors = []struct {
	name string
	set  func(*innate.Selector, string) error
}{
	{"client_id", selectClient},
	{"clientid", selectClient},
	{"object_id", selectObject},
	{"principal_id", selectObject},
	{"principalId", selectObject}, // Service Fabric
	{"msi_res_id", selectResource},
	{"mi_res_id", selectResource},
	{"msi-res-id", selectResource},
}

// Selector reads which identity is meant; accepted are the spellings that the
// protocol has, and any other is refused, for ignoring it would hand out
// another identity's token. given is the spelling used, empty for the zero
// Selector. A value that can name nothing is innate.ErrNoIdentity, wrapped.
func (q Query) Selector(accepted ...string) (which innate.Selector, given string, err error) {
	for _, s := range selectors {
		value := q.Get(s.name)
		switch {
		case value == "":
			continue
		case !slices.Contains(accepted, s.name):
			return innate.Selector{}, "", badRequest("parameter '%s' is not of this api-version: name the identity by %s", s.name, strings.Join(accepted, ", "))
		case given != "":
			return innate.Selector{}, "", badRequest("'%s' and '%s' exclude each other: name the identity once", given, s.name)
		}
		given = s.name
		if err := s.set(&which, value); err != nil {
			return innate.Selector{}, given, fmt.Errorf("%w: %s: %w", innate.ErrNoIdentity, given, err)
		}
	}
	return which, given, nil
}

func selectClient(s *innate.Selector, value string) error {
	id, err := innate.ParseGUID(value)
	s.Client = innate.ClientID(id)
	return err
}

func selectObject(s *innate.Selector, value string) error {
	id, err := innate.ParseGUID(value)
	s.Object = innate.ObjectID(id)
	return err
}

func selectResource(s *innate.Selector, value string) (err error) {
	s.Resource, err = innate.ParseResourceID(value)
	return err
}
