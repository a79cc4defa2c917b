package feed_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/feed"
	"innate/feed/client"
	"innate/store"
	"innate/store/file"
)

func open(t *testing.T, wrap func(store.Engine) store.Engine) *store.DB {
	t.Helper()
	engine, err := file.Create(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), wrap(engine))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func plain(e store.Engine) store.Engine { return e }

// put writes rows in one transaction; an empty value deletes.
func put(t *testing.T, db *store.DB, rows ...string) store.Revision {
	t.Helper()
	rev, err := db.Update(context.Background(), func(tx store.Tx) error {
		for i := 0; i < len(rows); i += 2 {
			if rows[i+1] == "" {
				tx.Delete(rows[i])
			} else {
				tx.Put(rows[i], []byte(rows[i+1]))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// serve serves the rows under "ours/".
func serve(t *testing.T, db *store.DB) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { feed.Serve(w, r, db, "ours/") }))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv
}

// A reader reads a feed line by line.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
	body  io.Closer
}

func read(t *testing.T, srv *httptest.Server, query string) *reader {
	t.Helper()
	resp, err := srv.Client().Get(srv.URL + query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "application/x-ndjson" {
		t.Fatalf("answered %s, %q", resp.Status, got)
	}
	return &reader{t, bufio.NewScanner(resp.Body), resp.Body}
}

// expect reads as many lines as there are in want.
func (r *reader) expect(want ...string) {
	r.t.Helper()
	var got []string
	for range want {
		if !r.lines.Scan() {
			r.t.Fatalf("the feed ended after %q: %v", got, r.lines.Err())
		}
		got = append(got, r.lines.Text())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Fatalf("feed (-want +got):\n%s", diff)
	}
}

func TestAFeedIsASnapshotAndThenWhatChanges(t *testing.T) {
	db := open(t, plain)
	put(t, db, "ours/a", `{"n":1}`, "ours/b", `2`, "theirs/c", `"secret"`)
	r := read(t, serve(t, db), "")
	r.expect(
		`{"revision":0,"reset":true}`,
		`{"revision":0,"key":"a","value":{"n":1}}`,
		`{"revision":0,"key":"b","value":2}`,
		`{"revision":1,"synced":true}`,
	)
	put(t, db, "theirs/c", `"changed"`)
	put(t, db, "ours/b", "", "ours/d", `4`, "theirs/c", "")
	// Only the last row of the transaction says that it is whole.
	r.expect(
		`{"revision":2,"key":"b"}`,
		`{"revision":3,"key":"d","value":4}`,
	)
}

func TestAFeedMayHaveRangesBesideItsOwn(t *testing.T) {
	db := open(t, plain)
	put(t, db, "all/x", `1`, "all/y", `2`, "ours/a", `3`, "theirs/c", `"secret"`)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		feed.Serve(w, r, db, "ours/", feed.Range{Prefix: "all/", As: "of-all/"})
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	r := read(t, srv, "")
	r.expect(
		`{"revision":0,"reset":true}`,
		`{"revision":0,"key":"a","value":3}`,
		`{"revision":0,"key":"of-all/x","value":1}`,
		`{"revision":0,"key":"of-all/y","value":2}`,
		`{"revision":1,"synced":true}`,
	)
	put(t, db, "theirs/c", "")
	// Key order is the store's; the last row says that the transaction is whole.
	put(t, db, "all/x", "", "ours/b", `4`)
	r.expect(
		`{"revision":2,"key":"of-all/x"}`,
		`{"revision":3,"key":"b","value":4}`,
	)
}

func TestAFeedGoesOnWhereItsReaderStopped(t *testing.T) {
	db := open(t, plain)
	srv := serve(t, db)
	for i := range 5 {
		put(t, db, fmt.Sprintf("ours/%d", i), fmt.Sprint(i))
	}
	r := read(t, srv, "?from=3")
	r.expect(
		`{"revision":4,"key":"3","value":3}`,
		`{"revision":5,"key":"4","value":4}`,
		`{"revision":5,"synced":true}`,
	)
	read(t, srv, "?from=5").expect(`{"revision":5,"synced":true}`)
}

func TestAReaderThatIsAheadHearsEverythingAgain(t *testing.T) {
	db := open(t, plain)
	put(t, db, "ours/a", "1")
	read(t, serve(t, db), "?from=4000").expect( // it followed a store that was since restored
		`{"revision":0,"reset":true}`,
		`{"revision":0,"key":"a","value":1}`,
		`{"revision":1,"synced":true}`,
	)
}

func TestAPositionThatIsNoneIsRefused(t *testing.T) {
	srv := serve(t, open(t, plain))
	for _, from := range []string{"-1", "x", "1.5", "99999999999999999999999"} {
		resp, err := srv.Client().Get(srv.URL + "?from=" + from)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("from=%s: answered %s", from, resp.Status)
		}
	}
}

// A forgetful engine has lost the history up to a revision.
type forgetful struct {
	store.Engine
	lost *atomic.Uint64
}

func (e forgetful) Follow(ctx context.Context, from store.Revision) iter.Seq2[[]store.Commit, error] {
	if uint64(from) < e.lost.Load() {
		return func(yield func([]store.Commit, error) bool) { yield(nil, store.ErrCompacted) }
	}
	return e.Engine.Follow(ctx, from)
}

func TestAFeedWhoseHistoryIsGoneBeginsAgain(t *testing.T) {
	lost := new(atomic.Uint64)
	db := open(t, func(e store.Engine) store.Engine { return forgetful{e, lost} })
	srv := serve(t, db)
	put(t, db, "ours/a", "1")
	put(t, db, "ours/a", "2")
	lost.Store(2)
	r := read(t, srv, "?from=1")
	r.expect(
		`{"revision":0,"reset":true}`,
		`{"revision":0,"key":"a","value":2}`,
		`{"revision":2,"synced":true}`,
	)
	put(t, db, "ours/b", "3")
	r.expect(`{"revision":3,"key":"b","value":3}`)
}

func TestAReaderThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	db := open(t, plain)
	srv := serve(t, db)
	slow := read(t, srv, "")
	big := `"` + strings.Repeat("x", 100<<10) + `"`
	for range 100 {
		put(t, db, "ours/a", big)
	}
	r := read(t, srv, "?from=100")
	r.expect(`{"revision":100,"synced":true}`)
	put(t, db, "ours/b", "1")
	r.expect(`{"revision":101,"key":"b","value":1}`)
	slow.lines.Buffer(nil, 1<<20)
	last := ""
	for !strings.HasPrefix(last, `{"revision":101,`) && slow.lines.Scan() {
		last = slow.lines.Text()
	}
	if last != `{"revision":101,"key":"b","value":1}` {
		t.Errorf("the slow reader read last %.80q: %v", last, slow.lines.Err())
	}
}

func TestAQuietFeedBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := open(t, plain)
		put(t, db, "theirs/a", "1")
		ctx, cancel := context.WithCancel(t.Context())
		w := httptest.NewRecorder()
		done := make(chan bool)
		go func() {
			feed.Serve(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), db, "ours/")
			close(done)
		}()
		time.Sleep(2*feed.Beat + feed.Beat/2)
		cancel()
		<-done
		want := `{"revision":0,"reset":true}
{"revision":1,"synced":true}
{"revision":1,"beat":true}
{"revision":1,"beat":true}
`
		if diff := cmp.Diff(want, w.Body.String()); diff != "" {
			t.Errorf("feed (-want +got):\n%s", diff)
		}
	})
}

func TestARevocationIsFeltAtTheOtherEnd(t *testing.T) {
	db := open(t, plain)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { feed.Serve(w, r, db, feed.RevokedPrefix) }))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	var c *client.Client
	far := client.NewRevocations(func() time.Duration { return c.Age() })
	heard := make(chan string, 10)
	c, err := client.New(client.Config{
		URL: srv.URL, HTTP: srv.Client(), Log: slog.New(slog.DiscardHandler),
		Apply: func(ev client.Event) { far.Apply(ev); heard <- ev.Key },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })

	<-c.Synced()
	for range 2 { // the reset and the end of the snapshot
		<-heard
	}
	near := feed.Revocations(db)
	claim := client.Claim{Object: "0A", IssuedAt: time.Now()}
	update(t, db, func(tx store.Tx) error {
		return feed.Revoke(tx, client.RevokedIdentity, "0a", time.Now(), time.Hour)
	})
	if _, revoked := near.Revoked(claim); !revoked {
		t.Error("the process's own set does not have it when Update returns")
	}
	<-heard
	if _, revoked := far.Revoked(claim); !revoked || far.Age() > time.Minute {
		t.Errorf("the other end: revoked %v, age %v", revoked, far.Age())
	}
}

