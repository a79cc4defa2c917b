package vault_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/access"
	"innate/directory"
	"innate/store"
	"innate/vault"
)

// set changes the settings of kv1.
func (w *world) set(s vault.Settings) {
	w.t.Helper()
	w.update(func(tx store.Tx) error { return w.service.Put(tx, kv1, s) })
}

func TestTheRecoveryLevelIsTheVaults(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	for _, c := range []struct {
		set   vault.Settings
		level string
		days  int
	}{
		{vault.Settings{}, "Recoverable+Purgeable", 90},
		{vault.Settings{Retention: 90, Protected: true}, "Recoverable", 90},
		{vault.Settings{Retention: 7}, "CustomizedRecoverable+Purgeable", 7},
		{vault.Settings{Retention: 30, Protected: true}, "CustomizedRecoverable", 30},
	} {
		w.set(c.set)
		if at := w.must("officer", "GET", "/secrets/a"+api, "").Attributes; at.RecoveryLevel != c.level || at.RecoverableDays != c.days {
			t.Errorf("%+v: %s, %d days; want %s, %d", c.set, at.RecoveryLevel, at.RecoverableDays, c.level, c.days)
		}
		gone := w.must("officer", "DELETE", "/secrets/a"+api, "")
		if got := time.Duration(gone.Purge-gone.Deleted) * time.Second; got != time.Duration(c.days)*24*time.Hour {
			t.Errorf("%+v: kept for %s", c.set, got)
		}
		w.must("officer", "POST", "/deletedsecrets/a/recover"+api, "")
	}
}

func TestADeletedSecretGoesWhenItIsDueAndOnRecord(t *testing.T) {
	w := newWorld(t)
	w.set(vault.Settings{Retention: 7, Protected: true})
	for n := range 130 { // more than one transaction takes
		name := fmt.Sprintf("/secrets/s-%03d", n)
		w.must("officer", "PUT", name+api, `{"value":"v"}`)
		w.must("officer", "DELETE", name+api, "")
	}
	w.must("officer", "PUT", "/secrets/kept"+api, `{"value":"v"}`)
	w.refused(w.send("officer", "DELETE", "/deletedsecrets/s-001"+api, ""), 403, "Forbidden", "PurgeProtectionEnabled")

	w.pass(7*24*time.Hour - time.Second)
	check(t, w.service.Sweep(t.Context()))
	w.must("officer", "GET", "/deletedsecrets/s-129"+api, "")
	w.must("officer", "POST", "/deletedsecrets/s-000/recover"+api, "")
	w.pass(time.Second)
	check(t, w.service.Sweep(t.Context()))
	if left := w.must("officer", "GET", "/deletedsecrets"+api, "").items(); len(left) != 0 {
		t.Errorf("%d deleted secrets are left", len(left))
	}
	for _, name := range []string{"kept", "s-000"} {
		w.must("officer", "GET", "/secrets/"+name+api, "")
	}
	w.must("officer", "PUT", "/secrets/s-001"+api, `{"value":"a new one"}`)
	purged := 0
	for _, ev := range w.events() {
		if strings.HasSuffix(ev.Action, "secrets/purge/action") && ev.Principal == "" {
			purged++
			if !ev.Allowed || !strings.Contains(ev.Why, "2026-11-01") || !strings.Contains(ev.Target, "/secrets/s-") {
				t.Errorf("event %+v", ev)
			}
		}
	}
	if purged != 129 {
		t.Errorf("%d purges are on record, want 129", purged)
	}
}

func TestAVaultMayEnforceTheTimesOfItsSecrets(t *testing.T) {
	w := newWorld(t)
	now := w.clock().Unix()
	w.must("officer", "PUT", "/secrets/early"+api, fmt.Sprintf(`{"value":"v","attributes":{"nbf":%d}}`, now+1))
	w.must("officer", "PUT", "/secrets/late"+api, fmt.Sprintf(`{"value":"v","attributes":{"exp":%d}}`, now))
	w.must("officer", "PUT", "/secrets/now"+api, fmt.Sprintf(`{"value":"v","attributes":{"nbf":%d,"exp":%d}}`, now, now+1))
	for _, name := range []string{"early", "late", "now"} { // informational, as in Azure
		w.must("officer", "GET", "/secrets/"+name+api, "")
	}
	w.set(vault.Settings{InTime: true})
	w.refused(w.send("officer", "GET", "/secrets/early"+api, ""), 403, "Forbidden", "SecretNotYetValid")
	w.refused(w.send("officer", "GET", "/secrets/late"+api, ""), 403, "Forbidden", "SecretExpired")
	w.must("officer", "GET", "/secrets/now"+api, "")
	w.pass(time.Second)
	w.must("officer", "GET", "/secrets/early"+api, "")
	w.refused(w.send("officer", "GET", "/secrets/now"+api, ""), 403, "Forbidden", "SecretExpired")
	w.must("officer", "PATCH", "/secrets/late"+api, fmt.Sprintf(`{"attributes":{"exp":%d}}`, now+60))
	w.must("officer", "GET", "/secrets/late"+api, "")
}

