package access

import (
	"regexp"
	"strings"

	"innate"
	"innate/store"
)

// A Role is a role definition.
type Role struct {
	ID             string         `json:"id"` // GUID
	Name           string         `json:"name"`
	Description    string         `json:"description,omitempty"`
	BuiltIn        bool           `json:"builtIn,omitempty"`
	Actions        []string       `json:"actions"`
	NotActions     []string       `json:"notActions"`
	DataActions    []string       `json:"dataActions"`
	NotDataActions []string       `json:"notDataActions"`
	Assignable     []innate.Scope `json:"assignable,omitempty"` // where it can be assigned; none means everywhere
}

const customRoles store.Table[Role] = "access/roles/" // role id

// findRole reads a role inside a transaction.
func findRole(r store.Reader, id string) (Role, bool, error) {
	for _, role := range builtIn {
		if role.ID == id {
			return role, true, nil
		}
	}
	return customRoles.Get(r, id)
}

// assignableAt reports whether the role can be assigned at a scope.
func (r Role) assignableAt(at innate.Scope) bool {
	for _, s := range r.Assignable {
		if s.Contains(at) {
			return true
		}
	}
	return len(r.Assignable) == 0
}

// A rule is a Role made ready to be asked.
type rule struct {
	Role
	actions, notActions, dataActions, notDataActions *regexp.Regexp // nil matches nothing
}

func newRule(r Role) *rule {
	return &rule{
		Role:    r,
		actions: compile(r.Actions), notActions: compile(r.NotActions),
		dataActions: compile(r.DataActions), notDataActions: compile(r.NotDataActions),
	}
}

// allows reports whether the role allows do. What notActions takes away, it
// takes from this role only: another assignment may still grant it.
func (r *rule) allows(do Action) bool {
	yes, no := r.actions, r.notActions
	if do.Data {
		yes, no = r.dataActions, r.notDataActions
	}
	return matches(yes, do.Name) && !matches(no, do.Name)
}

func matches(re *regexp.Regexp, action string) bool { return re != nil && re.MatchString(action) }

// compile makes one expression of patterns. A * stands for anything, slashes
// included; between slashes it may also stand for no segment at all, since
// userAssignedIdentities/*/assign/action is how Azure's roles allow
// userAssignedIdentities/assign/action. Case does not count.
func compile(patterns []string) *regexp.Regexp {
	if len(patterns) == 0 {
		return nil
	}
	wild := strings.NewReplacer(`/\*/`, `/(?:.*/)?`, `\*`, `.*`)
	alternatives := make([]string, len(patterns))
	for i, p := range patterns {
		alternatives[i] = wild.Replace(regexp.QuoteMeta(p))
	}
	return regexp.MustCompile(`(?is)^(?:` + strings.Join(alternatives, "|") + `)$`)
}
