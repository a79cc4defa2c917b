// Package database is a PostgreSQL server of a platform's own: a cluster on
// loopback in a temporary folder, a resource of the platform, and the gateway
// beside it as production has it, an app under the server's account. The tour,
// the benchmark and tests log in at it.
//
// It leaves to cluster what PostgreSQL needs, and to its caller which identities
// and apps there are.
package database

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"innate"
	"innate/access"
	"innate/agent"
	"innate/gateway/postgres"
	"innate/gateway/postgres/cluster"
	"innate/platform"
)

// Config says what a Database needs. All is required but Settings, Management and Log.
type Config struct {
	Platform *platform.Platform
	Program  string            // the innate program, where every uid may start it
	Dir      string            // for all files; others may pass through it
	Server   innate.ResourceID // what it is on the platform; it is made
	Gateway  innate.ResourceID // the app, with an identity of its own, that the gateway runs as
	Settings map[string]string // postgresql.conf
	// Management is the URL by which the gateway reaches the platform; empty means the platform's own.
	Management string
	Log        io.Writer // takes what the gateway writes; nil means os.Stderr
}

// A Database is a running server.
type Database struct {
	*cluster.Cluster
	ID          innate.ResourceID
	Authorities []byte // PEM: whose certificate the server's is

	config  Config
	folder  string         // the gateway's
	listen  netip.AddrPort // the gateway's
	signals chan os.Signal // to the gateway
	ended   chan struct{}  // closed when the gateway has
	heard   chan struct{}  // closed when all that it said was passed on
	err     error          // of the gateway; read after ended
}

