package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"innate"
	"innate/agent"
	"innate/gateway/postgres/cluster"
	"innate/platform/database"
)

// The roles of the PostgreSQL rows: one that an app is by its identity, and one
// with a password that the server itself knows (scram-sha-256).
const (
	benchRole  = "bench_token"
	benchScram = "bench_scram"
)

// benchDatabase is what the rows of PostgreSQL share.
type benchDatabase struct {
	*database.Database
	stage    *stage
	client   innate.ResourceID // the app
	password string            // of benchScram
	connect  string            // file of pgbench's: a statement that costs nothing
}

// pgSelect is pgbench's own read-only load by 8 sessions that an app has by its
// identity; the limit is the same load by sessions of a role with a password. Both
// are over TLS, with nothing between pgbench and the server.
func pgSelect(ctx context.Context, b *bench) (contest, error) {
	return b.pgbench(ctx, func(d *benchDatabase) []string {
		return []string{"--select-only", "--client=8", "--jobs=2"}
	})
}

// pgConnect is log-ins, one for each transaction, by the token; the limit is the
// same by the password.
func pgConnect(ctx context.Context, b *bench) (contest, error) {
	return b.pgbench(ctx, func(d *benchDatabase) []string {
		return []string{"--connect", "--client=4", "--jobs=2", "--file=" + d.connect}
	})
}

func (b *bench) pgbench(ctx context.Context, args func(*benchDatabase) []string) (contest, error) {
	d, err := b.database(ctx)
	if err != nil {
		return contest{}, err
	}
	command := func(length time.Duration, role string) []string {
		seconds := max(1, int(length.Seconds()+0.5)) // pgbench knows no less
		all := append([]string{d.Program("pgbench"), "--no-vacuum", "--time=" + strconv.Itoa(seconds)}, args(d)...)
		return append(all, fmt.Sprintf("host=localhost port=%d user=%s dbname=%s", d.Port, role, cluster.Superuser))
	}
	return contest{
		ours: func(ctx context.Context, length time.Duration) (float64, error) {
			return d.asApp(ctx, command(length, benchRole))
		},
		limit: func(ctx context.Context, length time.Duration) (float64, error) {
			return d.byPassword(ctx, command(length, benchScram))
		},
	}, nil
}

// database is the stage once there is a PostgreSQL server with both roles.
func (b *bench) database(ctx context.Context) (*benchDatabase, error) {
	if _, err := cluster.Find(); err != nil {
		return nil, err
	}
	st, err := b.platform(ctx)
	if err != nil {
		return nil, err
	}
	if st.database != nil {
		return st.database, nil
	}
	d := &benchDatabase{stage: st, password: innate.NewGUID(), connect: filepath.Join(b.dir, "connect.sql")}
	gateway, _, err := d.app(ctx, "pg-gateway")
	if err != nil {
		return nil, err
	}
	client, who, err := d.app(ctx, "pg-client")
	if err != nil {
		return nil, err
	}
	d.client = client
	if d.Database, err = database.Open(ctx, database.Config{
		Platform: st.Platform, Program: b.program, Dir: b.dir, Server: st.resource(typePostgres, "bench-pg"), Gateway: gateway,
	}); err != nil {
		return nil, err
	}
	if err := d.fill(ctx, who); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	st.database = d
	return d, nil
}

// app makes an app with an identity of its own.
func (d *benchDatabase) app(ctx context.Context, name string) (innate.ResourceID, innate.ObjectID, error) {
	plan, err := ensurePlan(ctx, d.stage.Admin, benchGroup, d.stage.Machine)
	if err != nil {
		return "", "", err
	}
	id := d.stage.resource(typeSite, name)
	made, err := d.stage.put(ctx, id, map[string]any{
		"identity": map[string]string{"type": "SystemAssigned"}, "properties": map[string]any{"serverFarmId": plan},
	})
	return id, made.Principal, err
}

// fill makes what pgbench reads, and both roles.
func (d *benchDatabase) fill(ctx context.Context, who innate.ObjectID) error {
	out, err := exec.CommandContext(ctx, d.Program("pgbench"), "--initialize", "--scale=2", "--quiet",
		d.Connection(cluster.Superuser, cluster.Superuser)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("pgbench --initialize: %w\n%s", err, out)
	}
	if err := d.Map(ctx, who, benchRole); err != nil {
		return err
	}
	if err := os.WriteFile(d.connect, []byte("SELECT 1;\n"), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(d.authority(), d.Authorities, 0o644); err != nil {
		return err
	}
	if err := d.Exec(ctx, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s, %s",
		benchScram, d.password, benchScram, benchRole)); err != nil {
		return err
	}
	return awaitLogin(ctx, d.stage.Platform, d.client)
}

// authority is the file of whom the server's certificate is.
func (d *benchDatabase) authority() string { return d.connect + ".crt" }

// asApp runs pgbench as the app, which has no password, and returns the transactions a second.
func (d *benchDatabase) asApp(ctx context.Context, args []string) (float64, error) {
	out, err := os.CreateTemp(filepath.Dir(d.connect), "pgbench-")
	if err != nil {
		return 0, err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	status, err := agent.Run(d.stage.Dir.AgentSocket(), agent.RunRequest{
		App: string(d.client), Args: args, Dir: "/", Stdout: out, Stderr: out,
		Env: []string{"PATH=" + os.Getenv("PATH")}, // with our HOME, libpq looks for a certificate where the app may not
	})
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(out.Name())
	if err == nil && status != 0 {
		err = fmt.Errorf("pgbench ended with %d: %s", status, bytes.TrimSpace(text))
	}
	if err != nil {
		return 0, err
	}
	return transactions(text)
}

// byPassword runs pgbench as we are, with the password that the server knows.
func (d *benchDatabase) byPassword(ctx context.Context, args []string) (float64, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+d.password, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+d.authority())
	text, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench: %w: %s", err, bytes.TrimSpace(text))
	}
	return transactions(text)
}

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+) `)

// transactions reads the rate in what pgbench says at its end.
func transactions(text []byte) (float64, error) {
	m := tps.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("pgbench tells no rate: %s", bytes.TrimSpace(text))
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
