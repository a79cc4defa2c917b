package postgres

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"innate"
	"innate/feed/client"
)

// A backend is a session as the server lists it.
type backend struct {
	pid   int
	role  string
	name  string // of its client certificate
	begun time.Time
}

// listed are the sessions on managed roles. The server lists one once its log-in
// is complete.
const listed = `SELECT a.pid, a.usename, coalesce(s.client_dn, ''), a.backend_start
	FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid LEFT JOIN pg_stat_ssl s ON s.pid = a.pid
	WHERE a.backend_type IN ('client backend', 'walsender') AND NOT r.rolsuper
	AND pg_has_role(a.usesysid, (SELECT oid FROM pg_roles WHERE rolname = $1), 'MEMBER')`

// sweep ends every session on a managed role that has no right to be. Such a
// role is for tokens (or our certificates) alone, so that is each session that
// has no record, or one whose right has ended: what cannot be attributed is
// never left. Nothing is ended on the word of a feed that is not current.
func (m *manager) sweep(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	rows, err := conn.Query(ctx, listed, Managed)
	if err != nil {
		return fmt.Errorf("listing the sessions: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (b backend, err error) {
		return b, row.Scan(&b.pid, &b.role, &b.name, &b.begun)
	})
	if err != nil {
		return fmt.Errorf("listing the sessions: %w", err)
	}
	m.mu.Lock()
	m.reached = time.Now()
	m.mu.Unlock()
	if m.g.feed.Age() > m.g.config.Stale {
		return nil
	}
	begun, roles := map[int]time.Time{}, map[string]bool{}
	for _, b := range all {
		begun[b.pid], roles[b.role] = b.begun, true
		if why := m.g.wrong(b); why != "" {
			if err := m.end(ctx, conn, b, why); err != nil {
				return err
			}
		}
	}
	for _, s := range m.g.sessions.all() {
		if _, ok := begun[s.PID]; !ok && !m.g.good(s) {
			m.stop(s)
		}
	}
	return m.g.sessions.tidy(begun, roles, m.g.config.Now().Add(-m.loginTime()))
}

// wrong says why a session must end; "" when it may go on.
func (g *Gateway) wrong(b backend) string {
	if s, ok := g.sessions.of(b); ok {
		if g.good(s) {
			return ""
		}
		return "the right it began with has ended"
	}
	if object, place, ok := certified(b.name); ok {
		// When the certificate was made is not to be seen: what is revoked from a
		// moment on does not concern what began after it.
		if g.policy.holds(place, object) && g.good(record{Role: b.role, Claim: client.Claim{Object: object, IssuedAt: b.begun}}) {
			return ""
		}
		return "the right of its certificate has ended"
	}
	unplaced := g.sessions.unplaced(b.role)
	if len(unplaced) == 0 {
		return "it is on a role for tokens, and was not let in here: is a line above ours in pg_hba.conf?"
	}
	for _, s := range unplaced {
		if !g.good(s) {
			return "it may be one whose right has ended"
		}
	}
	return ""
}

// certificateName is the beginning of the name in a certificate of ours, as the
// server shows it: the first 63 bytes, of which identity and place take 60.
var certificateName = regexp.MustCompile(`^/CN=([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/OU=([0-9a-f]{16})(?:/|$)`)

// certified is the identity whose certificate a session came with, and the place
// that it is for. The server has verified it, whichever line of pg_hba.conf let the
// session in.
func certified(name string) (who innate.ObjectID, place string, ok bool) {
	found := certificateName.FindStringSubmatch(name)
	if found == nil {
		return "", "", false
	}
	return innate.ObjectID(found[1]), found[2], true
}

// end ends a session that the server lists: its client sees 57P01.
func (m *manager) end(ctx context.Context, conn *pgx.Conn, b backend, why string) error {
	var ended bool
	if err := conn.QueryRow(ctx, "SELECT pg_terminate_backend($1)", b.pid).Scan(&ended); err != nil {
		return fmt.Errorf("ending the session of process %d on role %q: %w", b.pid, b.role, err)
	}
	if !ended { // it had ended by itself, perhaps before its process was looked at
		return nil
	}
	m.g.config.Log.Warn("ended a session", "role", b.role, "process", b.pid, "begun", b.begun, "why", why)
	return nil
}

// stop ends a log-in that was let in and is not a session yet. The server's
// functions do not see it; the signal that they would send does, and is taken
// before the first statement. Where we may not send it, the next sweep finds the
// session.
func (m *manager) stop(s record) {
	fd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil {
		return // it has ended
	}
	defer unix.Close(fd)
	if !s.Lives() { // after the pid was pinned
		return
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err == nil {
		m.g.config.Log.Warn("ended a log-in", "role", s.Role, "process", s.PID, "why", "the right it began with has ended")
	}
}
