package innatetest_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"innate/agent"
	"innate/feed/client"
	"innate/innatetest"
	"innate/platform/database"
)

// byCertificate starts a server at which clients log in by certificate, and tells it
// so as its administrator would.
func (w world) byCertificate(name string) *database.Database {
	w.t.Helper()
	db := w.postgres(name)
	w.authenticate(db, "certificate", "--by-certificate")
	return db
}

// authenticate makes clients log in at a server by something else.
func (w world) authenticate(db *database.Database, by string, flags ...string) {
	w.t.Helper()
	if err := db.Authenticate(w.t.Context(), by); err != nil {
		w.t.Fatal(err)
	}
	if out, err := db.Host(w.t.Context(), "prepare", append(flags, "--apply")...); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
}

// mayLogInByCertificate is mayLogIn, and returns when the gateway has its row.
func (w world) mayLogInByCertificate(app *innatetest.App, db *database.Database, role string) {
	w.t.Helper()
	w.mayLogIn(app, db, role)
	w.await("the gateway has its row", func() bool {
		b, err := os.ReadFile(filepath.Join(db.Data(), "pg_ident.conf"))
		return err == nil && strings.Contains(string(b), string(app.Principal()))
	})
}

// A certificate is that of an app for a server, and its key, as somebody has it who
// copied the files.
type certificate struct{ cert, key string }

func (w world) certificate(app *innatetest.App, db *database.Database) (c certificate) {
	w.t.Helper()
	pattern := filepath.Join(string(w.Dir), "run", "postgres", app.ID().Name()+"-*", "client-"+db.ID.Name())
	dir := w.t.TempDir()
	copied := func(ext string) string {
		var b []byte
		w.await("the app has its certificate", func() bool {
			found, err := filepath.Glob(pattern + ext)
			if err != nil || len(found) != 1 {
				return false
			}
			b, err = os.ReadFile(found[0])
			return err == nil
		})
		to := filepath.Join(dir, "client"+ext)
		if err := os.WriteFile(to, b, 0o600); err != nil {
			w.t.Fatal(err)
		}
		return to
	}
	return certificate{copied(".crt"), copied(".key")}
}

// logIn connects as a role with a certificate, without a password.
func (c certificate) logIn(t *testing.T, db *database.Database, role string) (*pgx.Conn, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db.TCP(role, "postgres", fmt.Sprintf("sslmode=require sslcert=%s sslkey=%s passfile=/none", c.cert, c.key)))
	if err == nil {
		t.Cleanup(func() { conn.Close(t.Context()) })
	}
	return conn, err
}

// code is the SQLSTATE of a refusal, or what else it was.
func code(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return fmt.Sprint(err)
}

func TestEveryClientLogsInByItsAppsCertificateAndItsSessionEndsWithTheMapping(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	// Of a name as long as this PostgreSQL shows a part.
	db := w.byCertificate("orders-" + strings.Repeat("x", 56))
	for _, c := range clients(t) {
		t.Run(c.name, func(t *testing.T) {
			w := world{w.Platform, t}
			app := w.App("app-of-" + c.name)
			role := `role of "` + c.name + `", \1 # +all`
			w.mayLogInByCertificate(app, db, role)
			run := startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), Args: c.args})
			passes, err := filepath.Glob(filepath.Join(string(w.Dir), "run", "postgres", app.ID().Name()+"-*", "pgpass"))
			if err != nil || len(passes) != 1 {
				t.Fatalf("password files: %q %v", passes, err)
			}
			if b, err := os.ReadFile(passes[0]); err != nil || len(b) > 0 {
				t.Errorf("its password file has %d bytes (%v)", len(b), err)
			}
			if got := run.ask("SELECT current_user;"); got != role {
				t.Fatalf("SELECT current_user: %q, want %q", got, role)
			}
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", run.started.PID))
			if err != nil || strings.Contains(string(env), "PGPASSWORD") || strings.Contains(string(env), "eyJ") || !strings.Contains(string(env), "PGSSLCERT=") {
				t.Errorf("its environment has a password, or no certificate (%v)", err)
			}
			if got := run.ask("SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid();"); !strings.HasPrefix(got, "/CN="+string(app.Principal())+"/OU=") {
				t.Errorf("its certificate is of %q", got)
			}
			stolen := w.certificate(app, db)
			begin := time.Now()
			if err := db.Unmap(t.Context(), app.Principal()); err != nil {
				t.Fatal(err)
			}
			if c.name == "psql" { // one statement at a time, and none when the session ends
				run.end()
			} else {
				got := run.ask("SELECT pg_sleep(10)::text;")
				ended := strings.Contains(got, "terminating connection due to administrator command") ||
					strings.Contains(got, "closed unexpectedly") // libpq between two statements
				if took := time.Since(begin); !ended {
					t.Errorf("unmapped: %q after %v, want the session to end", got, took)
				}
			}
			w.await("no log-in by that certificate", func() bool {
				_, err := stolen.logIn(t, db, role)
				return err != nil && code(err) == "28000"
			})
			if _, err := stolen.logIn(t, db, role); code(err) != "28000" {
				t.Errorf("and again: %v", err)
			}
		})
	}
	if out, err := db.Host(t.Context(), "check", "--by-certificate"); err != nil || !strings.Contains(out, "Nothing is missing") {
		t.Errorf("check: %v\n%s", err, out)
	}
}

