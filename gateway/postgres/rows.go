package postgres

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/jackc/pgx/v5"

	"innate/gateway/postgres/block"
)

const prepareRows = "'innate postgres prepare --by-certificate' mends it"

// keepRows makes our block of pg_ident.conf say who may log in by certificate, and
// has the server read it. PostgreSQL forks a log-in with the rows that it has read
// by then: whoever gets past a row that is gone meets the sweep. On the word of a
// feed that is not current nobody logs in, as by token.
//
// An error is the server's. What is wrong with the file is in the log, once, and
// kept is false as long as it is.
func (m *manager) keepRows(ctx context.Context, conn *pgx.Conn) (kept bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	var rows, without []string
	if m.g.feed.Age() <= m.g.config.Stale {
		rows, without = m.g.policy.rows()
	}
	if m.maps == "" {
		err := conn.QueryRow(ctx, `SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER') AND has_function_privilege('pg_reload_conf()', 'EXECUTE')
			THEN current_setting('ident_file') ELSE '' END`).Scan(&m.maps)
		if err != nil {
			return false, fmt.Errorf("asking where pg_ident.conf is: %w", err)
		}
	}
	changed, fault := m.writeRows(rows)
	if fault == nil && len(without) > 0 {
		fault = fmt.Errorf("no line of pg_ident.conf can be written for the roles %q: a name that begins with a slash is a pattern there, and one of several lines is none; nobody logs in as these", without)
	}
	said := ""
	if fault != nil {
		said = fault.Error()
	}
	if said != "" && said != m.fault {
		m.g.config.Log.Error("keeping the rows of log-ins by certificate", "err", fault)
	}
	m.fault = said
	if !changed {
		return fault == nil, nil
	}
	if _, err := conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return false, fmt.Errorf("having the server read pg_ident.conf: %w", err)
	}
	m.inForce = &rows
	m.g.config.Log.Info("the server was told who may log in by certificate", "rows", len(rows))
	return fault == nil, nil
}

// writeRows makes the block these rows, and reports whether the server is to read
// the file again. A server that was not prepared for certificates has no block, and
// its file is left alone.
func (m *manager) writeRows(rows []string) (changed bool, err error) {
	if m.maps == "" {
		if len(rows) > 0 {
			err = fmt.Errorf("%s may not see where pg_ident.conf is, or have the server read it: %s", Management, prepareRows)
		}
		return false, err
	}
	content, err := os.ReadFile(m.maps)
	if err != nil {
		return false, err
	}
	before, there, after, found, err := Rows.Cut(string(content))
	switch {
	case err != nil:
		return false, fmt.Errorf("%s: %w", m.maps, err)
	case !found && len(rows) == 0:
		return false, nil
	case !found:
		return false, fmt.Errorf("%s has no lines for the gateway's rows: %s", m.maps, prepareRows)
	case !slices.Equal(there, rows):
		if err := block.Write(m.maps, before+Rows.Text(rows)+after); err != nil {
			return false, fmt.Errorf("the gateway belongs on the server's host, as its user: %w", err)
		}
		return true, nil
	}
	// Written before we last connected, or by somebody else: whether the server has
	// read it is not known.
	return m.inForce == nil || !slices.Equal(*m.inForce, rows), nil
}

// clearRows lets nobody in by certificate while the gateway is not there: it could
// not end what begins. Without a connection, a server that is up goes on with what
// it has read.
func (m *manager) clearRows(ctx context.Context, conn *pgx.Conn) {
	changed, err := m.writeRows(nil)
	if err == nil && changed && conn != nil {
		ctx, cancel := context.WithTimeout(ctx, queryTime)
		defer cancel()
		_, err = conn.Exec(ctx, "SELECT pg_reload_conf()")
		m.inForce = new([]string)
	}
	if err != nil {
		m.g.config.Log.Error("the gateway ends and leaves its rows of log-ins by certificate", "err", err)
	}
}
