package innatetest_test

import (
	"fmt"
	"strings"
	"testing"

	"innate/innatetest"
)

// Whoever sets something and then starts the program, as scripts do, need not
// wait until the host has heard of it.
func TestAProgramStartsWithAllThatWasSetBefore(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	db := p.Postgres("orders", map[string]any{"authentication": "certificate", "fullyQualifiedDomainName": "db.example.org"})
	for i := range 40 {
		value, role := fmt.Sprint("value-", i), fmt.Sprint("role-", i)
		p.ARM("PUT", string(api.ID())+"/config/appsettings", map[string]any{"properties": map[string]string{"SETTING": value}}, nil)
		p.MayLogIn(api, db, role)
		out, err := api.Run("/bin/sh", "-c", `echo "$SETTING $PGUSER"`)
		if want := value + " " + role; err != nil || strings.TrimSpace(out) != want {
			t.Errorf("it started with %q %v, want %q", out, err, want)
		}
	}
}
