package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"innate"
	"innate/gateway/postgres/cluster"
	"innate/platform"
	"innate/platform/database"
)

// tourRole is the PostgreSQL role that the app is mapped to.
const tourRole = "app-orders"

// logIn shows the app at a PostgreSQL server: its session, with no password, and
// the session's end with the mapping.
func (t *tour) logIn(ctx context.Context) (err error) {
	if _, err := cluster.Find(); err != nil {
		t.tell("not shown: %v", err)
		return nil
	}
	gateway, err := t.gateway(ctx)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	db, err := database.Open(ctx, database.Config{
		Platform: t.platform, Program: t.program, Dir: filepath.Dir(string(t.platform.Dir)), Log: &said,
		Server: t.group + innate.ResourceID("/providers/"+typePostgres+"/pg1"), Gateway: gateway,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said.Bytes())
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	version, err := db.Value(ctx, "SHOW server_version")
	if err != nil {
		return err
	}
	t.tell("PostgreSQL %s at port %d runs as %s; beside it, a gateway that it asks who may log in", version, db.Port, db.User())
	if err := db.Map(ctx, t.identity.Principal, tourRole); err != nil {
		return err
	}
	t.tell("fn1 may log in as %s, for which nobody made a password", tourRole)
	if err := awaitLogin(ctx, t.platform, t.app); err != nil {
		return err
	}
	w, err := t.launch(ctx)
	if err != nil {
		return err
	}
	defer w.end()
	return t.session(ctx, db, w)
}

// gateway makes the app that the gateway runs as.
func (t *tour) gateway(ctx context.Context) (innate.ResourceID, error) {
	id := t.group + innate.ResourceID("/providers/"+typeSite+"/pg-gateway")
	plan, err := ensurePlan(ctx, t.platform.Admin, "rg1", t.platform.Machine)
	if err != nil {
		return "", err
	}
	_, err = t.put(ctx, http.MethodPut, id, map[string]any{
		"identity": map[string]string{"type": "SystemAssigned"}, "properties": map[string]any{"serverFarmId": plan},
	})
	return id, err
}

// awaitLogin waits until the agent knows that an app may log in somewhere: its next
// generation has what that takes.
func awaitLogin(ctx context.Context, p *platform.Platform, app innate.ResourceID) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		for _, placed := range p.Agent.Status().Placements {
			if placed.Resource.Equal(app) && len(placed.Logins) > 0 {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the agent did not hear that %s may log in", app.Name())
		}
	}
}

// session is the app's, from its log-in to its end.
func (t *tour) session(ctx context.Context, db *database.Database, w *workload) error {
	r, err := w.do(sampleOrder{Do: "env"})
	if err != nil {
		return err
	}
	if r.Env["PGPASSWORD"] != "" {
		return errors.New("there is a password in its environment")
	}
	t.tell("the app finds it by PGHOST=%s PGPORT=%s PGUSER=%s PGSSLMODE=%s and PGPASSFILE, a file that the agent keeps fresh",
		r.Env["PGHOST"], r.Env["PGPORT"], r.Env["PGUSER"], r.Env["PGSSLMODE"])
	if r, err = w.do(sampleOrder{Do: "connect"}); err == nil && r.Error != "" {
		err = fmt.Errorf("the app's log-in: %s", r.Error)
	}
	if err != nil {
		return err
	}
	took := r.Took
	r, err = w.do(sampleOrder{Do: "sql", SQL: "SELECT current_user || ' over ' || version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"})
	if err != nil {
		return err
	}
	if r.Value != tourRole+" over TLSv1.3" {
		return fmt.Errorf("SELECT current_user: want %s over TLSv1.3, got %s %s", tourRole, r.Value, r.Error)
	}
	t.tell("pgx logs in in %s. SELECT current_user: %s", brief(took), r.Value)

	begin := time.Now()
	if err := db.Unmap(ctx, t.identity.Principal); err != nil {
		return err
	}
	r, err = w.do(sampleOrder{Do: "sql", SQL: "SELECT 'still here' FROM pg_sleep(10)"})
	if err != nil {
		return err
	}
	if r.SQLState != "57P01" {
		return fmt.Errorf("the session after the mapping went: want 57P01, got %s %s %s", r.Value, r.SQLState, r.Error)
	}
	t.tell("the mapping is removed: the session ends within %s: %s", brief(time.Since(begin)), r.SQLState)
	if r, err = w.do(sampleOrder{Do: "connect"}); err != nil {
		return err
	}
	if r.Error == "" {
		return errors.New("it logs in again")
	}
	t.tell("and none begins: %s", cmp.Or(r.SQLState, r.Error))
	return nil
}
