package resources_test

import (
	"encoding/json"
	"strings"
	"testing"

	"innate/resources"
)

const server = group + "/providers/Microsoft.DBforPostgreSQL/flexibleServers/orders"

func TestAPostgreSQLServerIsShownWithWhatItTakes(t *testing.T) {
	w := newWorld(t)
	w.group()
	a := w.send("PUT", server, `{"location":"local","properties":{"administratorLoginPassword":"x","version":"15"}}`)
	if a.is(200, ""); strings.Contains(a.Body.String(), "administratorLoginPassword") {
		t.Errorf("the password that Azure's clients send is kept: %s", a.Body)
	}
	for name, want := range map[string]any{
		"fullyQualifiedDomainName": "orders.postgres.example.org", "port": 5432.0, "acceptAzureAudiences": false,
		"authentication": "token", "audience": "https://orders.postgres.example.org", "version": "15", "provisioningState": "Succeeded",
	} {
		if got := a.at("properties", name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	a = w.must("PATCH", strings.Replace(server, "flexibleServers/orders", "FLEXIBLESERVERS/ORDERS", 1),
		`{"properties":{"FullyQualifiedDomainName":"db.example.net","PORT":6432,"authentication":"Certificate","acceptAzureAudiences":true}}`)
	if a.text("id") != server || a.text("properties", "fullyQualifiedDomainName") != "db.example.net" || a.at("properties", "port") != 6432.0 ||
		a.text("properties", "authentication") != "certificate" {
		t.Errorf("after a PATCH: %s", a.Body)
	}
	a = w.must("PUT", server, a.Body.String()) // what is computed, sent back, is no property
	if r, ok := w.Find(server); !ok || r.Properties["audience"] != nil {
		t.Errorf("kept: %v", r)
	}
}

func TestAPostgreSQLServersNameIsItsOwnOnThePlatformWhileItLives(t *testing.T) {
	w := newWorld(t)
	w.group()
	w.must("PUT", sub+"/resourceGroups/rg2", `{}`)
	if _, ok, reserved := w.PostgresByAudience("https://orders.postgres.example.org"); ok || !reserved {
		t.Errorf("before there is a server: found %v, reserved %v", ok, reserved)
	}
	w.must("PUT", server, `{}`)
	w.send("PUT", strings.Replace(server, "rg1", "rg2", 1), `{}`).is(409, "ServerNameAlreadyExists")
	for audience, want := range map[string]bool{
		"https://orders.postgres.example.org": true, "https://Orders.Postgres.example.org/": true,
		"https://orders.postgres.example.org//": false, "https://orders.postgres.example.org/x": false,
		"https://orders.postgres.example.org:443": false, "http://orders.postgres.example.org": false,
		"https://a.orders.postgres.example.org": false, "https://postgres.example.org": false, "https://payroll.postgres.example.org": false,
	} {
		if id, ok, _ := w.PostgresByAudience(audience); ok != want || ok && id != server {
			t.Errorf("%s: found %q %v, want %v", audience, id, ok, want)
		}
	}
	if a := w.send("DELETE", server, ""); a.Code != 204 { // Azure's client refuses 200
		t.Errorf("DELETE: %d %s", a.Code, a.Body)
	}
	if _, ok, _ := w.PostgresByAudience("https://orders.postgres.example.org"); ok {
		t.Error("its audience outlives it")
	}
	w.must("PUT", strings.Replace(server, "rg1", "rg2", 1), `{}`)
}

func TestAPostgreSQLServersPropertiesAreCheckedByName(t *testing.T) {
	w := newWorld(t)
	w.group()
	long, _ := json.Marshal(strings.Repeat("x", 17<<10))
	for _, c := range []struct{ property, value, says string }{
		{"fullyQualifiedDomainName", `"db.example.net:5432"`, "without a port"},
		{"fullyQualifiedDomainName", `"/var/run/postgresql"`, "DNS name or IP"},
		{"fullyQualifiedDomainName", `"a,b"`, "DNS name or IP"},
		{"fullyQualifiedDomainName", `["a"]`, "DNS name or IP"},
		{"port", `0`, "1 to 65535"},
		{"port", `65536`, "1 to 65535"},
		{"port", `"5432"`, "not in quotes"},
		{"acceptAzureAudiences", `"yes"`, "true or false"},
		{"authentication", `"scram"`, `"token" or "certificate"`},
		{"certificateAuthorities", `"junk"`, "-----BEGIN CERTIFICATE-----"},
		{"certificateAuthorities", `"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"`, "never a key"},
		{"certificateAuthorities", `"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"`, "cannot be read"},
		{"certificateAuthorities", string(long), "at most"},
	} {
		a := w.send("PUT", server, `{"properties":{"`+c.property+`":`+c.value+`}}`).is(400, "InvalidParameter")
		if a.text("error", "target") != "properties."+c.property || !strings.Contains(a.text("error", "message"), c.says) {
			t.Errorf("%s=%.40s: %s", c.property, c.value, a.Body)
		}
	}
	for _, name := range []string{"ab", "-ab", "ab-", "a_b", "a.b", strings.Repeat("a", 64)} {
		w.send("PUT", strings.Replace(server, "orders", name, 1), `{}`).is(400, "InvalidServerName")
	}
	w.must("PUT", server, `{"properties":{"fullyQualifiedDomainName":"::1","port":null}}`)
	if r, ok := w.Find(server); !ok || w.PostgresHost(r) != "::1" || r.Postgres().Port != 5432 || !r.ID.Is(resources.TypePostgres) {
		t.Errorf("kept: %+v", r)
	}
}
