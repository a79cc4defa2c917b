package directory

import (
	"encoding/json"
	"slices"
	"strings"
)

// A nullable is a property that null takes away and absence leaves as it is.
type nullable[T any] struct {
	given bool
	value *T // nil: null
}

func (n *nullable[T]) UnmarshalJSON(b []byte) error {
	n.given = true
	return json.Unmarshal(b, &n.value)
}

// or is what the property is after the edit, when it was have before.
func (n nullable[T]) or(have T) (now T) {
	switch {
	case !n.given:
		return have
	case n.value == nil:
		return now
	}
	return *n.value
}

// An appRoleShape is an app role as Graph writes it and reads it.
type appRoleShape struct {
	ID          string   `json:"id"`
	Value       *string  `json:"value"`
	DisplayName string   `json:"displayName"`
	Description string   `json:"description"`
	Members     []string `json:"allowedMemberTypes"`
	Enabled     *bool    `json:"isEnabled"` // absent means true
	Origin      string   `json:"origin"`    // Application; not read
}

func writeAppRoles(roles []AppRole) []appRoleShape {
	all := []appRoleShape{}
	for _, role := range roles {
		s := appRoleShape{
			ID: role.ID, DisplayName: role.Name, Description: role.Description,
			Members: role.Members, Enabled: &role.Enabled, Origin: "Application",
		}
		if role.Value != "" {
			s.Value = &role.Value
		}
		all = append(all, s)
	}
	return all
}

func readAppRoles(shapes []appRoleShape) (roles []AppRole) {
	for _, s := range shapes {
		role := AppRole{
			ID: strings.ToLower(s.ID), Name: s.DisplayName, Description: s.Description,
			Members: s.Members, Enabled: s.Enabled == nil || *s.Enabled,
		}
		if s.Value != nil {
			role.Value = *s.Value
		}
		roles = append(roles, role)
	}
	return roles
}

// readGroupClaims is the groupMembershipClaims of a registration; null is "".
func readGroupClaims(s string) (string, error) {
	switch s {
	case "", "None":
		return "", nil
	case "SecurityGroup", "All":
		return s, nil
	}
	return "", bad("groupMembershipClaims is '%.120s': want null, None, SecurityGroup or All.", s)
}

// An optionalClaimsShape says which claims the tokens for an application have on
// request. Only access tokens are issued here: what is said of other tokens is
// accepted, for clients that always say it, and not kept.
type optionalClaimsShape struct {
	Access []optionalClaimShape `json:"accessToken"`
	ID     []any                `json:"idToken"`
	SAML   []any                `json:"saml2Token"`
}

type optionalClaimShape struct {
	Name       string   `json:"name"`
	Source     *string  `json:"source"`
	Essential  bool     `json:"essential"` // not kept: for a program's token it changes nothing
	Properties []string `json:"additionalProperties"`
}

func writeOptionalClaims(names []string) *optionalClaimsShape {
	if len(names) == 0 {
		return nil
	}
	s := &optionalClaimsShape{ID: []any{}, SAML: []any{}}
	for _, name := range names {
		s.Access = append(s.Access, optionalClaimShape{Name: name, Properties: []string{}})
	}
	return s
}

// readOptionalClaims refuses what no token would have: accepted and not kept, its
// absence would be found out in production. idtyp is in every token, and groups
// are there when groupMembershipClaims says so: both may be said.
func readOptionalClaims(s optionalClaimsShape) (names []string, err error) {
	served := []string{"xms_cc", "idtyp", "groups"}
	for _, c := range s.Access {
		switch {
		case !slices.Contains(served, c.Name):
			return nil, bad("optionalClaims.accessToken has '%.120s': this service puts only %s into access tokens on request.", c.Name, strings.Join(served, ", "))
		case c.Source != nil || len(c.Properties) > 0:
			return nil, bad("optionalClaims.accessToken has '%s' with a source or additionalProperties: it is served only plain.", c.Name)
		case !slices.Contains(names, c.Name):
			names = append(names, c.Name)
		}
	}
	return names, nil
}
