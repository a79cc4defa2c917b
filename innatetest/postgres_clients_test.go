package innatetest_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"innate"
	"innate/agent"
	"innate/gateway/postgres/cluster"
	"innate/gateway/postgres/postgrestest"
	"innate/innatetest"
	"innate/platform/database"
)

// A world is a platform with PostgreSQL servers, each with its gateway beside it.
type world struct {
	*innatetest.Platform
	t *testing.T
}

func newWorld(t *testing.T) world {
	t.Helper()
	if _, err := cluster.Find(); err != nil {
		t.Skip(err)
	}
	return world{innatetest.Start(t, innatetest.WithPrograms(t)), t}
}

// postgres starts a server. It and its gateway end with the test.
func (w world) postgres(name string) *database.Database {
	w.t.Helper()
	return w.postgresVia(name, "")
}

// postgresVia is the same with a gateway that reaches the platform at another URL.
func (w world) postgresVia(name, management string) *database.Database {
	w.t.Helper()
	gateway := w.App("gateway-of-" + name)
	said, err := os.Create(filepath.Join(w.t.TempDir(), "gateway"))
	if err != nil {
		w.t.Fatal(err)
	}
	// In memory where there is such a folder: a record on a disk that other tests are at
	// too may take longer than a log-in may.
	parent := "/dev/shm"
	if _, err := os.Stat(parent); err != nil {
		parent = ""
	}
	dir := folderIn(w.t, parent, 0o711)
	db, err := database.Open(w.t.Context(), database.Config{
		Platform: w.Platform.Platform, Program: innatetest.Program(w.t), Dir: dir, Log: said, Management: management,
		Server: w.Admin.Group(innatetest.Group) + innate.ResourceID("/providers/Microsoft.DBforPostgreSQL/flexibleServers/"+name), Gateway: gateway.ID(),
	})
	if err != nil {
		b, _ := os.ReadFile(said.Name())
		w.t.Fatalf("%v; the gateway said:\n%s", err, b)
	}
	w.t.Cleanup(func() {
		if err := db.Close(); err != nil {
			w.t.Error(err)
		}
		if w.t.Failed() {
			b, _ := os.ReadFile(said.Name())
			w.t.Logf("%s: the gateway said:\n%s\nPostgreSQL:\n%s", name, b, db.Log())
		}
		said.Close()
	})
	return db
}

// mayLogIn maps an app to a role that is made for it, and returns when the agent knows.
func (w world) mayLogIn(app *innatetest.App, db *database.Database, role string) {
	w.t.Helper()
	if err := db.Map(w.t.Context(), app.Principal(), role); err != nil {
		w.t.Fatal(err)
	}
	w.knows(app, db, role)
}

// knows waits until the agent knows of a log-in.
func (w world) knows(app *innatetest.App, db *database.Database, role string) {
	w.t.Helper()
	w.await("the agent knows of the log-in", func() bool {
		for _, p := range w.Agent.Status().Placements {
			for _, l := range p.Logins {
				if p.Resource == app.ID() && l.Role == role && l.Server.Equal(db.ID) {
					return true
				}
			}
		}
		return false
	})
}

// await waits until ok, for what happens in the background, also on a machine
// that is busy with other tests.
func (w world) await(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			w.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// A databaseClient is a program with no password in it, that executes each line of its input.
type databaseClient struct {
	name string
	args []string
}

// clients are all that read the password file at each connect, and pgxpool with
// the two lines that make it.
func clients(t *testing.T) []databaseClient {
	t.Helper()
	program := innatetest.Program(t)
	return []databaseClient{
		{"psql", []string{"psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align"}},
		{"psycopg2", []string{"/usr/bin/python3", filepath.Join(public(t, "testdata/python"), "postgres.py")}},
		{"node-postgres", []string{"node", filepath.Join(public(t, "testdata/node"), "postgres.mjs")}},
		{"pgx", []string{program, "sample", "postgres"}},
		{"pgxpool", []string{program, "sample", "postgres", "--pool"}},
	}
}

func TestEveryClientLogsInAsItsAppWithNoPasswordAndItsSessionEndsWithTheMapping(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.postgres("db1")
	all := append(clients(t), databaseClient{"azidentity", []string{innatetest.Program(t), "sample", "postgres", "--token", "https://db1.postgres." + w.Server.Platform.Domain}})
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			w := world{w.Platform, t}
			app := w.App("app-of-" + c.name)
			w.mayLogIn(app, db, "role of "+c.name)
			run := startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), Args: c.args})
			if got, want := run.ask("SELECT current_user;"), "role of "+c.name; got != want {
				t.Fatalf("SELECT current_user: %q, want %q", got, want)
			}
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", run.started.PID))
			if err != nil || len(env) == 0 || strings.Contains(string(env), "PGPASSWORD") || strings.Contains(string(env), "eyJ") {
				t.Errorf("its environment has a password, or there is none (%v)", err)
			}
			if got := run.ask("SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid();"); got != "true" {
				t.Errorf("over TLS: %s", got)
			}
			port := run.ask("SELECT client_port::text FROM pg_stat_activity WHERE pid = pg_backend_pid();")
			if !postgrestest.HoldsPort(t, port, run.processes()...) {
				t.Errorf("the server's peer is at port %s, which is no socket of the app's", port)
			}
			if c.name == "psql" { // one statement at a time, and none when the session ends
				run.end()
				return
			}
			// It is in the middle of a statement, or a pool would connect again and be refused.
			run.tell("SELECT pg_sleep(600)::text;")
			w.await("the statement begins", func() bool {
				n, err := db.Value(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'role of "+c.name+"' AND state = 'active'")
				return err == nil && n == "1"
			})
			if err := db.Unmap(t.Context(), app.Principal()); err != nil {
				t.Fatal(err)
			}
			got := run.line()
			if !strings.Contains(got, "terminating connection due to administrator command") &&
				!strings.Contains(got, "closed unexpectedly") { // libpq over TLS now and then does not see the server's word
				t.Errorf("unmapped: %q, want the session to end", got)
			}
		})
	}
}

