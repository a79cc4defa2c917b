// Package cluster is a PostgreSQL server of one's own in a folder: for tests, for
// a demonstration, for a benchmark. PostgreSQL calls such a folder a cluster.
//
// It owns the folder and the postmaster, which ends with this process however
// that ends. It leaves to its caller what pg_hba.conf says and what is in the
// server's environment. It listens on loopback and on a socket in the folder,
// where root and whoever started it are the superuser, postgres.
package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Superuser is the role that the cluster belongs to.
const Superuser = "postgres"

// Config says what to start. Dir is required.
type Config struct {
	Dir      string            // made when absent; every folder above it must let the server's user pass when we are root
	Programs string            // folder of initdb and postgres; empty: what Find finds
	Port     int               // on 127.0.0.1; 0 means a free one
	Settings map[string]string // postgresql.conf
	HBA      string            // lines of pg_hba.conf, above those that let in the superuser by the socket and others by password
	Ident    string            // lines of pg_ident.conf
	Env      []string          // of the postmaster, each NAME=VALUE; nothing else is in it but PATH and LANG
	Identity Identity          // the server's certificate; the zero value: TLS is off
}

// A Cluster is a running server.
type Cluster struct {
	Port   int
	Socket string // folder of its socket

	config Config
	as     account
	cmd    *exec.Cmd
	log    *log
	ended  chan struct{} // closed when the postmaster has
	err    error         // why it ended; to be read when ended is closed
}

// Find returns the folder of the newest PostgreSQL server programs here.
func Find() (programs string, err error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // Debian
	more, _ := filepath.Glob("/usr/pgsql-*/bin/postgres")           // PGDG on Red Hat
	if found = append(found, more...); len(found) == 0 {
		path, err := exec.LookPath("postgres")
		if err != nil {
			return "", errors.New("no PostgreSQL server program is on this machine (package postgresql)")
		}
		found = []string{path}
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) })
	return filepath.Dir(newest), nil
}

// version is the number in a path such as /usr/lib/postgresql/15/bin/postgres.
func version(path string) (n int) {
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '-' }) {
		if v, err := strconv.Atoi(part); err == nil {
			n = v
		}
	}
	return n
}

// Start makes the cluster when the folder has none, and returns when the server
// takes connections. Stop ends it; so does the end of ctx.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	c := &Cluster{config: config, Port: config.Port, Socket: filepath.Join(config.Dir, "run")}
	var err error
	if c.config.Programs == "" {
		if c.config.Programs, err = Find(); err != nil {
			return nil, err
		}
	}
	if c.as, err = serverAccount(); err != nil {
		return nil, err
	}
	if c.Port == 0 {
		if c.Port, err = freePort(); err != nil {
			return nil, err
		}
	}
	if err := c.prepare(ctx); err != nil {
		return nil, fmt.Errorf("making a PostgreSQL cluster in %s: %w", config.Dir, err)
	}
	if err := c.start(ctx); err != nil {
		return nil, fmt.Errorf("starting PostgreSQL in %s: %w", config.Dir, err)
	}
	return c, nil
}

// An account is as whom the server runs; it refuses to be root.
type account struct {
	name       string
	uid, gid   int
	credential *syscall.Credential // nil: our own
}

// ServerUser is the name of the account that servers run as here.
func ServerUser() (string, error) {
	as, err := serverAccount()
	return as.name, err
}

func serverAccount() (account, error) {
	if os.Getuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, err
		}
		return account{u.Username, os.Getuid(), os.Getgid(), nil}, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return account{}, fmt.Errorf("PostgreSQL does not run as root: %w", err)
		}
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return account{u.Username, uid, gid, &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, errors.Join(err1, err2)
}

// freePort is a port that was free a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Data is the folder of the cluster's files, pg_hba.conf among them.
func (c *Cluster) Data() string { return filepath.Join(c.config.Dir, "data") }

// Env is the environment that the server was started in.
func (c *Cluster) Env() []string { return c.config.Env }

// PID is the postmaster's.
func (c *Cluster) PID() int { return c.cmd.Process.Pid }

// User is the name of the account that the server runs as.
func (c *Cluster) User() string { return c.as.name }

// UID is the same as a number.
func (c *Cluster) UID() int { return c.as.uid }

// Program is the path of one of PostgreSQL's programs.
func (c *Cluster) Program(name string) string { return filepath.Join(c.config.Programs, name) }

// prepare makes what is not there and writes the configuration.
func (c *Cluster) prepare(ctx context.Context) error {
	for _, dir := range []string{c.config.Dir, c.Data(), c.Socket} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(c.Data(), 0o700), c.give(c.Data()), c.give(c.Socket)); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.Data(), "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		out, err := c.command(ctx, "initdb", "--pgdata", c.Data(), "--username", Superuser, "--encoding", "UTF8", "--locale", "C.UTF-8",
			"--auth", "peer", "--no-sync").CombinedOutput()
		if err != nil {
			return fmt.Errorf("initdb: %w\n%s", err, out)
		}
	}
	return c.configure()
}