// Open starts the server and its gateway, and returns when log-ins are decided.
// The error is cluster.Find's where no server program is.
func Open(ctx context.Context, c Config) (_ *Database, err error) {
	if _, err := cluster.Find(); err != nil {
		return nil, err
	}
	identity, err := cluster.NewIdentity()
	if err != nil {
		return nil, err
	}
	user, err := cluster.ServerUser()
	if err != nil {
		return nil, err
	}
	d := &Database{ID: c.Server, Authorities: identity.Certificate, config: c, folder: filepath.Join(c.Dir, "gateway")}
	if d.listen, err = freeAddress(); err != nil {
		return nil, err
	}
	settings := map[string]string{"authentication_timeout": "10s", "fsync": "off"} // nobody misses what is in it
	for name, value := range c.Settings {
		settings[name] = value
	}
	if d.Cluster, err = cluster.Start(ctx, cluster.Config{
		Dir: filepath.Join(c.Dir, "postgres"), Identity: identity, Settings: settings,
		HBA: strings.Join(postgres.HBA(postgres.ByToken(c.Server, d.listen)), "\n"), Ident: postgres.Ident(user),
		Env: postgres.Environment(filepath.Join(d.folder, postgres.CAFile)),
	}); err != nil {
		return nil, err
	}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	if err := d.StartGateway(ctx); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// prepare makes the roles that the gateway wants, and the resource.
func (d *Database) prepare(ctx context.Context) error {
	if err := d.Exec(ctx, "CREATE ROLE "+postgres.Managed+"; CREATE ROLE "+postgres.Management+" LOGIN; "+
		"GRANT pg_signal_backend, pg_read_all_stats TO "+postgres.Management); err != nil {
		return err
	}
	if err := d.Authenticate(ctx, "token"); err != nil {
		return err
	}
	a := d.config.Platform.Admin
	var gateway struct {
		Identity struct {
			Principal innate.ObjectID `json:"principalId"`
		} `json:"identity"`
	}
	if err := a.ARM(ctx, http.MethodGet, string(d.config.Gateway), nil, &gateway); err != nil {
		return err
	}
	const authorization = "/providers/Microsoft.Authorization/"
	return a.ARM(ctx, http.MethodPut, string(d.ID)+authorization+"roleAssignments/"+innate.NewGUID(), map[string]any{
		"properties": map[string]any{
			"roleDefinitionId": authorization + "roleDefinitions/" + access.PostgreSQLGateway, "principalId": gateway.Identity.Principal,
		},
	}, nil)
}

// Authenticate makes the resource one at which clients log in by token or by
// certificate. The server itself is told by Prepare.
func (d *Database) Authenticate(ctx context.Context, by string) error {
	return d.config.Platform.Admin.ARM(ctx, http.MethodPut, string(d.ID), map[string]any{"location": "local", "properties": map[string]any{
		"fullyQualifiedDomainName": "localhost", "port": d.Port, "certificateAuthorities": string(d.Authorities), "authentication": by,
	}}, nil)
}

// Host runs 'innate postgres prepare' or 'check' as the server's administrator
// would, and returns what it says. The error is that of an exec.Cmd.
func (d *Database) Host(ctx context.Context, command string, more ...string) (said string, err error) {
	args := append([]string{"postgres", command, "--server", d.ID.Name(), "--connection", d.Connection(cluster.Superuser, cluster.Superuser),
		"--gateway", d.listen.String(), "--dir", d.folder, "--user", d.User()}, more...)
	out, err := exec.CommandContext(ctx, d.config.Program, args...).CombinedOutput()
	return string(out), err
}

// StartGateway starts the gateway and returns when it decides log-ins.
func (d *Database) StartGateway(ctx context.Context) error {
	if err := os.MkdirAll(d.folder, 0o755); err != nil {
		return err
	}
	c := d.config
	run := agent.RunRequest{App: string(c.Gateway), Dir: "/", Env: append(os.Environ(), "TMPDIR="+d.folder), Args: []string{
		c.Program, "gateway", "postgres", "--server", string(d.ID), "--management", cmp.Or(c.Management, c.Platform.Server.Endpoints.Management),
		"--dir", d.folder, "--listen", d.listen.String(), "--connection", d.Connection(postgres.Management, cluster.Superuser),
	}}
	if os.Getuid() == 0 {
		run.User = d.User()
		if err := os.Chown(d.folder, d.UID(), -1); err != nil {
			return err
		}
	}
	told, out, err := os.Pipe()
	if err != nil {
		return err
	}
	d.signals, d.ended, d.heard = make(chan os.Signal, 1), make(chan struct{}), make(chan struct{})
	run.Stderr, run.Signals = out, d.signals
	go func() {
		defer close(d.ended)
		defer out.Close()
		status, err := agent.Run(c.Platform.Dir.AgentSocket(), run)
		if err == nil && status != 0 {
			err = fmt.Errorf("the gateway ended with %d", status)
		}
		d.err = err
	}()
	ready := make(chan struct{})
	go d.listenTo(told, ready)
	select {
	case <-ready:
		return nil
	case <-d.ended:
		<-d.heard
		return cmp.Or(d.err, errors.New("the gateway ended at once"))
	case <-ctx.Done():
		return errors.Join(ctx.Err(), d.StopGateway())
	}
}

// listenTo passes on what the gateway says, and closes ready when it says that it is.
func (d *Database) listenTo(told *os.File, ready chan struct{}) {
	defer close(d.heard)
	defer told.Close()
	var to io.Writer = os.Stderr
	if d.config.Log != nil {
		to = d.config.Log
	}
	said := false
	for lines := bufio.NewScanner(told); lines.Scan(); {
		fmt.Fprintln(to, lines.Text())
		if !said && strings.HasSuffix(lines.Text(), ": ready") {
			said = true
			close(ready)
		}
	}
}

// StopGateway ends the gateway.
func (d *Database) StopGateway() error {
	d.signals <- syscall.SIGTERM
	<-d.ended
	<-d.heard
	return d.err
}

// Close ends the gateway and the server.
func (d *Database) Close() error { return errors.Join(d.StopGateway(), d.Stop()) }

// Exec executes statements as the superuser.
func (d *Database) Exec(ctx context.Context, statements string) error {
	return d.superuser(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol)
		return err
	})
}

// Value is the first column of the first row of a query, asked for by the superuser.
func (d *Database) Value(ctx context.Context, query string) (text string, err error) {
	var value any
	err = d.superuser(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, query).Scan(&value) })
	return fmt.Sprint(value), err
}

func (d *Database) superuser(ctx context.Context, do func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, d.Connection(cluster.Superuser, cluster.Superuser))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	return do(conn)
}

// Map makes roles that log in by identity, and maps a principal to them.
func (d *Database) Map(ctx context.Context, who innate.ObjectID, roles ...string) error {
	for _, role := range roles {
		if err := d.Exec(ctx, "CREATE ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN IN ROLE "+postgres.Managed); err != nil {
			return err
		}
	}
	return d.config.Platform.Admin.ARM(ctx, http.MethodPut, d.mapping(who), map[string]any{"properties": map[string]any{"roles": roles}}, nil)
}

// Unmap takes the mapping away; the roles stay.
func (d *Database) Unmap(ctx context.Context, who innate.ObjectID) error {
	return d.config.Platform.Admin.ARM(ctx, http.MethodDelete, d.mapping(who), nil, nil)
}

func (d *Database) mapping(who innate.ObjectID) string {
	return string(d.ID) + "/principals/" + string(who)
}

// freeAddress is one on loopback that nobody had a moment ago.
func freeAddress() (netip.AddrPort, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}
