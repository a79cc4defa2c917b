package postgres_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"innate"
	"innate/gateway/postgres/postgrestest"
)

// An executor is a program that executes each line of its input and writes a line for it.
type executor struct {
	in  io.WriteCloser
	out *bufio.Reader
	pid int
}

func (c *executor) ask(t *testing.T, statement string) string {
	t.Helper()
	if _, err := io.WriteString(c.in, statement+"\n"); err != nil {
		t.Fatal(err)
	}
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the client says no more: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func TestEveryClientLogsInByAPasswordFileAndItsSocketIsTheServers(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	sizes := []int{1500, 4000, 8000}
	for _, c := range []struct {
		name string
		args []string
	}{
		{"psql", []string{"psql", "--no-psqlrc", "--no-password", "--tuples-only", "--no-align"}},
		{"psycopg2", []string{"/usr/bin/python3", "../../innatetest/testdata/python/postgres.py"}},
		{"node-postgres", []string{"node", "../../innatetest/testdata/node/postgres.mjs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, size := range sizes {
				token := w.sized(alice, size)
				run := w.startClient(t, c.args, token)
				if got := run.ask(t, "SELECT current_user;"); got != "app" {
					t.Fatalf("with a token of %d bytes: %q", len(token), got)
				}
				port := run.ask(t, "SELECT client_port FROM pg_stat_activity WHERE pid = pg_backend_pid();")
				if !postgrestest.HoldsPort(t, port, run.pid) {
					t.Errorf("the server's peer is at port %s, which is no socket of the client's", port)
				}
				run.in.Close()
			}
		})
	}
	t.Run("pgx", func(t *testing.T) {
		for _, size := range sizes {
			conn, err := pgx.Connect(t.Context(), w.pg.TCP("app", "postgres", w.pg.VerifyFull()+" passfile="+w.passFile(w.sized(alice, size))))
			if err != nil {
				t.Fatalf("with a token of %d bytes: %v", size, err)
			}
			var port string
			if err := conn.QueryRow(t.Context(), "SELECT client_port::text FROM pg_stat_activity WHERE pid = pg_backend_pid()").Scan(&port); err != nil || !postgrestest.HoldsPort(t, port, os.Getpid()) {
				t.Errorf("the server's peer is at port %s (%v), which is no socket of ours", port, err)
			}
			conn.Close(t.Context())
		}
	})
}

// sized is a good token of at least so many bytes.
func (w *world) sized(who innate.ObjectID, size int) string {
	w.t.Helper()
	short := w.token(who, nil)
	padding := max(0, (size-len(short))*3/4)
	return w.token(who, map[string]any{"padding": strings.Repeat("x", padding)})
}

// passFile writes the password file of a client of 127.0.0.1.
func (w *world) passFile(token string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "pgpass")
	if err := os.WriteFile(path, fmt.Appendf(nil, "127.0.0.1:%d:*:app:%s\n", w.pg.Port, token), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// startClient starts a client of libpq's kind, with a password file and no password.
func (w *world) startClient(t *testing.T, args []string, token string) *executor {
	t.Helper()
	path, err := exec.LookPath(args[0])
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(path, args[1:]...)
	cmd.Env = append(os.Environ(), "PGPASSFILE="+w.passFile(token), "PGSSLMODE=verify-full", "PGSSLROOTCERT="+w.pg.CA, "NODE_EXTRA_CA_CERTS="+w.pg.CA,
		"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", w.pg.Port), "PGUSER=app", "PGDATABASE=postgres")
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", args[0], err)
		}
	})
	return &executor{in, bufio.NewReader(out), cmd.Process.Pid}
}
