package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"innate/feed/client"
)

// An open session waits for the server's word in the background.
type open struct {
	conn  *pgx.Conn
	ended chan ending
}

type ending struct {
	state string // SQLSTATE
	at    time.Time
}

// wait makes a session wait for its end, in a statement that the server's process
// says it is at: who is told between two statements may find the connection closed.
func wait(conn *pgx.Conn) *open {
	o := &open{conn, make(chan ending, 1)}
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(600)")
		o.ended <- ending{sqlState(err), time.Now()}
	}()
	for len(o.ended) == 0 {
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", conn.PgConn().PID()))
		if err != nil || bytes.Contains(title, []byte(" SELECT")) {
			break
		}
	}
	return o
}

// mustEnd fails unless the session ends with 57P01 within a second of since.
func (o *open) mustEnd(t *testing.T, since time.Time) {
	t.Helper()
	select {
	case e := <-o.ended:
		if took := e.at.Sub(since); e.state != "57P01" || took > time.Second {
			t.Errorf("the session ended after %v with %s; want 57P01 within a second", took, e.state)
		}
	case <-time.After(15 * time.Second):
		t.Error("the session did not end")
	}
}

func alive(t *testing.T, conn *pgx.Conn, whose string) {
	t.Helper()
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("%s session has ended: %v", whose, err)
	}
}

func TestASessionEndsWithTheRightThatItBeganWith(t *testing.T) {
	w := newWorld(t)
	w.pg.Exec("CREATE ROLE plain LOGIN PASSWORD 'x'")
	w.mapped(alice, "app", "other")
	w.mapped(bob, "app")
	bobs := w.session("app", w.token(bob, nil))
	byPassword, err := pgx.Connect(t.Context(), w.pg.TCP("plain", "postgres", w.pg.VerifyFull()+" password=x"))
	if err != nil {
		t.Fatal(err)
	}
	defer byPassword.Close(t.Context())

	t.Run("unmapped from one role of two", func(t *testing.T) {
		app, other := wait(w.session("app", w.token(alice, nil))), w.session("other", w.token(alice, nil))
		moment := time.Now()
		w.allow(alice, "other")
		app.mustEnd(t, moment)
		alive(t, other, "the other role's")
		w.mapped(alice, "app", "other")
	})
	t.Run("unmapped", func(t *testing.T) {
		app, other := wait(w.session("app", w.token(alice, nil))), wait(w.session("other", w.token(alice, nil)))
		moment := time.Now()
		w.allow(alice)
		app.mustEnd(t, moment)
		other.mustEnd(t, moment)
		if _, err := w.logIn("app", w.token(alice, nil)); sqlState(err) != "28000" {
			t.Errorf("and another log-in: %v, want 28000", err)
		}
		w.mapped(alice, "app", "other")
	})
	t.Run("a token revoked", func(t *testing.T) {
		one, two := wait(w.session("app", w.token(alice, map[string]any{"uti": "one"}))), w.session("app", w.token(alice, map[string]any{"uti": "two"}))
		moment := time.Now()
		w.revoke(client.RevokedToken, "one")
		one.mustEnd(t, moment)
		alive(t, two, "the other token's")
	})
	t.Run("a hosting resource deleted", func(t *testing.T) {
		gone := map[string]any{"xms_az_rid": vm + "gone", "uti": "three"}
		one, two := wait(w.session("app", w.token(alice, gone))), w.session("app", w.token(alice, nil))
		moment := time.Now()
		w.revoke(client.RevokedResource, vm+"gone")
		one.mustEnd(t, moment)
		alive(t, two, "the other resource's")
	})
	t.Run("an identity disabled", func(t *testing.T) {
		app := wait(w.session("app", w.token(alice, nil)))
		moment := time.Now()
		w.revoke(client.RevokedIdentity, string(alice))
		app.mustEnd(t, moment)
	})
	alive(t, bobs, "another identity's on the same role")
	alive(t, byPassword, "a role's that is not ours")
}

// A client that connects as fast as it can, across the moment.
func TestNoSessionRunsAStatementOnceTheMappingIsGone(t *testing.T) {
	w := newWorld(t)
	w.mapped(bob, "app")
	w.mapped(alice, "app")
	token := w.token(alice, nil)
	type run struct{ begun, ended time.Time }
	ran := make(chan run, 10000)
	gone := make(chan struct{})
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				conn, err := w.logIn("app", token)
				if err == nil {
					begun := time.Now()
					if conn.Ping(context.Background()) == nil {
						ran <- run{begun, time.Now()}
					}
					conn.Close(context.Background())
				} else {
					select {
					case <-gone:
						return
					default:
					}
				}
			}
		}()
	}
	for range 20 { // it is in full swing
		<-ran
	}
	w.allow(alice)
	// From here on the gateway knows: it was told on the connection by which it was told the rest.
	w.until("the refusal", func() bool { _, err := w.logIn("app", token); return err != nil })
	moment := time.Now()
	close(gone)
	for range 4 {
		<-done
	}
	close(ran)
	n := 0
	for r := range ran {
		n++
		if r.begun.After(moment.Add(50 * time.Millisecond)) {
			t.Errorf("a session ran a statement %v after log-ins were refused", r.begun.Sub(moment))
		}
	}
	t.Logf("%d sessions ran a statement around the moment, none that began later", n)
	if got := w.pg.Query(`SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'`); got != "0" {
		t.Errorf("%s sessions of the role are left", got)
	}
	w.session("app", w.token(bob, nil))
}

func TestAGatewayThatStartsAgainEndsWhatItLetInBefore(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	w.mapped(bob, "app")
	alices, bobs := wait(w.session("app", w.token(alice, nil))), w.session("app", w.token(bob, nil))
	w.stop()
	w.allow(alice)
	moment := time.Now()
	w.restart()
	alices.mustEnd(t, moment)
	alive(t, bobs, "another identity's on the same role")
}

func TestASessionOnAManagedRoleThatNobodyLetInEnds(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	w.pg.Exec("CREATE ROLE late LOGIN PASSWORD 'x'")
	conn, err := pgx.Connect(t.Context(), w.pg.TCP("late", "postgres", w.pg.VerifyFull()+" password=x"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	late := wait(conn)
	w.pg.Exec("GRANT innate_managed TO late")
	moment := time.Now()
	w.allow(carol, "other") // something changes, and the gateway looks
	late.mustEnd(t, moment)
}

func TestAnotherPostmasterIsFoundAgain(t *testing.T) {
	w := newWorld(t)
	w.mapped(alice, "app")
	if err := w.pg.Restart(t.Context(), w.pg.Env()); err != nil {
		t.Fatal(err)
	}
	w.until("a log-in after the restart", func() bool {
		conn, err := w.logIn("app", w.token(alice, nil))
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})
	w.mapped(bob, "app")
	w.until("the gateway's connection", func() bool {
		return w.pg.Query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'innate_gateway'") == "1"
	})
	alices, bobs := wait(w.session("app", w.token(alice, nil))), w.session("app", w.token(bob, nil))
	moment := time.Now()
	w.allow(alice)
	alices.mustEnd(t, moment)
	alive(t, bobs, "another identity's on the same role")
}
