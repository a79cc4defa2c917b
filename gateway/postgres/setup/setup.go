// Package setup tells a PostgreSQL server of its gateway, and says what is
// missing or unsafe there, to whoever administers it.
//
// It owns what is in pg_hba.conf, pg_ident.conf and the server's environment
// between two marks, the roles that the gateway needs, and two settings. It
// shows each change first, and changes nothing outside of its marks. What the
// lines are is package postgres's.
package setup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"innate"
)

// Config says which server is to be set up and how. All but Roles are required.
type Config struct {
	Server      innate.ResourceID // or its name alone
	Gateway     netip.AddrPort    // where it listens
	CA          string            // path of its authority's certificate
	Clients     string            // path of the authority that client certificates are of; the gateway writes it
	User        string            // the operating system's, that the gateway runs as
	Roles       []string          // that identities log in as; they are made when they are not there
	Certificate bool              // clients log in by certificate, not by token
}

// A Server is what one says of itself, read by Read.
type Server struct {
	config Config

	version  int    // server_version_num
	release  string // server_version
	ldap     bool   // built with it
	settings map[string]string
	rules    []rule
	maps     []string // lines of pg_ident.conf that cannot be read
	roles    map[string]role

	pid         int               // the postmaster's; 0 when it is not reached by its socket
	environment map[string]string // the postmaster's; nil when it could not be read
	unreadable  error             // why not
	unit        string            // the systemd unit that it runs in; empty: none
}

// A rule is a line of pg_hba.conf as the server reads it.
type rule struct {
	Line      int
	Type      string
	Databases []string
	Users     []string
	Method    string
	Options   []string
	Error     string
}

// A role is one of the server's.
type role struct {
	Name              string
	Superuser, LogsIn bool
	Managed, Inherits bool // a member of innate_managed, and directly
	MayEnd, MaySee    bool // of pg_signal_backend, of pg_read_all_stats
	MayFind           bool // of pg_read_all_settings
	MayReload         bool // call pg_reload_conf()
}

// Read asks a server, as a superuser, over its own socket.
func Read(ctx context.Context, conn *pgx.Conn, c Config) (*Server, error) {
	s := &Server{config: c, settings: map[string]string{}, roles: map[string]role{}}
	var super string
	if err := conn.QueryRow(ctx, "SELECT current_setting('is_superuser')").Scan(&super); err != nil {
		return nil, err
	}
	if super != "on" {
		return nil, fmt.Errorf("%s is no superuser of this server, and what is asked for only those may see", conn.Config().User)
	}
	for _, read := range []func(context.Context, *pgx.Conn) error{s.readSettings, s.readRules, s.readRoles} {
		if err := read(ctx, conn); err != nil {
			return nil, fmt.Errorf("reading the server's set-up: %w", err)
		}
	}
	s.readProcess(conn)
	return s, nil
}

func (s *Server) readSettings(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT name, setting FROM pg_settings WHERE name = ANY($1)`, []string{
		"server_version", "server_version_num", "hba_file", "ident_file", "ssl", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir", "data_directory", "authentication_timeout", "log_connections", "config_file",
	})
	if err != nil {
		return err
	}
	var name, value string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { s.settings[name] = value; return nil }); err != nil {
		return err
	}
	s.release = s.settings["server_version"]
	if _, err := fmt.Sscan(s.settings["server_version_num"], &s.version); err != nil {
		return err
	}
	return conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%--with-ldap%')`).Scan(&s.ldap)
}

func (s *Server) readRules(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT line_number, coalesce(type, ''), coalesce(database, '{}'), coalesce(user_name, '{}'),
		coalesce(auth_method, ''), coalesce(options, '{}'), coalesce(error, '') FROM pg_hba_file_rules ORDER BY line_number`)
	if err != nil {
		return err
	}
	s.rules, err = pgx.CollectRows(rows, pgx.RowToStructByPos[rule])
	if err != nil || s.version < 150000 {
		return err
	}
	rows, err = conn.Query(ctx, `SELECT 'line ' || line_number || ': ' || error FROM pg_ident_file_mappings WHERE error IS NOT NULL`)
	if err != nil {
		return err
	}
	s.maps, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

func (s *Server) readRoles(ctx context.Context, conn *pgx.Conn) error {
	// A superuser is a member of everything by pg_has_role, and for a line of
	// pg_hba.conf only of what it was made a member of.
	rows, err := conn.Query(ctx, `WITH RECURSIVE managed AS (
			SELECT oid, 0 AS depth FROM pg_roles WHERE rolname = $1
			UNION SELECT m.member, managed.depth + 1 FROM pg_auth_members m JOIN managed ON m.roleid = managed.oid)
		SELECT rolname, rolsuper, rolcanlogin, EXISTS (SELECT FROM managed WHERE oid = r.oid AND depth > 0),
			EXISTS (SELECT FROM managed WHERE oid = r.oid AND depth = 1),
			pg_has_role(oid, 'pg_signal_backend', 'MEMBER'), pg_has_role(oid, 'pg_read_all_stats', 'MEMBER'),
			pg_has_role(oid, 'pg_read_all_settings', 'MEMBER'), has_function_privilege(oid, 'pg_reload_conf()', 'EXECUTE')
		FROM pg_roles r`, managed)
	if err != nil {
		return err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[role])
	for _, r := range all {
		s.roles[r.Name] = r
	}
	return err
}

// readProcess looks at the postmaster from outside. What is not to be seen is
// said in its place.
func (s *Server) readProcess(conn *pgx.Conn) {
	socket, ok := conn.PgConn().Conn().(*net.UnixConn)
	if !ok {
		s.unreadable = errors.New("the server was not reached by its socket, so its process is not known")
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		s.unreadable = err
		return
	}
	if err := raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			s.pid = int(peer.Pid)
		}
	}); err != nil || s.pid == 0 {
		s.unreadable = errors.New("the kernel does not name the server's process")
		return
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", s.pid))
	if err != nil {
		s.unreadable = fmt.Errorf("%w: ask again as root or as the server's user", err)
		return
	}
	s.environment = map[string]string{}
	for _, v := range strings.Split(string(b), "\x00") {
		if name, value, ok := strings.Cut(v, "="); ok {
			s.environment[name] = value
		}
	}
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", s.pid))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(group)) {
		for _, part := range strings.Split(strings.TrimSpace(line), "/") {
			if strings.HasSuffix(part, ".service") && !strings.HasPrefix(part, "user@") {
				s.unit = part
			}
		}
	}
}

// environmentFile is where the server's environment is written down; empty when
// that cannot be known from here.
func (s *Server) environmentFile() (path string, debian bool) {
	path = filepath.Join(filepath.Dir(s.settings["config_file"]), "environment")
	if _, err := os.Stat(path); err == nil {
		return path, true
	}
	if s.unit != "" {
		return "/etc/systemd/system/" + s.unit + ".d/innate.conf", false
	}
	return "", false
}
