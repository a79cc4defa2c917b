package innate

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// A ResourceID is the path of one resource:
//
//	/subscriptions/{guid}
//	/subscriptions/{guid}/resourceGroups/{name}
//	/subscriptions/{guid}/resourceGroups/{name}/providers/{namespace}/{type}/{name}[/{type}/{name}…]
//
// It keeps the case of whoever wrote it first; compare with Equal or by Key.
type ResourceID string

// maxResourceID bounds what we read of an id; Azure's own limit is below it.
const maxResourceID = 2048

// ParseResourceID checks s and returns it in canonical form: fixed segments in
// their usual case, the subscription in lower case, no trailing or doubled slash.
func ParseResourceID(s string) (ResourceID, error) {
	if len(s) > maxResourceID {
		return "", fmt.Errorf("resource id of %d characters: want at most %d", len(s), maxResourceID)
	}
	parts, err := segments(s)
	if err != nil {
		return "", err
	}
	if len(parts) < 2 || !strings.EqualFold(parts[0], "subscriptions") {
		return "", fmt.Errorf("resource id %q: want /subscriptions/{guid}[/resourceGroups/{name}[/providers/…]]", clip(s))
	}
	sub, err := ParseGUID(parts[1])
	if err != nil {
		return "", fmt.Errorf("resource id %q: subscription: %w", clip(s), err)
	}
	parts[0], parts[1] = "subscriptions", sub
	if len(parts) == 2 {
		return join(parts), nil
	}
	if !strings.EqualFold(parts[2], "resourceGroups") {
		return "", fmt.Errorf("resource id %q: want resourceGroups after the subscription, found %q", clip(s), clip(parts[2]))
	}
	if len(parts) < 4 {
		return "", fmt.Errorf("resource id %q: the resource group has no name", clip(s))
	}
	parts[2] = "resourceGroups"
	if len(parts) == 4 {
		return join(parts), nil
	}
	if !strings.EqualFold(parts[4], "providers") {
		return "", fmt.Errorf("resource id %q: want providers after the resource group, found %q", clip(s), clip(parts[4]))
	}
	parts[4] = "providers"
	// namespace, then pairs of type and name.
	if rest := len(parts) - 5; rest < 3 || rest%2 == 0 {
		return "", fmt.Errorf("resource id %q: want a namespace, then pairs of type and name", clip(s))
	}
	return join(parts), nil
}

func segments(s string) ([]string, error) {
	if !strings.HasPrefix(s, "/") {
		return nil, fmt.Errorf("resource id %q: want a leading slash", clip(s))
	}
	var parts []string
	for p := range strings.SplitSeq(s, "/") {
		if p == "" {
			continue // doubled and trailing slashes are forgiven (control-plane T5)
		}
		if err := checkSegment(p); err != nil {
			return nil, fmt.Errorf("resource id %q: %w", clip(s), err)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func checkSegment(p string) error {
	if p == "." || p == ".." {
		return errors.New("a segment may not be . or ..")
	}
	for _, c := range p {
		// Only ASCII: beyond it there are letters that fold together and do not
		// have one lower case, so that Equal and Key would disagree.
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(`?#%\`, c) {
			return fmt.Errorf("segment %q has the character %q", clip(p), c)
		}
	}
	return nil
}

func join(parts []string) ResourceID { return ResourceID("/" + strings.Join(parts, "/")) }

// Key is r in the form that compares: lower case.
func (r ResourceID) Key() string { return strings.ToLower(string(r)) }

// Equal reports whether both name the same resource.
func (r ResourceID) Equal(o ResourceID) bool { return strings.EqualFold(string(r), string(o)) }

func (r ResourceID) part(n int) string {
	i := 0
	for p := range strings.SplitSeq(strings.TrimPrefix(string(r), "/"), "/") {
		if i == n {
			return p
		}
		i++
	}
	return ""
}

// Subscription is the subscription's GUID.
func (r ResourceID) Subscription() string { return r.part(1) }

// Group is the resource group's name, or empty above groups.
func (r ResourceID) Group() string { return r.part(3) }

// Name is the last segment.
func (r ResourceID) Name() string { return string(r[strings.LastIndexByte(string(r), '/')+1:]) }

// Type is the full type, such as Microsoft.Compute/virtualMachines, spelled as
// in r. A group has Microsoft.Resources/resourceGroups, a subscription
// Microsoft.Resources/subscriptions.
func (r ResourceID) Type() string {
	parts := strings.Split(strings.TrimPrefix(string(r), "/"), "/")
	switch {
	case len(parts) < 2:
		return ""
	case len(parts) < 4:
		return "Microsoft.Resources/subscriptions"
	case len(parts) < 8:
		return "Microsoft.Resources/resourceGroups"
	}
	t := parts[5]
	for i := 6; i < len(parts); i += 2 {
		t += "/" + parts[i]
	}
	return t
}

// Is reports whether r is of that type, whatever the case.
func (r ResourceID) Is(typ string) bool { return strings.EqualFold(r.Type(), typ) }

// Scope is r as a scope for role assignments.
func (r ResourceID) Scope() Scope { return Scope(r) }

// A Scope is a resource path or an ancestor of one; role assignments hang on
// scopes. The root is "/".
type Scope string

// Root is the scope that contains everything.
const Root Scope = "/"

// ParseScope accepts "/", any resource id, and a management group.
func ParseScope(s string) (Scope, error) {
	if s == "/" || s == "" {
		return Root, nil
	}
	if parts, err := segments(s); err == nil && len(parts) == 4 && strings.EqualFold(parts[0], "providers") &&
		strings.EqualFold(parts[1], "Microsoft.Management") && strings.EqualFold(parts[2], "managementGroups") {
		return Scope("/providers/Microsoft.Management/managementGroups/" + parts[3]), nil
	}
	id, err := ParseResourceID(s)
	return Scope(id), err
}

// Key is s in the form that compares: lower case.
func (s Scope) Key() string { return strings.ToLower(string(s)) }

// Contains reports whether r is s itself or below it. A shared prefix of
// letters is not an ancestor: /…/rg does not contain /…/rg2; and no scope at all
// contains nothing.
func (s Scope) Contains(r Scope) bool {
	switch {
	case s == Root:
		return true
	case s == "" || len(r) < len(s) || len(r) > len(s) && r[len(s)] != '/':
		return false
	}
	above := r[:len(s)]
	return above == s || strings.EqualFold(string(above), string(s))
}

// Upward yields the keys of s and of each scope that contains it, ending with "/".
func (s Scope) Upward() iter.Seq[string] {
	return func(yield func(string) bool) {
		for k := s.Key(); len(k) > 1; {
			if !yield(k) {
				return
			}
			i := strings.LastIndexByte(k, '/')
			if i <= 0 {
				break
			}
			k = k[:i]
		}
		yield("/")
	}
}
