package bearer_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestATokenSaysTheRolesAndGroupsOfItsBearer(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	roles, groups := []string{"orders.read"}, []string{"0f8fad5b-d9cb-469f-a165-70867728950e"}
	for name, c := range map[string]struct {
		claims        claims
		roles, groups []string
	}{
		"neither": {nil, nil, nil},
		"both":    {claims{"roles": roles, "groups": groups}, roles, groups},
		// Entra's overage: where to ask is for those who read Raw.
		"too many groups": {claims{"roles": roles, "_claim_names": claims{"groups": "src1"}, "_claim_sources": claims{"src1": claims{"endpoint": "https://graph.example.org"}}}, roles, nil},
	} {
		got, err := v.Verify(t.Context(), i.sign("ec-1", i.claims(c.claims)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff([][]string{c.roles, c.groups}, [][]string{got.Roles, got.Groups}); diff != "" {
			t.Errorf("%s: roles, groups (-want +got)\n%s", name, diff)
		}
	}
}
