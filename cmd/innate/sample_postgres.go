package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
)

// samplePostgres is a program that logs in at a PostgreSQL server by pgx and
// executes the statements that it is given, one a line: it prints the first row
// of each, or why there is none.
func (s *session) samplePostgres(credential func() (azcore.TokenCredential, error)) *cobra.Command {
	var pooled bool
	var audience string
	var connects int
	cmd := &cobra.Command{
		Use: "postgres [CONNECTION]", Short: "Log in at a PostgreSQL server and execute what standard input says", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, connection := cmd.Context(), strings.Join(args, "")
			password := func(context.Context, *pgx.ConnConfig) error { return nil } // pgx has read PGPASSFILE
			if audience != "" {
				cred, err := credential()
				if err != nil {
					return err
				}
				password = func(ctx context.Context, c *pgx.ConnConfig) error { return tokenAsPassword(ctx, cred, audience, c) }
			}
			if pooled {
				pool, err := openPool(ctx, connection)
				if err != nil {
					return err
				}
				defer pool.Close()
				if connects > 0 {
					return s.connectOften(connects, func() error { return renewConnection(ctx, pool) })
				}
				return s.execute(ctx, pool)
			}
			if connects > 0 {
				return s.connectOften(connects, func() error {
					conn, err := connectBy(ctx, connection, password)
					if err != nil {
						return err
					}
					return conn.Close(ctx)
				})
			}
			conn, err := connectBy(ctx, connection, password)
			if err != nil {
				return err
			}
			defer conn.Close(ctx)
			return s.execute(ctx, conn)
		},
	}
	cmd.Flags().BoolVar(&pooled, "pool", false, "by a pool of connections")
	cmd.Flags().StringVar(&audience, "token", "", "get a token for this `audience` with azidentity and pass it as the password")
	cmd.Flags().IntVar(&connects, "connects", 0, "only log in so many times, one after the other, and count the failures")
	return cmd
}

// openPool opens a pool that reads the password file, and a client certificate, at
// each connect: by itself it does so once.
func openPool(ctx context.Context, connection string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(connection)
	if err != nil {
		return nil, err
	}
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		fresh, err := pgx.ParseConfig(connection)
		if err == nil {
			c.Password, c.TLSConfig = fresh.Password, fresh.TLSConfig
		}
		return err
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// tokenAsPassword is how a program logs in that gets its tokens by itself.
func tokenAsPassword(ctx context.Context, cred azcore.TokenCredential, audience string, c *pgx.ConnConfig) error {
	t, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{audience + "/.default"}})
	c.Password = t.Token
	return err
}

func connectBy(ctx context.Context, connection string, password func(context.Context, *pgx.ConnConfig) error) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(connection)
	if err != nil {
		return nil, err
	}
	if err := password(ctx, config); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

// renewConnection takes a connection out of a pool and closes it, so that the next
// one is new.
func renewConnection(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	return conn.Conn().Close(ctx)
}

// connectOften logs in and out, and says how many times that failed.
func (s *session) connectOften(times int, connect func() error) error {
	failed := 0
	for range times {
		if err := connect(); err != nil {
			failed++
			fmt.Fprintln(s.diagnostics, err)
		}
	}
	fmt.Fprintf(s.out, "%d connects, %d failed\n", times, failed)
	return nil
}

type rowQuerier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// firstOf is the first row that a statement has, as text, or the server's code
// and why there is none.
func firstOf(ctx context.Context, db rowQuerier, sql string) (text, code string, err error) {
	err = db.QueryRow(ctx, sql).Scan(&text)
	return text, sqlState(err), err
}

// sqlState is the server's code of an error; empty when it is not the server's.
func sqlState(err error) string {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// execute executes each line of standard input, until it ends.
func (s *session) execute(ctx context.Context, db rowQuerier) error {
	for in := bufio.NewScanner(s.in); in.Scan(); {
		text, code, err := firstOf(ctx, db, in.Text())
		if err != nil {
			text = strings.TrimSpace(fmt.Sprintf("error %s %v", code, err))
		}
		fmt.Fprintln(s.out, text)
	}
	return nil
}

// databaseVariables are what leads a program to its PostgreSQL server.
var databaseVariables = []string{"PGHOST", "PGPORT", "PGUSER", "PGPASSFILE", "PGPASSWORD", "PGSSLMODE", "PGSSLROOTCERT"}

// A sampleDatabase is the session that 'sample serve' has at a PostgreSQL server.
type sampleDatabase struct{ conn *pgx.Conn }

// connect logs in with nothing but what the environment says.
func (d *sampleDatabase) connect(ctx context.Context) (r sampleReport, err error) {
	if d.conn != nil {
		d.conn.Close(ctx)
	}
	d.conn, err = pgx.Connect(ctx, "dbname=postgres")
	r.SQLState = sqlState(err)
	return r, err
}

// ask executes a statement; Value is what came back, or SQLState why nothing did.
func (d *sampleDatabase) ask(ctx context.Context, sql string) (r sampleReport, err error) {
	r.Value, r.SQLState, err = firstOf(ctx, d.conn, sql)
	return r, err
}
