package server_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"innate/audit"
	"innate/server"
	"innate/store"
	"innate/store/file"
)

// A crash may come when an event is in the log and not yet out of the outbox.
func TestACrashWhileTheOutboxIsDrainedRecordsNothingTwice(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "control")
	if err := server.Create(t.Context(), dir, domain, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	engine, err := file.Open(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine)
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(filepath.Join(dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	drained := audit.Event{Action: "drained", Time: time.Now(), Detail: map[string]string{"b": "1", "a": "2"}}
	if _, err := db.Update(t.Context(), func(tx store.Tx) error {
		// The second is the same word for word, and happened twice.
		for _, ev := range []audit.Event{drained, drained, {Action: "not drained"}} {
			if err := audit.Leave(tx, ev); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := log.Record(t.Context(), drained); err != nil {
		t.Fatal(err)
	}
	log.Close()
	db.Close()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(t.Context(), server.Config{Dir: dir, Listener: l, Operator: -1, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	count := map[string]int{}
	for tick := time.Tick(time.Millisecond); count["not drained"] == 0; <-tick {
		count = recorded(t, dir)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if count = recorded(t, dir); count["drained"] != 2 || count["not drained"] != 1 {
		t.Errorf("recorded %v: want drained twice, as it happened, and not drained once", count)
	}
}

// recorded says how often each action is in the audit log of a platform.
func recorded(t *testing.T, dir string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for ev, err := range audit.Read(filepath.Join(dir, "audit.log")) {
		if err != nil {
			t.Fatal(err)
		}
		count[ev.Action]++
	}
	return count
}