func update(t *testing.T, db *store.DB, fn func(store.Tx) error) {
	t.Helper()
	if _, err := db.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func TestWhatARevocationMeansDependsOnItsKind(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 5e8, time.UTC)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	const keep = 24 * time.Hour
	vm := innate.ResourceID("/subscriptions/s/resourceGroups/RG/providers/x/y/VM-1")
	host := innate.ResourceID("/subscriptions/s/resourceGroups/RG/providers/x/y/M-1")
	revoke := func(kind client.RevocationKind, id string) func(store.Tx) error {
		return func(tx store.Tx) error { return feed.Revoke(tx, kind, id, now, keep) }
	}
	restore := func(after time.Duration) func(store.Tx) error {
		return func(tx store.Tx) error { return feed.Restore(tx, client.RevokedIdentity, "ID", at(after), keep) }
	}
	forget := func(after time.Duration) func(store.Tx) error {
		return func(tx store.Tx) error { return feed.Forget(tx, at(after)) }
	}
	for _, c := range []struct {
		name    string
		steps   []func(store.Tx) error
		claim   client.Claim
		revoked bool
	}{
		{"an identity's tokens, the later ones too: another server's clock may be ahead", []func(store.Tx) error{revoke(client.RevokedIdentity, "ID")},
			client.Claim{Object: "id", IssuedAt: at(time.Minute)}, true},
		{"a resource's tokens", []func(store.Tx) error{revoke(client.RevokedResource, vm.Key())},
			client.Claim{Hosting: vm, IssuedAt: at(-time.Minute)}, true},
		{"those of a resource made again under the name are good", []func(store.Tx) error{revoke(client.RevokedResource, vm.Key())},
			client.Claim{Hosting: vm, IssuedAt: at(time.Minute)}, false},
		{"those of a machine that joined again are good", []func(store.Tx) error{revoke(client.RevokedHost, string(vm))},
			client.Claim{Host: vm, IssuedAt: at(time.Minute)}, false},
		{"a resource moved off a machine leaves its tokens of there behind", []func(store.Tx) error{revoke(client.RevokedPlacement, client.PlacementID(vm, host))},
			client.Claim{Hosting: vm, Host: host, IssuedAt: at(-time.Minute)}, true},
		{"and keeps those of other machines", []func(store.Tx) error{revoke(client.RevokedPlacement, client.PlacementID(vm, host))},
			client.Claim{Hosting: vm, Host: vm, IssuedAt: at(-time.Minute)}, false},
		{"an identity enabled again gets good tokens at once", []func(store.Tx) error{revoke(client.RevokedIdentity, "ID"), restore(time.Minute)},
			client.Claim{Object: "id", IssuedAt: at(time.Minute + time.Millisecond)}, false},
		{"what it held before stays revoked", []func(store.Tx) error{revoke(client.RevokedIdentity, "ID"), restore(time.Minute)},
			client.Claim{Object: "id", IssuedAt: at(-time.Minute)}, true},
		{"an identity that was never disabled has nothing to restore", []func(store.Tx) error{restore(time.Minute)},
			client.Claim{Object: "id", IssuedAt: at(-time.Minute)}, false},
		{"a revocation is kept for as long as a token lives", []func(store.Tx) error{revoke(client.RevokedToken, "uTi"), forget(keep)},
			client.Claim{Token: "uTi", IssuedAt: now}, true},
		{"and then forgotten", []func(store.Tx) error{revoke(client.RevokedToken, "uTi"), forget(keep + time.Hour)},
			client.Claim{Token: "uTi", IssuedAt: now}, false},
		{"whoever has a signing key makes tokens of any life, so that is never forgotten", []func(store.Tx) error{revoke(client.RevokedKey, "kId"), forget(10 * 365 * 24 * time.Hour)},
			client.Claim{Key: "kId", IssuedAt: at(10 * 365 * 24 * time.Hour)}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := open(t, plain)
			set := feed.Revocations(db)
			for _, step := range c.steps {
				update(t, db, step)
			}
			if why, revoked := set.Revoked(c.claim); revoked != c.revoked {
				t.Errorf("revoked %v (%s), want %v", revoked, why, c.revoked)
			}
		})
	}
}

func TestARowOnTheWireIsARevocation(t *testing.T) {
	db := open(t, plain)
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	update(t, db, func(tx store.Tx) error { return feed.Revoke(tx, client.RevokedHost, "/M-1", now, time.Hour) })
	var got client.Revocation
	err := db.View(t.Context(), func(r store.Reader) error {
		row, ok := r.Get(feed.RevokedPrefix + "host//m-1")
		if !ok {
			t.Fatal("no row under the kind, a slash and the id in lower case")
		}
		return json.Unmarshal(row, &got)
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Kind != client.RevokedHost || !got.Before.Equal(now) || !got.Until.After(now.Add(time.Hour)) {
		t.Errorf("row %+v", got)
	}
}