// A server sees the tokens of its clients; one that was broken into knows no more than its own.
func TestATokenThatOneServerSawOpensNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken, other := w.postgres("db1"), w.postgres("db2")
	app := w.App("api")
	w.mayLogIn(app, broken, "app")
	w.mayLogIn(app, other, "app")
	file, err := app.Run("sh", "-c", `cat "$PGPASSFILE"`)
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{}
	for line := range strings.Lines(file) {
		at := strings.LastIndexByte(line, ':')
		tokens[line[:at]] = strings.TrimSpace(line[at+1:])
	}
	line := func(db *database.Database) string { return fmt.Sprintf("localhost:%d:*:app", db.Port) }
	if len(tokens) != 2 || tokens[line(broken)] == "" || tokens[line(other)] == "" || tokens[line(broken)] == tokens[line(other)] {
		t.Fatalf("the password file has %d lines, want one for each server with a token of its own", len(tokens))
	}
	for _, c := range []struct {
		at   *database.Database
		with string
		ok   bool
	}{
		{broken, tokens[line(broken)], true},
		{other, tokens[line(other)], true},
		{other, tokens[line(broken)], false},
		{broken, tokens[line(other)], false},
	} {
		config, err := pgx.ParseConfig(c.at.TCP("app", "postgres", "sslmode=require"))
		if err != nil {
			t.Fatal(err)
		}
		config.Password = c.with
		conn, err := pgx.ConnectConfig(t.Context(), config)
		if err == nil {
			conn.Close(t.Context())
		}
		var refused *pgconn.PgError
		if c.ok != (err == nil) || !c.ok && (!errors.As(err, &refused) || refused.Code != "28000") {
			t.Errorf("at %s: %v, want a log-in: %v", c.at.ID.Name(), err, c.ok)
		}
	}
}

func TestADisabledIdentityLosesItsSessionItsPasswordAndNextLogIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.postgres("db1")
	app, beside := w.App("api"), w.App("beside")
	w.mayLogIn(app, db, "app")
	// Another identity on the same role is none of its business.
	w.ARM(http.MethodPut, string(db.ID)+"/principals/"+string(beside.Principal()), map[string]any{"properties": map[string]any{"roles": []string{"app"}}}, nil)
	w.knows(beside, db, "app")
	start := func(app *innatetest.App) *program {
		return startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), Args: []string{innatetest.Program(t), "sample", "postgres"}})
	}
	run, others := start(app), start(beside)
	for _, r := range []*program{run, others} {
		if got := r.ask("SELECT current_user"); got != "app" {
			t.Fatalf("SELECT current_user: %q", got)
		}
	}
	if err := w.Admin.Graph(t.Context(), http.MethodPatch, "/v1.0/servicePrincipals/"+string(app.Principal()), map[string]any{"accountEnabled": false}, nil); err != nil {
		t.Fatal(err)
	}
	if got := run.ask("SELECT pg_sleep(600)::text"); !strings.HasPrefix(got, "error 57P01") {
		t.Errorf("its session: %q, want it to end", got)
	}
	if got := others.ask("SELECT current_user"); got != "app" {
		t.Errorf("the other identity's session on that role: %q", got)
	}
	folder, err := filepath.Glob(filepath.Join(string(w.Dir), "run", "postgres", "api-*", "pgpass"))
	if err != nil || len(folder) != 1 {
		t.Fatalf("password files: %q %v", folder, err)
	}
	w.await("its password is gone", func() bool {
		b, err := os.ReadFile(folder[0])
		return err == nil && len(b) == 0
	})
}
