package innatetest_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate/audit"
	"innate/audit/ship"
	"innate/gateway/postgres"
	"innate/innatetest"
	"innate/platform/database"
)

// A relay is the way to a platform, which can be cut.
type relay struct {
	*net.TCPListener
	to string

	mu   sync.Mutex
	away bool
	open map[net.Conn]bool
}

// newRelay makes a relay to the host of a URL. It ends with the test.
func newRelay(t *testing.T, at string) (r *relay, via string) {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r = &relay{TCPListener: l, to: u.Host, open: map[net.Conn]bool{}}
	t.Cleanup(func() {
		l.Close()
		r.cut(true)
	})
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go r.pass(conn)
		}
	}()
	return r, fmt.Sprintf("https://%s:%d", u.Hostname(), l.Addr().(*net.TCPAddr).Port)
}

func (r *relay) pass(conn net.Conn) {
	defer conn.Close()
	far, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer far.Close()
	r.mu.Lock()
	r.open[conn], r.open[far] = true, true
	away := r.away
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, conn)
		delete(r.open, far)
	}()
	if away {
		return
	}
	go func() {
		io.Copy(far, conn)
		far.Close()
	}()
	io.Copy(conn, far)
}

// cut ends every connection and lets no other through, or does so again.
func (r *relay) cut(away bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.away = away
	for conn := range r.open {
		conn.Close()
	}
}

// logIn logs in once with a token of the app's.
func (w world) logIn(app *innatetest.App, db *database.Database, role string) error {
	w.t.Helper()
	conn, err := connect(w.t, db, role, app.Token("https://"+db.ID.Name()+".postgres."+w.Server.Platform.Domain))
	if err != nil {
		return err
	}
	return conn.Close(w.t.Context())
}

// gatewayFolder is where a server's gateway keeps its files.
func gatewayFolder(t *testing.T, db *database.Database) string {
	t.Helper()
	return filepath.Join(filepath.Dir(filepath.Dir(db.Data())), "gateway") // as package database lays it out
}

// gatewayProcess is the process that decides: the one whose parent, which watches
// over it, is a gateway too.
func gatewayProcess(t *testing.T, folder string) (pid int) {
	t.Helper()
	parents := map[int]int{} // of the gateway's processes
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
		if !bytes.Contains(args, []byte("gateway\x00postgres\x00")) || !bytes.Contains(args, []byte("\x00--dir\x00"+folder+"\x00")) {
			continue
		}
		_, rest, _ := bytes.Cut(stat, []byte(") "))
		fields := strings.Fields(string(rest)) // state, parent
		if len(fields) < 2 {
			continue // it has ended meanwhile
		}
		id, _ := strconv.Atoi(filepath.Base(dir))
		parents[id], _ = strconv.Atoi(fields[1])
	}
	for id, parent := range parents {
		if _, watched := parents[parent]; watched {
			pid = id
		}
	}
	return pid
}

// decisionsIn are the decisions on log-ins in a log, whose chain is whole.
func decisionsIn(t *testing.T, path string, is func(audit.Event) bool) (all []string) {
	t.Helper()
	for ev, err := range audit.Read(path) {
		if err != nil {
			t.Fatal(err)
		}
		if is(ev) {
			all = append(all, fmt.Sprintf("%s %v %s %s", ev.Action, ev.Allowed, ev.Detail["role"], ev.Correlation))
		}
	}
	return all
}

