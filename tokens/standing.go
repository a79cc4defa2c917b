package tokens

import (
	"net/http"
	"slices"

	"innate"
	"innate/directory"
)

// mostGroups is how many groups a token names (Entra's bound): with more, it
// says where to ask for them, so that it still fits a header.
const mostGroups = 200

// A standing is what a principal is to one audience, beside who it is.
type standing struct {
	roles   []string          // values of the app roles that it has there, sorted
	groups  []innate.ObjectID // all that it is in, sorted; only when the audience wants them
	tooMany bool              // it is in more than mostGroups
}

// standing says what object is to the audience. One that admits only whom it has
// given an app role refuses everybody else (managed-identity-endpoints §4.6).
func (s *Service) standing(object directory.Object, to audience) (standing, error) {
	var st standing
	if to.app == nil {
		return st, nil
	}
	var assigned bool
	st.roles, assigned = s.config.Directory.AppRoles(*to.app, object.ID)
	if to.app.RoleRequired && !assigned {
		return standing{}, s.unassigned(object, to.app)
	}
	switch to.app.GroupClaims {
	case "SecurityGroup", "All": // every group here is a security group
		st.groups = slices.Sorted(slices.Values(s.config.Directory.Groups(object.ID)))
	}
	if len(st.groups) > mostGroups {
		st.groups, st.tooMany = nil, true
	}
	return st, nil
}

// unassigned refuses a principal that has no app role where one is required.
func (s *Service) unassigned(object directory.Object, r *directory.Registration) error {
	return refusal(http.StatusBadRequest, "invalid_grant", 501051,
		"Application '%s' (%s) is not assigned to a role for the application '%s' (%s), which admits only those that are. "+
			"Whoever administers it assigns one: innate registration role assign %s --value %s --to %s. Over Graph: POST %s/v1.0/servicePrincipals/%s/appRoleAssignedTo with principalId %s, resourceId %s and the appRoleId; %s is for no role in particular",
		object.Client, printable(object.Name), r.Client, printable(r.Name),
		r.Client, workloadRole(r), object.ID,
		s.graph(), r.Principal, object.ID, r.Principal, directory.NoAppRole)
}

// workloadRole is the value of a role of r that a workload can have, or ROLE.
func workloadRole(r *directory.Registration) string {
	i := slices.IndexFunc(r.AppRoles, func(role directory.AppRole) bool {
		return role.Enabled && role.Value != "" && slices.Contains(role.Members, "Application")
	})
	if i < 0 {
		return "ROLE"
	}
	return printable(r.AppRoles[i].Value)
}

// graph is the origin of the platform's own Graph; empty in a platform without one.
func (s *Service) graph() string {
	own := s.services["https://graph.microsoft.com"]
	if own == nil {
		return ""
	}
	return own.URIs[0]
}

// A claimSource is where a claim can be asked for that is not in the token
// (OpenID Connect Core §5.6.2, distributed claims).
type claimSource struct {
	Endpoint string `json:"endpoint"`
}

// say puts the standing into a token's claims. Where there are too many groups
// it is Entra's overage. There is no hasgroups beside: that stands for it in
// tokens which travel in URLs, and these never do.
func (st standing) say(c *claims, graph string) {
	c.Roles, c.Groups = st.roles, st.groups
	if !st.tooMany {
		return
	}
	const source = "src1"
	c.ClaimNames = map[string]string{"groups": source}
	c.ClaimSources = map[string]claimSource{
		source: {graph + "/v1.0/servicePrincipals/" + string(c.Object) + "/getMemberObjects"},
	}
}
