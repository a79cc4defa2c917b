package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"innate/gateway/postgres"
	"innate/gateway/postgres/block"
)

const (
	managed    = postgres.Managed
	management = postgres.Management
)

// What a change needs to be in force.
const (
	AtOnce  = "at once"
	Reload  = "reload"
	Restart = "restart"
)

// A Step is one change that brings a server nearer to what it should be.
type Step struct {
	What      string // of the file or the statement, for people
	Statement string // SQL; empty: it is a file
	Path      string // of the file; empty: the lines must be put where they belong by hand
	Removed   []string
	Added     []string
	Needs     string // AtOnce, Reload or Restart

	content string // of the whole file, afterwards
}

// Steps are what must be changed, in the order in which it is done. Without any
// the server is as it should be, or waits for a restart: see Faults.
func (s *Server) Steps() (all []Step, err error) {
	all = s.roleSteps()
	all = append(all, s.settingSteps()...)
	// pg_hba.conf last: once it is in force, nothing of what it needs is missing.
	for _, missing := range []func() (*Step, error){s.environmentStep, s.authorityStep, s.authoritySetting, s.identStep, s.hbaStep} {
		step, err := missing()
		if err != nil {
			return nil, err
		}
		if step != nil {
			all = append(all, *step)
		}
	}
	return all, nil
}

// hbaStep is who logs in by what.
func (s *Server) hbaStep() (*Step, error) {
	method := postgres.ByToken(s.config.Server, s.config.Gateway)
	if s.config.Certificate {
		method = postgres.ByCertificate
	}
	return blockStep("who logs in by what", s.settings["hba_file"], postgres.HBA(method), Reload)
}

// identStep is who may be the gateway's role and, for log-ins by certificate, a
// block that the gateway fills. Its rows are left as they are; where one logs in
// by token they go.
func (s *Server) identStep() (*Step, error) {
	path, what := s.settings["ident_file"], "who may be "+management
	before, err := read(path)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Step, error) { return nil, fmt.Errorf("%s: %w", path, err) }
	head, old, tail, _, err := own.Cut(before)
	if err != nil {
		return fail(err)
	}
	head, rows, tail, kept, err := postgres.Rows.Cut(head + tail)
	if err != nil {
		return fail(err)
	}
	lines := []string{postgres.Ident(s.config.User)}
	after := own.Text(lines)
	if kept {
		old = append(append(old, string(postgres.Rows)), rows...)
	}
	if s.config.Certificate {
		what += ", and the gateway's rows of who logs in by certificate"
		after += postgres.Rows.Text(rows)
		lines = append(append(lines, string(postgres.Rows)), rows...)
	}
	return difference(what, path, Reload, before, after+head+tail, old, lines), nil
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

func statement(needs, format string, args ...any) Step {
	sql := fmt.Sprintf(format, args...)
	return Step{What: "statement", Statement: sql, Added: []string{sql + ";"}, Needs: needs}
}

func (s *Server) roleSteps() (all []Step) {
	if _, ok := s.roles[managed]; !ok {
		all = append(all, statement(AtOnce, "CREATE ROLE %s NOLOGIN", managed))
	}
	gateway, ok := s.roles[management]
	if !ok {
		all = append(all, statement(AtOnce, "CREATE ROLE %s LOGIN", management))
	} else if !gateway.LogsIn {
		all = append(all, statement(AtOnce, "ALTER ROLE %s LOGIN", management))
	}
	if !gateway.MayEnd || !gateway.MaySee {
		all = append(all, statement(AtOnce, "GRANT pg_signal_backend, pg_read_all_stats TO %s", management))
	}
	if s.config.Certificate && !gateway.MayFind {
		all = append(all, statement(AtOnce, "GRANT pg_read_all_settings TO %s", management)) // where pg_ident.conf is
	}
	if s.config.Certificate && !gateway.MayReload {
		all = append(all, statement(AtOnce, "GRANT EXECUTE ON FUNCTION pg_reload_conf() TO %s", management))
	}
	for _, name := range s.config.Roles {
		r, ok := s.roles[name]
		switch {
		case !ok:
			all = append(all, statement(AtOnce, "CREATE ROLE %s LOGIN IN ROLE %s", quoted(name), managed))
		case r.Superuser:
			// Faults says so: an identity that is a superuser is never made.
		default:
			if !r.LogsIn {
				all = append(all, statement(AtOnce, "ALTER ROLE %s LOGIN", quoted(name)))
			}
			if !r.Managed {
				all = append(all, statement(AtOnce, "GRANT %s TO %s", managed, quoted(name)))
			}
		}
	}
	return all
}

func (s *Server) settingSteps() (all []Step) {
	if s.loginTime() > longestLogin {
		all = append(all, statement(Reload, "ALTER SYSTEM SET authentication_timeout = '10s'"))
	}
	if s.settings["log_connections"] == "off" {
		all = append(all, statement(Reload, "ALTER SYSTEM SET log_connections = on"))
	}
	return all
}

const longestLogin = 10 // seconds

func (s *Server) loginTime() int {
	n, _ := strconv.Atoi(s.settings["authentication_timeout"])
	return n
}

