package innatetest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"innate"
	"innate/innatetest"
)

func TestAMappingThatMakesNoSenseIsRefusedWithWhy(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	db, api, ops := p.Postgres("orders"), p.App("api"), p.App("ops")
	p.Grant(ops, "Contributor", db)
	token := ops.Token(p.Admin.Info.Management)
	object := string(api.Principal())
	for _, c := range []struct {
		method, below, body string
		status              int
		says                string
	}{
		{"PUT", "principals/" + object, `{"properties":{"roles":["app"]}}`, 200, `"roles":["app"]`},
		{"PUT", "PRINCIPALS/" + strings.ToUpper(object), `{"properties":{"roles":["b","a","b"],"principalType":"serviceprincipal"}}`, 200, `"roles":["a","b"]`},
		{"GET", "principals/" + object, "", 200, `"principalName":"api"`},
		{"PUT", "principals/" + object, ``, 400, ""},
		{"PUT", "principals/" + object, `{}`, 400, "app-orders"},
		{"PUT", "principals/" + object, `{"properties":{"roles":"app"}}`, 400, ""},
		{"PUT", "principals/" + object, `{"properties":{"roles":[]}}`, 400, "DELETE the mapping"},
		{"PUT", "principals/" + object, `{"properties":{"roles":[""]}}`, 400, "is empty"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["` + strings.Repeat("ü", 32) + `"]}}`, 400, "64 bytes"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["a\u0000b"]}}`, 400, "NUL"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["app","postgres"]}}`, 400, "superuser"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["pg_read_all_data"]}}`, 400, "grant it pg_read_all_data"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["innate_managed"]}}`, 400, "kept for it"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["public"]}}`, 400, "no role"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["app"],"principalType":"Group"}}`, 400, "is a ServicePrincipal"},
		{"PUT", "principals/" + object, `{"properties":{"roles":["app"],"tenantId":"` + innate.NewGUID() + `"}}`, 400, "the only tenant"},
		{"PUT", "principals/" + innate.NewGUID(), `{"properties":{"roles":["app"]}}`, 400, "PrincipalNotFound"},
		{"PUT", "principals/api", `{"properties":{"roles":["app"]}}`, 400, "want its object id"},
		{"PUT", "administrators/" + object, `{"properties":{"principalName":"postgres"}}`, 400, "superuser"},
		{"PUT", "administrators/" + object, `{"properties":{"principalType":"Unknown"}}`, 400, "is empty"},
		{"PUT", "administrators/" + object, `{"properties":{"principalName":"dba","roles":["app"]}}`, 400, "{server}/principals"},
		{"PUT", "administrators/" + object, `{"properties":{"principalName":"dba","principalType":"Unknown"}}`, 200, `"principalType":"ServicePrincipal"`},
		{"GET", "logins", "", 200, `"administrator":true`},
		{"POST", "logins", "", 405, "not served"},
		{"PATCH", "principals/" + object, `{}`, 405, "not served"},
		{"GET", "gateway", "", 404, ""},
		{"GET", "logins/" + object, "", 404, ""},
		{"DELETE", "principals/" + object, "", 204, ""},
		{"DELETE", "principals/" + object, "", 204, ""},
		{"GET", "principals/" + object, "", 404, "not among the principals of orders"},
	} {
		status, answer := manage(t, p, token, c.method, string(db.ID())+"/"+c.below+"?api-version=2025-08-01", c.body)
		if status != c.status || !strings.Contains(answer, c.says) {
			t.Errorf("%s %s %s: got %d %s, want %d %q", c.method, c.below, c.body, status, answer, c.status, c.says)
		}
	}
	if status, answer := manage(t, p, token, "GET", string(db.ID())+"/logins", ""); status != 400 || !strings.Contains(answer, "api-version") {
		t.Errorf("without an api-version: %d %s", status, answer)
	}
	ghost := strings.Replace(string(db.ID()), "orders", "ghost", 1)
	if status, answer := manage(t, p, token, "GET", ghost+"/logins?api-version=2025-08-01", ""); status != http.StatusForbidden {
		t.Errorf("whether a server is there is told to who may not read: %d %s", status, answer)
	}
	p.Grant(ops, "Reader", scope(p.Admin.Group(innatetest.Group)))
	for _, c := range [][2]string{{"GET", "logins"}, {"GET", "principals"}, {"GET", "gateway/feed"}} {
		want := http.StatusNotFound
		if c[1] == "gateway/feed" {
			want = http.StatusForbidden
		}
		if status, answer := manage(t, p, token, c[0], ghost+"/"+c[1]+"?api-version=2025-08-01", ""); status != want {
			t.Errorf("%s of a server that is not there: %d %s, want %d", c[1], status, answer, want)
		}
	}
}

func TestWhoMapsIsDecidedByRolesAndOnRecord(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	db, api := p.Postgres("orders"), p.App("api")
	target := fmt.Sprintf("%s/principals/%s", db.ID(), api.Principal())
	put := func(token string) (int, string) {
		return manage(t, p, token, "PUT", target+"?api-version=2025-08-01", `{"properties":{"roles":["app-orders"]}}`)
	}
	token := api.Token(p.Admin.Info.Management)
	status, answer := put(token)
	if status != http.StatusForbidden || !strings.Contains(answer, "Microsoft.DBforPostgreSQL/flexibleServers/principals/write") || !strings.Contains(answer, "Contributor") {
		t.Errorf("an app that maps itself: %d %s", status, answer)
	}
	p.Grant(api, "Contributor", db)
	if status, answer := put(token); status != http.StatusOK {
		t.Errorf("a contributor of the server: %d %s", status, answer)
	}
	var decided []bool
	for _, ev := range recorded(t, p, "control") {
		if ev.Action == "Microsoft.DBforPostgreSQL/flexibleServers/principals/write" && ev.Principal == api.Principal() && ev.Target == string(db.ID()) {
			decided = append(decided, ev.Allowed)
		}
	}
	if !slices.Equal(decided, []bool{false, true}) {
		t.Errorf("decisions on record when the answers were there: %v, want a refusal and a yes", decided)
	}
}

// The agent asks for the certificate by itself, and the app finds it.
func TestAnAppFindsTheCertificateByWhichItLogsIn(t *testing.T) {
	t.Parallel()
	installed(t, "openssl")
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	api := p.App("api")
	db := p.Postgres("orders", map[string]any{"authentication": "certificate", "fullyQualifiedDomainName": "db.example.org"})
	p.MayLogIn(api, db, "app-orders")
	out, err := api.Run("sh", "-c", `openssl x509 -in "$PGSSLCERT" -noout -subject -nameopt RFC2253 -ext extendedKeyUsage; echo "$PGUSER@$PGHOST"`)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CN=" + string(api.Principal()), "OU=orders", "TLS Web Client Authentication", "app-orders@db.example.org"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is not in:\n%s", want, out)
		}
	}
}