func TestWhatAGatewayRecordsArrivesOnceWhateverEndsOnTheWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	way, via := newRelay(t, w.Server.Endpoints.Management)
	db := w.postgresVia("db1", via)
	app := w.App("api")
	w.mayLogIn(app, db, "app")
	folder := gatewayFolder(t, db)
	theirs, ours := filepath.Join(folder, "audit.log"), filepath.Join(string(w.Dir), "control", "audit.log")
	logIns := func(ev audit.Event) bool { return ev.Action == "log-in-to-database" }
	kept := func() []string { return decisionsIn(t, theirs, logIns) }
	arrived := func() []string {
		return decisionsIn(t, ours, func(ev audit.Event) bool { return ev.From == string(db.ID) })
	}
	in := func() {
		t.Helper()
		w.await("a log-in", func() bool { return w.logIn(app, db, "app") == nil })
	}
	all := func(what string) {
		t.Helper()
		defer func() {
			if diff := cmp.Diff(kept(), arrived()); diff != "" {
				t.Errorf("%s: kept by the gateway and arrived (-want +got):\n%s", what, diff)
			}
		}()
		w.await(what+" has arrived, each record once", func() bool { return slices.Equal(kept(), arrived()) })
	}
	if err := db.Exec(t.Context(), "CREATE ROLE nobody LOGIN IN ROLE "+postgres.Managed); err != nil {
		t.Fatal(err)
	}
	in()
	if err := w.logIn(app, db, "nobody"); err == nil {
		t.Fatal("a log-in as a role that it is not mapped to")
	}
	if n := len(kept()); n < 2 {
		t.Fatalf("the gateway has %d records, want both log-ins", n)
	}
	all("a log-in and a refusal")

	way.cut(true)
	sent := len(arrived())
	in()
	before := gatewayProcess(t, folder)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n := len(kept())
	w.await("a refusal by the gateway that was started again and has not heard who may log in", func() bool {
		w.logIn(app, db, "app")
		return len(kept()) > n
	})
	if after := gatewayProcess(t, folder); after == before {
		t.Error("it is the same process")
	}
	if now := len(arrived()); now != sent {
		t.Errorf("%d records arrived while the way was cut", now-sent)
	}
	way.cut(false)
	in()
	all("what was kept meanwhile")

	if err := syscall.Kill(gatewayProcess(t, folder), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	in()
	all("what came after it was killed at work")
}

// What a gateway sends is its own server's, whatever it says.
func TestAGatewaySpeaksOfItsOwnServerOnly(t *testing.T) {
	t.Parallel()
	p := innatetest.Start(t)
	db, other := p.Postgres("orders"), p.Postgres("payroll")
	gateway := gatewayOf(p, db)
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Record(t.Context(), audit.Event{Action: "log-in-to-database", Allowed: true, Target: string(other.ID()), From: string(other.ID())}); err != nil {
		t.Fatal(err)
	}
	at, err := log.Begin()
	if err != nil {
		t.Fatal(err)
	}
	lines, to, err := log.Lines(at, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	send := func(server *innatetest.Postgres, token string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
			p.Admin.Info.Management+string(server.ID())+"/gateway/audit?api-version=2024-08-01&at="+at.String(), bytes.NewReader(lines))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", ship.ContentType)
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := p.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	token := gateway.Token(p.Admin.Info.Management)
	if code, text := send(other, token); code != http.StatusForbidden || !strings.Contains(text, "PostgreSQL Gateway") {
		t.Errorf("at another server: %d %s, want 403 that names the role", code, text)
	}
	if refused := events(t, p.Admin, "refused=true&action=gateway/action"); len(refused) != 1 || refused[0].Principal != gateway.Principal() {
		t.Errorf("the refusal is not on the record: %+v", refused)
	}
	for range 2 { // what is sent again is not taken again
		if code, text := send(db, token); code != http.StatusOK || !strings.Contains(text, to.String()) {
			t.Fatalf("at its server: %d %s, want 200 and %s", code, text, to)
		}
	}
	var taken []audit.Event
	eventually(t, "it is in the log", func() bool {
		taken = events(t, p.Admin, "action=log-in-to-database")
		return len(taken) > 0
	})
	if len(taken) != 1 {
		t.Fatalf("%d events, want 1: %+v", len(taken), taken)
	}
	if ev := taken[0]; ev.From != string(db.ID()) || ev.Target != string(db.ID()) || ev.Detail["gateway"] != string(gateway.Principal()) {
		t.Errorf("recorded as from %q on %q by %q, want %s, by whose right it was sent", ev.From, ev.Target, ev.Detail["gateway"], db.ID())
	}
	good := lines
	lines = bytes.Repeat([]byte("x"), ship.MaxBody)
	codes := map[int]int{}
	for range 6 {
		code, _ := send(db, token)
		codes[code]++
	}
	if codes[http.StatusTooManyRequests] == 0 {
		t.Errorf("6 MiB at once were answered %v, want 429 too", codes)
	}
	lines = good
	ungrant(p, gateway, db)
	if code, _ := send(db, token); code != http.StatusForbidden {
		t.Errorf("without the role: %d, want 403", code)
	}
}
