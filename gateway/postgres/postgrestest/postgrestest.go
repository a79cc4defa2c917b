// Package postgrestest is a real PostgreSQL server for a test: a cluster of the
// test's own, on a free port of loopback and a socket, gone when the test ends.
//
//	pg := postgrestest.Start(t, postgrestest.WithHBA("hostssl all all all scram-sha-256"))
//	pg.Exec(`CREATE ROLE app LOGIN PASSWORD 'x'`)
//	conn := pg.Connect(pg.TCP("app", "postgres", pg.VerifyFull()+" password=x"))
//
// Its TLS certificate is for 127.0.0.1, ::1, localhost and the names given by
// WithName. It is skipped, and says so, where no server program is.
package postgrestest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"innate/gateway/postgres/cluster"
)

// A Server is a running PostgreSQL.
type Server struct {
	*cluster.Cluster
	CA string // file of the authority of its certificate

	t testing.TB
}

// An Option changes what Start does.
type Option func(*options)

type options struct {
	cluster.Config
	names []string
}

// WithHBA puts lines at the head of pg_hba.conf.
func WithHBA(lines string) Option { return func(o *options) { o.HBA += lines + "\n" } }

// WithIdent puts lines into pg_ident.conf.
func WithIdent(lines string) Option { return func(o *options) { o.Ident += lines + "\n" } }

// WithEnv adds to the postmaster's environment; each is NAME=VALUE.
func WithEnv(vars ...string) Option { return func(o *options) { o.Env = append(o.Env, vars...) } }

// WithSetting sets a line of postgresql.conf.
func WithSetting(name, value string) Option { return func(o *options) { o.Settings[name] = value } }

// WithName is another name in the server's certificate.
func WithName(host string) Option { return func(o *options) { o.names = append(o.names, host) } }

// Start runs a server until the test ends.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	programs, err := cluster.Find()
	if err != nil {
		t.Skipf("postgrestest: %v", err)
	}
	o := options{Config: cluster.Config{
		Dir: folder(t), Programs: programs,
		Settings: map[string]string{"fsync": "off", "full_page_writes": "off"}, // nobody trips over the plug of a test
	}}
	for _, set := range opts {
		set(&o)
	}
	s := &Server{t: t, CA: filepath.Join(o.Dir, "ca.crt")}
	if o.Identity, err = cluster.NewIdentity(o.names...); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.CA, o.Identity.Certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	if s.Cluster, err = cluster.Start(context.WithoutCancel(t.Context()), o.Config); err != nil {
		t.Fatalf("postgrestest: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Errorf("postgrestest: %v", err)
		}
		if t.Failed() {
			t.Logf("postgrestest: the server's log:\n%s", s.Log())
		}
	})
	return s
}

// folder is a temporary folder that the server's account may pass through.
// Unix sockets live in it, so its path is short.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postgrestest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// VerifyFull is the part of a connection string that makes the client check the
// server's certificate.
func (s *Server) VerifyFull() string { return "sslmode=verify-full sslrootcert=" + s.CA }

// Exec runs statements as the superuser, over the socket.
func (s *Server) Exec(statements string) {
	s.t.Helper()
	s.superuser(func(conn *pgx.Conn) error {
		_, err := conn.Exec(s.t.Context(), statements, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

// Query is the first column of the first row, as text, asked for by the superuser.
func (s *Server) Query(statement string, args ...any) string {
	s.t.Helper()
	var value any
	s.superuser(func(conn *pgx.Conn) error {
		return conn.QueryRow(s.t.Context(), statement, args...).Scan(&value)
	})
	return fmt.Sprint(value)
}

func (s *Server) superuser(do func(*pgx.Conn) error) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.Connection(cluster.Superuser, "postgres"))
	if err != nil {
		s.t.Fatalf("postgrestest: %v", err)
	}
	defer conn.Close(s.t.Context())
	if err := do(conn); err != nil {
		s.t.Fatalf("postgrestest: %v", err)
	}
}

// Await returns once the server's log has a line that contains what; it fails
// the test when that takes twenty seconds.
func (s *Server) Await(what string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Cluster.Await(ctx, what); err != nil {
		s.t.Fatalf("postgrestest: waiting for %q in the server's log: %v", what, err)
	}
}

// Connect connects until the test ends and fails it when it is refused.
func (s *Server) Connect(connection string) *pgx.Conn {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), connection)
	if err != nil {
		s.t.Fatalf("postgrestest: %v", err)
	}
	s.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// HoldsPort reports whether one of these processes holds a TCP socket of IPv4 whose
// local port that is, as client_port of pg_stat_activity names it: nothing is
// between client and server then.
func HoldsPort(t testing.TB, port string, pids ...int) bool {
	t.Helper()
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatalf("port %q", port)
	}
	table, err := os.ReadFile("/proc/thread-self/net/tcp") // /proc/net is the first thread's, which may be away in another network namespace
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // sl local_address rem_address st … inode
		if len(f) < 10 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", n)) {
			continue
		}
		for _, pid := range pids {
			open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
			if slices.ContainsFunc(open, func(fd string) bool {
				to, _ := os.Readlink(fd)
				return to == "socket:["+f[9]+"]"
			}) {
				return true
			}
		}
	}
	return false
}
