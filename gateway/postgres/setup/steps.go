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
	"syscall"

	"github.com/jackc/pgx/v5"

	"innate/gateway/postgres"
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
	ident, err := blockStep("who may be "+management, s.settings["ident_file"], []string{postgres.Ident(s.config.User)}, Reload)
	if err != nil {
		return nil, err
	}
	hba, err := blockStep("who logs in by what", s.settings["hba_file"], postgres.HBA(s.config.Server, s.config.Gateway, s.config.Certificate), Reload)
	if err != nil {
		return nil, err
	}
	environment, err := s.environmentStep()
	if err != nil {
		return nil, err
	}
	// pg_hba.conf last: once it is in force, nothing of what it needs is missing.
	for _, step := range []*Step{environment, ident, hba} {
		if step != nil {
			all = append(all, *step)
		}
	}
	return all, nil
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
	if s.config.Certificate {
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

func (s *Server) environmentStep() (*Step, error) {
	path, debian := s.environmentFile()
	var lines []string
	for _, v := range s.config.variables() {
		switch {
		case path == "":
			lines = append(lines, v[0]+"="+v[1])
		case debian:
			lines = append(lines, v[0]+" = '"+v[1]+"'")
		default:
			lines = append(lines, "Environment="+v[0]+"="+v[1])
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

// The marks of what is ours in a file.
const (
	begin = "# BEGIN innate: kept by 'innate postgres prepare', changes in here are lost"
	end   = "# END innate"
)

// blockStep puts our block at the head of a file, where the first line that
// matches decides; nil when it is there already.
func blockStep(what, path string, lines []string, needs string) (*Step, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	before := string(b)
	rest, old, err := withoutBlock(before)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	after := begin + "\n" + strings.Join(lines, "\n") + "\n" + end + "\n" + rest
	if after == before {
		return nil, nil
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
	return step, nil
}

// withoutBlock is a file without our block, and the lines that were in it.
func withoutBlock(content string) (rest string, block []string, err error) {
	var out strings.Builder
	inside := false
	for line := range strings.Lines(content) {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(bare, "# BEGIN innate:"):
			if inside {
				return "", nil, errors.New("it has the mark 'BEGIN innate' twice: mend it by hand")
			}
			inside = true
		case bare == end && inside:
			inside = false
		case inside:
			block = append(block, bare)
		default:
			out.WriteString(line)
		}
	}
	if inside {
		return "", nil, errors.New("it has the mark 'BEGIN innate' and no 'END innate': mend it by hand")
	}
	return out.String(), block, nil
}

// Obstacle is what must be done before Apply can be: nil when nothing is.
func (s *Server) Obstacle() error {
	if s.settings["ssl"] != "on" {
		return errors.New("TLS is off at this server, and it does not read lines that demand it: set ssl = on with a certificate for the name that clients connect to, reload, and come again")
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
			if err := applyFile(ctx, conn, step); err != nil {
				return nil, err
			}
		}
	}
	_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
	return left, err
}

func applyFile(ctx context.Context, conn *pgx.Conn, step Step) error {
	before, err := os.ReadFile(step.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := write(step.Path, step.content); err != nil {
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
	return errors.Join(fmt.Errorf("%s is as it was before: with our lines the server cannot read %s", step.Path, fault), write(step.Path, string(before)))
}

// write replaces a file, and keeps its owner and mode.
func write(path, content string) error {
	mode, uid, gid := fs.FileMode(0o644), -1, -1
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	} else if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".innate-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone when all went well
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if uid >= 0 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
