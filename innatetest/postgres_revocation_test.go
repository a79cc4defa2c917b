package innatetest_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"innate"
	"innate/access"
	"innate/agent"
	"innate/gateway/postgres"
	"innate/gateway/postgres/cluster"
	"innate/innatetest"
	"innate/platform/database"
)

// open logs in with a token, and stays until the test ends.
func (w world) open(db *database.Database, role, token string) *pgx.Conn {
	w.t.Helper()
	conn, err := connect(w.t, db, role, token)
	if err != nil {
		w.t.Fatalf("log-in as %s: %v", role, err)
	}
	w.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func connect(t *testing.T, db *database.Database, role, token string) (*pgx.Conn, error) {
	t.Helper()
	config, err := pgx.ParseConfig(db.TCP(role, "postgres", "sslmode=require"))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = token
	return pgx.ConnectConfig(t.Context(), config)
}

// ends fails the test unless the server ends the session.
func ends(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	_, err := conn.Exec(ctx, "SELECT pg_sleep(600)")
	var end *pgconn.PgError
	if !errors.As(err, &end) || end.Code != "57P01" {
		t.Errorf("its session: %v, want it to end with 57P01", err)
	}
}

func TestASessionEndsWhenTheHostOfItsAppIsEvicted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.postgres("db1")
	beside := w.App("beside") // on the gateway's host
	w.mayLogIn(beside, db, "beside")

	// An app's host is seldom the server's.
	group := w.Admin.Group(innatetest.Group)
	machine, vm := group+"/providers/Microsoft.HybridCompute/machines/node-2", group+"/providers/Microsoft.Compute/virtualMachines/web"
	var made struct {
		Identity struct {
			Principal innate.ObjectID `json:"principalId"`
		} `json:"identity"`
	}
	w.ARM(http.MethodPut, string(machine), map[string]any{"location": "local"}, nil)
	w.ARM(http.MethodPut, string(vm), map[string]any{
		"location": "local", "identity": map[string]string{"type": "SystemAssigned"},
		"properties": map[string]any{"host": map[string]any{"id": machine}},
	}, &made)
	h := &host{dir: folder(t, 0o700), log: slog.New(slog.DiscardHandler)}
	h.join(t, w.Admin, machine)
	a := h.agent(t, "/nonexistent: this test starts no program")
	<-a.Ready()
	env, err := a.Lend(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Map(t.Context(), made.Identity.Principal, "web"); err != nil {
		t.Fatal(err)
	}
	audience := "https://db1.postgres." + w.Server.Platform.Domain
	token := doorOf(t, env).token(t, audience).Token
	w.await("the gateway lets it in", func() bool {
		conn, err := connect(t, db, "web", token)
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})
	session, others := w.open(db, "web", token), w.open(db, "beside", beside.Token(audience))

	w.ARM(http.MethodPost, string(machine)+"/evict", nil, nil)
	ends(t, session)
	if _, err := connect(t, db, "web", token); err == nil {
		t.Error("its token still opens the server")
	}
	if err := others.Ping(t.Context()); err != nil {
		t.Errorf("a session of an app on another host: %v", err)
	}
}

// The gateway's own token is by the lost key too.
func TestASessionEndsWithTheKeyThatSignedItsTokenAndTheNextLogInIsByAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.postgres("db1")
	app := w.App("api")
	w.mayLogIn(app, db, "app")
	token := app.Token("https://db1.postgres." + w.Server.Platform.Domain)
	session := w.open(db, "app", token)
	w.ARM(http.MethodPost, "/keys/roll", map[string]bool{"compromised": true}, nil)
	ends(t, session)
	if _, err := connect(t, db, "app", token); err == nil {
		t.Error("the token by the lost key still opens the server")
	}
	w.await("a log-in by a token of another key", func() bool { return w.logIn(app, db, "app") == nil })
}

func TestAGatewayFindsItsServerByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := w.postgres("db1")
	stranger, known := w.App("stranger"), w.App("known")
	w.ARM(http.MethodPut, string(db.ID)+"/providers/Microsoft.Authorization/roleAssignments/"+innate.NewGUID(), map[string]any{"properties": map[string]any{
		"roleDefinitionId": "/providers/Microsoft.Authorization/roleDefinitions/" + access.PostgreSQLGateway, "principalId": known.Principal(),
	}}, nil)
	start := func(app *innatetest.App) *program {
		dir := folder(t, 0o755)
		if os.Getuid() == 0 {
			if err := os.Chown(dir, db.UID(), -1); err != nil {
				t.Fatal(err)
			}
		}
		signals := make(chan os.Signal, 1)
		run := startProgram(t, w.Platform, agent.RunRequest{App: string(app.ID()), User: db.User(), Signals: signals, Env: []string{"TMPDIR=" + dir}, Args: []string{
			innatetest.Program(t), "gateway", "postgres", "--server", "DB1", "--management", w.Server.Endpoints.Management,
			"--dir", filepath.Join(dir, "gateway"), "--listen", "127.0.0.1:0", "--connection", db.Connection(postgres.Management, cluster.Superuser),
		}})
		t.Cleanup(func() { signals <- syscall.SIGTERM })
		return run
	}
	run := start(known)
	w.await("it is ready", func() bool { return strings.Contains(run.words(), ": ready") })
	if !strings.Contains(run.words(), "for db1 on 127.0.0.1:") {
		t.Errorf("it said:\n%s", run.words())
	}
	refused := start(stranger)
	<-refused.ended
	if text := refused.words(); refused.status == 0 || !strings.Contains(text, `sees no PostgreSQL server called "DB1"`) || !strings.Contains(text, "PostgreSQL Gateway") {
		t.Errorf("without the role it ended with %d and said:\n%s", refused.status, text)
	}
}
