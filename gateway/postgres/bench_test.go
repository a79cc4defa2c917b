package postgres_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"innate/gateway/postgres/postgrestest"
)

// BenchmarkASessionEndsAmongOthers is the time from a change at the control plane
// until the client of a session sees its end. What others cost is what a look at
// the sessions costs: the server lists them all, and the gateway attributes each.
func BenchmarkASessionEndsAmongOthers(b *testing.B) {
	for _, others := range []int{0, 1000} {
		b.Run(strconv.Itoa(others), func(b *testing.B) {
			w := newWorld(b, postgrestest.WithSetting("max_connections", strconv.Itoa(others+50)))
			w.mapped(bob, "other")
			w.openMany(others)
			for b.Loop() {
				b.StopTimer()
				w.mapped(alice, "app")
				session := w.session("app", w.token(alice, nil))
				ended := wait(session)
				b.StartTimer()
				w.allow(alice)
				if e := <-ended.ended; e.state != "57P01" {
					b.Fatalf("the session ended with %s", e.state)
				}
			}
		})
	}
}

// openMany opens so many sessions of bob's.
func (w *world) openMany(n int) {
	w.t.Helper()
	var clients sync.WaitGroup
	var mu sync.Mutex
	var all []*pgx.Conn
	token := w.token(bob, nil)
	for i := range 8 {
		clients.Go(func() {
			for range n/8 + min(1, max(0, n%8-i)) {
				conn, err := w.logIn("other", token)
				if err != nil {
					w.t.Errorf("a log-in: %v", err)
					return
				}
				mu.Lock()
				all = append(all, conn)
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	w.t.Cleanup(func() {
		for _, conn := range all {
			conn.Close(context.Background())
		}
	})
	if got := w.pg.Query("SELECT count(*) FROM pg_stat_activity WHERE usename = 'other'"); got != fmt.Sprint(n) {
		w.t.Fatalf("%s sessions, want %d", got, n)
	}
}