func TestInAVaultWithPoliciesTheyDecideAndRolesDoNot(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	w.must("officer", "PUT", "/secrets/d"+api, `{"value":"v"}`)
	w.must("officer", "DELETE", "/secrets/d"+api, "")
	every := []struct{ permission, method, path, body string }{
		{"get", "GET", "/secrets/a", ""}, {"get", "GET", "/deletedsecrets/d", ""},
		{"list", "GET", "/secrets", ""}, {"list", "GET", "/secrets/a/versions", ""}, {"list", "GET", "/deletedsecrets", ""},
		{"set", "PUT", "/secrets/new", `{"value":"v"}`}, {"set", "PATCH", "/secrets/a/", `{}`},
		{"backup", "POST", "/secrets/a/backup", ""}, {"restore", "POST", "/secrets/restore", `{"value":"AA"}`},
		{"delete", "DELETE", "/secrets/none", ""}, {"recover", "POST", "/deletedsecrets/none/recover", ""}, {"purge", "DELETE", "/deletedsecrets/none", ""},
	}
	w.join("app")
	app := w.people["app"]
	for _, permission := range []string{"get", "list", "set", "backup", "restore", "delete", "recover", "purge"} {
		w.set(vault.Settings{ByPolicy: true, Policies: []vault.Policy{{Object: app.Object, Secrets: []string{strings.ToUpper(permission)}}}})
		for _, c := range every {
			a := w.send("app", c.method, c.path+api, c.body)
			if permission == c.permission {
				if a.status == 403 {
					t.Errorf("with %s: %s %s: %s", permission, c.method, c.path, a.text)
				}
				continue
			}
			w.refused(a, 403, "Forbidden", "AccessDenied")
			if !strings.Contains(a.Error.Message, "secrets "+c.permission+" permission") {
				t.Errorf("%s %s: %q does not say what is missing", c.method, c.path, a.Error.Message)
			}
		}
	}
	w.refused(w.send("officer", "GET", "/secrets/a"+api, ""), 403, "Forbidden", "AccessDenied") // whatever role it has
	w.refused(w.send("officer", "GET", "/secrets/absent"+api, ""), 403, "Forbidden", "AccessDenied")

	w.set(vault.Settings{ByPolicy: true, Policies: []vault.Policy{{Object: app.Object, Client: "other", Secrets: []string{"all"}}}})
	w.refused(w.send("app", "GET", "/secrets/a"+api, ""), 403, "Forbidden", "AccessDenied") // through another application only
	w.set(vault.Settings{ByPolicy: true, Policies: []vault.Policy{{Object: app.Object, Client: app.Client, Secrets: []string{"all"}}}})
	w.must("app", "GET", "/secrets/a"+api, "")
	w.set(vault.Settings{Policies: []vault.Policy{{Object: app.Object, Secrets: []string{"all"}}}})
	w.refused(w.send("app", "GET", "/secrets/a"+api, ""), 403, "Forbidden", "ForbiddenByRbac") // policies do not count any more
	w.must("officer", "GET", "/secrets/a"+api, "")
}

func TestAGroupsPolicyIsItsMembers(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	w.join("app")
	var readers directory.Object
	w.update(func(tx store.Tx) (err error) {
		readers, err = directory.CreateGroup(tx, "readers", w.clock())
		return err
	})
	w.set(vault.Settings{ByPolicy: true, Policies: []vault.Policy{{Object: readers.ID, Secrets: []string{"get"}}}})
	w.refused(w.send("app", "GET", "/secrets/a"+api, ""), 403, "Forbidden", "AccessDenied")
	w.update(func(tx store.Tx) error { return w.directory.AddMember(tx, readers.ID, w.people["app"].Object) })
	w.must("app", "GET", "/secrets/a"+api, "")
}

func TestAVaultThatWasPutAwayAnswersToNobodyUntilItIsBack(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	w.update(func(tx store.Tx) error { return w.service.PutAway(tx, kv1) })
	w.refused(w.send("officer", "GET", "/secrets/a"+api, ""), 404, "VaultNotFound", "")
	w.refused(w.send("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`), 404, "VaultNotFound", "")
	w.join("stranger")
	w.refused(w.send("stranger", "GET", "/secrets/a"+api, ""), 403, "Forbidden", "ForbiddenByRbac")
	w.set(vault.Settings{})
	if got := w.must("officer", "GET", "/secrets/a"+api, ""); got.Value != "v" {
		t.Errorf("back: %s", got.text)
	}
	w.update(func(tx store.Tx) error { return w.service.PutAway(tx, "/subscriptions/never/was") })
}

// A principal of another tenant may have an object id that ours has too.
func TestAPolicyIsForThisTenant(t *testing.T) {
	w := newWorld(t)
	w.join("app")
	stranger := w.people["app"]
	stranger.Tenant = innate.TenantID(innate.NewGUID())
	w.mu.Lock()
	w.people["stranger"] = stranger
	w.mu.Unlock()
	w.grant("app", access.KeyVaultSecretsUser, kv1.Scope())
	w.set(vault.Settings{ByPolicy: true, Policies: []vault.Policy{{Object: stranger.Object, Secrets: []string{"all"}}}})
	w.refused(w.send("stranger", "GET", "/secrets"+api, ""), 403, "Forbidden", "AccessDenied")
	w.must("app", "GET", "/secrets"+api, "")
}