// environmentStep is what libldap is told, which certificates have no use for.
func (s *Server) environmentStep() (*Step, error) {
	if s.config.Certificate {
		return nil, nil
	}
	path, debian := s.environmentFile()
	var lines []string
	for _, v := range postgres.Environment(s.config.CA) {
		switch name, value, _ := strings.Cut(v, "="); {
		case path == "":
			lines = append(lines, v)
		case debian:
			lines = append(lines, name+" = '"+value+"'")
		default:
			lines = append(lines, "Environment="+v)
		}
	}
	what := "the server's environment: what libldap believes, and how long it waits"
	if path == "" {
		if len(s.missingVariables()) == 0 && s.environment != nil {
			return nil, nil
		}
		return &Step{What: what, Added: lines, Needs: Restart}, nil
	}
	if !debian {
		lines = append([]string{"[Service]"}, lines...)
	}
	return blockStep(what, path, lines, Restart)
}

// own is the mark of what is ours in a file.
const own block.Mark = "# BEGIN innate: kept by 'innate postgres prepare', changes in here are lost"

// blockStep puts our block at the head of a file, where the first line that
// matches decides; nil when it is there already.
func blockStep(what, path string, lines []string, needs string) (*Step, error) {
	before, err := read(path)
	if err != nil {
		return nil, err
	}
	head, old, tail, _, err := own.Cut(before)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return difference(what, path, needs, before, own.Text(lines)+head+tail, old, lines), nil
}

// difference is the step from what a file is to what it is to be, shown by the
// lines of ours that go and come; nil when there is none.
func difference(what, path, needs, before, after string, old, lines []string) *Step {
	if after == before {
		return nil
	}
	step := &Step{What: what, Path: path, Needs: needs, content: after}
	for _, line := range old {
		if !slices.Contains(lines, line) {
			step.Removed = append(step.Removed, line)
		}
	}
	for _, line := range lines {
		if !slices.Contains(old, line) {
			step.Added = append(step.Added, line)
		}
	}
	if len(step.Added)+len(step.Removed) == 0 {
		step.What += " (the block moves to the head of the file)"
	}
	return step
}

// read is a file's content; one that is not there is empty.
func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return string(b), nil
}

// Obstacle is what must be done before Apply can be: nil when nothing is.
func (s *Server) Obstacle() error {
	if s.settings["ssl"] != "on" {
		return errors.New("TLS is off at this server, and it does not read lines that demand it: set ssl = on with a certificate for the name that clients connect to, reload, and come again")
	}
	if s.config.Certificate {
		if _, _, err := s.clients(); err != nil {
			return fmt.Errorf("the authority that client certificates are of is not here: %w: start the gateway, which fetches it, and come again", err)
		}
	}
	return nil
}

// Apply makes the changes that can be made from here and has the server read its
// files again. A pg_hba.conf that the server cannot read is put back as it was.
// It returns the steps that are left to people.
func Apply(ctx context.Context, conn *pgx.Conn, steps []Step) (left []Step, err error) {
	for _, step := range steps {
		switch {
		case step.Statement != "":
			if _, err := conn.Exec(ctx, step.Statement); err != nil {
				return nil, fmt.Errorf("%s: %w", step.Statement, err)
			}
		case step.Path == "":
			left = append(left, step)
		default:
			err := applyFile(ctx, conn, step)
			if step.Needs == Restart && errors.Is(err, fs.ErrPermission) {
				left = append(left, step) // a unit's environment is root's, and the superuser is seldom root
			} else if err != nil {
				return nil, err
			}
		}
	}
	return left, reload(ctx, conn)
}

// reload has the server read its files again, and returns when this session knows
// of it. The postmaster tells sessions once it has read the settings.
func reload(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var before, now time.Time
	const last = "SELECT pg_conf_load_time()"
	err := conn.QueryRow(ctx, last).Scan(&before)
	if err == nil {
		_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for err == nil && !now.After(before) {
		<-tick.C
		err = conn.QueryRow(ctx, last).Scan(&now)
	}
	if err != nil {
		return fmt.Errorf("having the server read its files again: %w", err)
	}
	return nil
}

func applyFile(ctx context.Context, conn *pgx.Conn, step Step) error {
	before, err := os.ReadFile(step.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := block.Write(step.Path, step.content); err != nil {
		return err
	}
	// The views read the files as they are now, before the server acts on them.
	faults := map[string]string{"pg_hba.conf": "pg_hba_file_rules", "pg_ident.conf": "pg_ident_file_mappings"}
	view, ok := faults[filepath.Base(step.Path)]
	if !ok {
		return nil
	}
	var fault string
	err = conn.QueryRow(ctx, "SELECT 'line ' || line_number || ': ' || error FROM "+view+" WHERE error IS NOT NULL LIMIT 1").Scan(&fault)
	if err != nil { // no line is wrong, or there is no such view before PostgreSQL 15
		return nil
	}
	return errors.Join(fmt.Errorf("%s is as it was before: with our lines the server cannot read %s", step.Path, fault), block.Write(step.Path, string(before)))
}