// Write puts a file among the cluster's, owned by the server's account, mode 0600.
func (c *Cluster) Write(name string, content []byte) error {
	path := filepath.Join(c.Data(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return c.give(path)
}

func (c *Cluster) give(path string) error {
	if c.as.credential == nil {
		return nil
	}
	return os.Chown(path, c.as.uid, c.as.gid)
}

func (c *Cluster) configure() error {
	settings := map[string]string{
		"listen_addresses": "127.0.0.1", "port": strconv.Itoa(c.Port), "unix_socket_directories": c.Socket,
		"unix_socket_permissions": "0777", // pg_hba.conf decides
		"ssl":                     "off", "shared_buffers": "16MB", "max_connections": "60", "logging_collector": "off",
		"lc_messages": "C", "log_destination": "stderr",
	}
	hba, ident := c.config.HBA+"\nlocal all "+Superuser+" peer map=owner\n", c.config.Ident
	hba += "host all all 127.0.0.1/32 scram-sha-256\n"
	for _, name := range slices.Compact([]string{"root", c.as.name}) {
		ident += fmt.Sprintf("\nowner %s %s\n", name, Superuser)
	}
	if len(c.config.Identity.Certificate) > 0 {
		settings["ssl"] = "on"
		if err := errors.Join(c.Write("server.crt", c.config.Identity.Certificate), c.Write("server.key", c.config.Identity.Key)); err != nil {
			return err
		}
	}
	maps.Copy(settings, c.config.Settings)
	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return errors.Join(c.Write("postgresql.conf", []byte(conf.String())),
		c.Write("pg_hba.conf", []byte(hba)), c.Write("pg_ident.conf", []byte(ident)))
}

// command is one of PostgreSQL's programs as the server's account, in the
// server's environment.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Program(name), args...)
	cmd.Dir = c.config.Dir
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, c.config.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as.credential}
	return cmd
}

const ready = "database system is ready to accept connections"

// start starts the postmaster and waits until it says that it is ready.
func (c *Cluster) start(ctx context.Context) error {
	c.cmd = c.command(ctx, "postgres", "-D", c.Data())
	c.cmd.SysProcAttr.Setpgid = true                                            // a Ctrl-C at the terminal is for whoever started us
	c.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT                               // at once: PostgreSQL recovers, and nothing stays behind
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGINT) } // ends sessions, then itself
	c.log = newLog()
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	if err := c.cmd.Start(); err != nil {
		return err
	}
	c.ended = make(chan struct{})
	go func() {
		c.err = c.cmd.Wait()
		c.log.Close()
		close(c.ended)
	}()
	if err := c.log.await(ctx, func(line []byte) bool { return bytes.Contains(line, []byte(ready)) }); err != nil {
		c.Stop()
		return fmt.Errorf("%w: it wrote:\n%s", err, c.log.text())
	}
	return nil
}

// Stop ends the sessions and the server. The files stay.
func (c *Cluster) Stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.ended
	if c.err != nil && c.cmd.ProcessState.ExitCode() != 0 {
		return fmt.Errorf("PostgreSQL ended with: %w", c.err)
	}
	return nil
}

// Restart stops the server and starts it in another environment.
func (c *Cluster) Restart(ctx context.Context, env []string) error {
	if err := c.Stop(); err != nil {
		return err
	}
	c.config.Env = env
	return c.start(ctx)
}

// Reload makes the server read its configuration again. That has happened when
// the log says "parameter ... changed" or the next connection is made; a line of
// pg_hba.conf that cannot be read is in the log.
func (c *Cluster) Reload() error { return c.cmd.Process.Signal(syscall.SIGHUP) }

// Log is what the server has written since it was started.
func (c *Cluster) Log() string { return string(c.log.text()) }

// Await returns once a line that the server has written since it was started
// contains what; its error is ctx's or says that the server has ended.
func (c *Cluster) Await(ctx context.Context, what string) error {
	return c.log.await(ctx, func(line []byte) bool { return bytes.Contains(line, []byte(what)) })
}

// Connection is a connection string for role at database over the socket.
func (c *Cluster) Connection(role, database string) string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=%s", c.Socket, c.Port, quoted(role), quoted(database))
}

// TCP is the same over 127.0.0.1; more is appended as it is, such as sslmode=verify-full.
func (c *Cluster) TCP(role, database, more string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=%s %s", c.Port, quoted(role), quoted(database), more)
}

// quoted is a value in a connection string.
func quoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
