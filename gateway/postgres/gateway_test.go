package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"innate/gateway/postgres"
)

func TestATokenIsThePasswordAndAWrongOneIsRefusedWithItsReasonInTheLog(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	var who string
	if err := w.session("app", w.token(alice, nil)).QueryRow(t.Context(), "SELECT current_user").Scan(&who); err != nil || who != "app" {
		t.Errorf("current_user is %q, %v", who, err)
	}
	now := time.Now().Unix()
	for name, c := range map[string]struct{ role, token, why string }{
		"expired":                           {"app", w.token(alice, map[string]any{"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600}), "the token has expired"},
		"not yet good":                      {"app", w.token(alice, map[string]any{"nbf": now + 3600}), "the token is not good yet"},
		"wrong signature":                   {"app", w.token(alice, nil)[:len(w.token(alice, nil))-8] + "AAAAAAAA", "the token's signature is wrong"},
		"wrong audience":                    {"app", w.token(alice, map[string]any{"aud": "https://billing.postgres.example.org"}), "the token is for another service"},
		"Azure's audience, not switched on": {"app", w.token(alice, map[string]any{"aud": "https://ossrdbms-aad.database.windows.net"}), "the token is for another service"},
		"another issuer":                    {"app", w.token(alice, map[string]any{"iss": "https://login.example.com/" + tenant + "/"}), "the token is of another issuer"},
		"other identity":                    {"app", w.token(bob, nil), "the token is good, and its identity is not mapped to this role"},
		"unmapped role":                     {"other", w.token(alice, nil), "the token is good, and its identity is not mapped to this role"},
		"no token":                          {"app", "hunter2", "the password is not an access token"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.logIn(c.role, c.token)
			if got := sqlState(err); got != "28000" {
				t.Errorf("SQLSTATE %s, want 28000", got)
			}
			if err != nil && strings.Contains(err.Error(), c.why) {
				t.Errorf("the client was told why: %v", err)
			}
			w.pg.Await("LDAP diagnostics: " + c.why)
		})
	}
	if _, err := w.logIn("app", ""); sqlState(err) != "28P01" {
		t.Errorf("empty password: %v, want 28P01", err)
	}
	for _, line := range strings.Split(w.pg.Log(), "\n") {
		if _, text, ok := strings.Cut(line, "LDAP diagnostics: "); ok && len(text) > 200 {
			t.Errorf("a diagnostic message of %d bytes: %s", len(text), text)
		}
	}
}

func TestARoleIsItsBytesAndNothingElse(t *testing.T) {
	w := newWorld(t)
	suffix := postgres.Suffix(orders)
	names := []string{`a",b=c\d`, "app" + suffix, "App", "größe", "cn=app", "app" + suffix + suffix}
	for _, role := range names {
		w.pg.Exec(`CREATE ROLE "` + strings.ReplaceAll(role, `"`, `""`) + `" LOGIN IN ROLE innate_managed`)
	}
	w.mapped(bob, "app")
	w.mapped(alice, names...)
	for _, role := range names {
		var who string
		if err := w.session(role, w.token(alice, nil)).QueryRow(t.Context(), "SELECT current_user").Scan(&who); err != nil || who != role {
			t.Errorf("as %q: current_user is %q, %v", role, who, err)
		}
		if _, err := w.logIn(role, w.token(bob, nil)); sqlState(err) != "28000" {
			t.Errorf("who may be app logs in as %q: %v", role, err)
		}
	}
	if _, err := w.logIn("app", w.token(alice, nil)); sqlState(err) != "28000" {
		t.Errorf("who may be those logs in as app: %v", err)
	}
}

func TestALogInThatCannotBeRecordedIsRefused(t *testing.T) {
	w := newServer(t)
	dir := w.config.Dir
	if err := syscall.Mount("small", dir, "tmpfs", 0, "size=2m,mode=711"); err != nil {
		t.Skipf("a file system of the test's own, which can be full: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	w.start()
	t.Cleanup(func() { w.stop() })
	w.mapped(alice, "app")
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	// What is left of the last page is still theirs.
	w.until("the refusal", func() bool {
		_, err := w.attempt(t.Context(), "app", w.token(alice, nil))
		return sqlState(err) == "28000"
	})
	w.pg.Await("LDAP diagnostics: the decision could not be recorded")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.mapped(alice, "app")
}