func TestACertificateIsForOneServerAndForTheRolesOfItsIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.byCertificate("db1"), w.byCertificate("db2")
	api, beside := w.App("api"), w.App("beside")
	for _, db := range []*database.Database{a, b} {
		w.mayLogIn(api, db, "app")
	}
	w.mayLogIn(beside, a, "other")
	w.ARM(http.MethodPut, string(a.ID)+"/principals/"+string(beside.Principal()), map[string]any{"properties": map[string]any{"roles": []string{"app", "other"}}}, nil)
	w.knows(beside, a, "app")
	for _, app := range []*innatetest.App{api, beside} {
		startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), Args: []string{"cat"}})
	}
	ofA, ofB, others := w.certificate(api, a), w.certificate(api, b), w.certificate(beside, a)
	w.await("the rows are there", func() bool {
		_, err1 := ofA.logIn(t, a, "app")
		_, err2 := ofB.logIn(t, b, "app")
		_, err3 := others.logIn(t, a, "app")
		return err1 == nil && err2 == nil && err3 == nil
	})
	for name, c := range map[string]struct {
		with certificate
		at   *database.Database
		role string
	}{
		"A's at B":                     {ofA, b, "app"},
		"B's at A":                     {ofB, a, "app"},
		"a role of another identity's": {ofA, a, "other"},
		"the superuser":                {ofA, a, "postgres"},
		"the gateway's role":           {ofA, a, "innate_gateway"},
	} {
		if conn, err := c.with.logIn(t, c.at, c.role); err == nil || code(err) != "28000" && code(err) != "28P01" {
			t.Errorf("%s: %v %v, want it to be refused", name, conn, err)
		}
	}

	// Two identities on one role: the one that is disabled goes, the other stays.
	mine, err := ofA.logIn(t, a, "app")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := others.logIn(t, a, "app")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := w.Admin.Graph(t.Context(), http.MethodPatch, "/v1.0/servicePrincipals/"+string(api.Principal()), map[string]any{"accountEnabled": false}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Exec(t.Context(), "SELECT pg_sleep(20)"); code(err) != "57P01" {
		t.Errorf("its session: %v, want it to end", err)
	}
	t.Logf("the session ended %v after the identity was disabled", time.Since(begin))
	if _, err := ofA.logIn(t, a, "app"); code(err) != "28000" {
		t.Errorf("it logs in again: %v", err)
	}
	if _, err := theirs.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the other identity's session: %v", err)
	}
	if _, err := others.logIn(t, a, "app"); err != nil {
		t.Errorf("the other identity logs in: %v", err)
	}
}

// An identity that several resources hold: whoever copied the certificate of one that
// holds it no more is out, and the others stay.
func TestACertificateEndsWhereItsIdentityIsNotHeldAnyMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.byCertificate("db1")
	shared := w.Identity("shared")
	first, second := w.App("first", shared), w.App("second", shared)
	if err := db.Map(t.Context(), shared.Principal(), "app"); err != nil {
		t.Fatal(err)
	}
	var of [2]certificate
	for i, app := range []*innatetest.App{first, second} {
		w.knows(app, db, "app")
		startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), Args: []string{"cat"}})
		of[i] = w.certificate(app, db)
	}
	var sessions [2]*pgx.Conn
	for i := range of {
		w.await("a log-in", func() bool {
			conn, err := of[i].logIn(t, db, "app")
			sessions[i] = conn
			return err == nil
		})
	}
	w.App("first") // without it
	if _, err := sessions[0].Exec(t.Context(), "SELECT pg_sleep(20)"); code(err) != "57P01" {
		t.Errorf("the session of the one that holds it no more: %v", err)
	}
	if _, err := of[0].logIn(t, db, "app"); code(err) != "28000" {
		t.Errorf("and its certificate: %v", err)
	}
	if _, err := sessions[1].Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session of the other: %v", err)
	}
	if _, err := of[1].logIn(t, db, "app"); err != nil {
		t.Errorf("and its certificate: %v", err)
	}
}

func TestAGatewayHearsOfThePlacesThatAreThere(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	byCertificate := map[string]any{"authentication": "certificate"}
	db := p.Postgres("orders", byCertificate)
	api := p.App("api")
	token := gatewayOf(p, db).Token(p.Admin.Info.Management)
	places := func(f *heardFeed) (all []string) {
		for key := range f.rows {
			if id, ok := strings.CutPrefix(key, client.DatabasePlaceKey("")); ok {
				all = append(all, id)
			}
		}
		return all
	}
	p.MayLogIn(api, db, "app")
	f, _ := hear(t, p, db, token)
	first := places(f)
	if len(first) != 1 {
		t.Fatalf("places: %q, want the app's", first)
	}
	p.MayNotLogIn(api, db)
	p.MayLogIn(api, db, "other")
	f.roles(api.Principal(), "other")
	if now := places(f); !slices.Equal(now, first) {
		t.Errorf("mapped anew, and its place is %q, was %q", now, first)
	}

	// A server that is made again knows nothing of before.
	p.Delete(db)
	db = p.Postgres("orders", byCertificate)
	p.MayLogIn(api, db, "app")
	p.Grant(p.App("pg-gateway"), "PostgreSQL Gateway", db)
	f, _ = hear(t, p, db, token)
	if now := places(f); len(now) != 1 || now[0] == first[0] {
		t.Errorf("at a server of the same name the place is %q, was %q; want another", now, first)
	}
	id := api.Principal()
	p.Delete(api)
	f.roles(id)
	if len(places(f)) > 0 { // in the same transaction, and told one after the other
		f.until(func(client.Event) bool { return len(places(f)) == 0 })
	}
}
