package agent_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"innate/agent"
	"innate/feed/client"
	"innate/gateway/postgres/postgrestest"
)

// The passwords are those that the plane issues as tokens, kept by the server
// itself: what is asked here is whether the libraries read our file as we mean it.
func TestLibpqAndPgxReadTheFileAsItIsMeant(t *testing.T) {
	t.Parallel()
	pg := postgrestest.Start(t, postgrestest.WithHBA("hostssl all all all scram-sha-256"))
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip(err)
	}
	authority, err := os.ReadFile(pg.CA)
	if err != nil {
		t.Fatal(err)
	}
	p := newPlane(t)
	roles := []string{"app", `we"ird:ro\le`, `\`, ":", "*", "größe", "other"}
	var logins []client.Login
	for i, role := range roles {
		l := login("db-1", role, 1)
		l.Host, l.Port, l.Authorities = "localhost", pg.Port, string(authority)
		l.Audience += strconv.Itoa(i) // a password of its own, so that no line stands for another
		logins = append(logins, l)
	}
	p.place(with(app(ident(1, true)), logins...))
	a := p.start(nil)
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	folder := a.loginsFolder(t, 1)
	_, passwords := passes(t, folder)
	for i, role := range roles {
		password := strings.NewReplacer(`\:`, ":", `\\`, `\`).Replace(passwords[i])
		pg.Exec("CREATE ROLE " + pgx.Identifier{role}.Sanitize() + " LOGIN PASSWORD '" + password + "'")
		at := fmt.Sprintf(`host=localhost port=%d dbname=postgres user='%s'`, pg.Port, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(role))
		name, status, err := a.console(t, 1, psql, "-w", "-At", "-c", "SELECT current_user", at)
		if name != role || status != 0 || err != nil {
			t.Errorf("libpq as %q: %q, %d %v", role, name, status, err)
		}
		if role == "*" {
			continue // pgx knows no way to say it
		}
		conn := pg.Connect(at + " " + pg.VerifyFull() + " passfile=" + filepath.Join(folder, "pgpass"))
		if err := conn.QueryRow(t.Context(), "SELECT current_user").Scan(&name); err != nil || name != role {
			t.Errorf("pgx as %q: %q %v", role, name, err)
		}
	}
}
