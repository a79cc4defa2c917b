package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"innate"
	"innate/agent/caller"
	"innate/audit"
	"innate/audit/ship"
	"innate/feed/client"
	"innate/gateway/postgres"
	"innate/gateway/postgres/postgrestest"
	"innate/jwt"
)

const (
	tenant   = "11111111-2222-4333-8444-555555555555"
	orders   = innate.ResourceID("/subscriptions/cccccccc-0000-4000-8000-000000000001/resourceGroups/RG/providers/Microsoft.DBforPostgreSQL/flexibleServers/Orders")
	audience = "https://orders.postgres.example.org"
	vm       = "/subscriptions/cccccccc-0000-4000-8000-000000000001/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/"
)

// Identities of the tests.
const (
	alice innate.ObjectID = "aaaaaaaa-0000-4000-8000-000000000001"
	bob   innate.ObjectID = "aaaaaaaa-0000-4000-8000-000000000002"
	carol innate.ObjectID = "aaaaaaaa-0000-4000-8000-000000000003"

	gatewayIdentity innate.ObjectID = "aaaaaaaa-0000-4000-8000-000000000009"
)

var signingKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// A plane is the part of a control plane that a gateway asks: a token service
// and a feed, over HTTP.
type plane struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	rows     map[string]any
	revision uint64
	readers  map[chan client.Event]bool
	received audit.Place
	silent   bool // the feed says nothing more, and takes no new reader

	authority []byte // DER, that client certificates are of
}

func newPlane(t testing.TB) *plane {
	p := &plane{t: t, rows: map[string]any{}, readers: map[chan client.Event]bool{}}
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	p.rows["server"] = client.DatabaseServer{Resource: orders, Audiences: []string{audience}}
	return p
}

func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	origin := p.URL + "/" + tenant
	switch r.URL.Path {
	case "/" + tenant + "/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]string{"issuer": origin + "/", "jwks_uri": p.URL + "/keys"})
	case "/" + tenant + "/v2.0/.well-known/openid-configuration":
		json.NewEncoder(w).Encode(map[string]string{"issuer": origin + "/v2.0", "jwks_uri": p.URL + "/keys"})
	case "/keys":
		json.NewEncoder(w).Encode(jwt.Set{Keys: []jwt.Key{{ID: "k1", Alg: jwt.RS256, Public: signingKey().Public()}}})
	case "/authorities/databases":
		pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: p.authority})
	case "/feed", string(orders) + "/gateway/feed":
		p.serveFeed(w, r)
	case "/audit", string(orders) + "/gateway/audit":
		p.takeAudit(w, r)
	case "/msi/token": // as the agent's endpoint does
		json.NewEncoder(w).Encode(map[string]string{"access_token": p.token(gatewayIdentity, map[string]any{"aud": "https://management.azure.com"}),
			"expires_on": fmt.Sprint(time.Now().Add(time.Hour).Unix()), "resource": "https://management.azure.com", "token_type": "Bearer"})
	default:
		http.NotFound(w, r)
	}
}

// serveFeed tells all rows and then what changes, as feed.Serve does.
func (p *plane) serveFeed(w http.ResponseWriter, r *http.Request) {
	events := make(chan client.Event, 1000)
	p.mu.Lock()
	if p.silent {
		p.mu.Unlock()
		http.Error(w, "away", http.StatusServiceUnavailable)
		return
	}
	events <- client.Event{Reset: true}
	for _, key := range slices.Sorted(maps.Keys(p.rows)) {
		value, _ := json.Marshal(p.rows[key])
		events <- client.Event{Key: key, Value: value}
	}
	events <- client.Event{Revision: p.revision, Synced: true}
	p.readers[events] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.readers, events)
	}()
	w.Header().Set("Content-Type", client.ContentType)
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	out := json.NewEncoder(w)
	for {
		var ev client.Event
		select {
		case ev = <-events:
		case <-beat.C:
			p.mu.Lock()
			ev = client.Event{Revision: p.revision, Beat: true}
			silent := p.silent
			p.mu.Unlock()
			if silent {
				continue
			}
		case <-r.Context().Done():
			return
		}
		if out.Encode(ev) != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

// takeAudit takes lines of the gateway's audit log, and forgets them.
func (p *plane) takeAudit(w http.ResponseWriter, r *http.Request) {
	q, err := ship.ReadRequest(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, to, err := ship.Take(p.received, q, time.Now())
	if err != nil {
		p.t.Errorf("audit records: %v", err)
	}
	p.received = to
	json.NewEncoder(w).Encode(ship.Answer{At: to})
}

// quiet makes the feed say nothing, or go on.
func (p *plane) quiet(silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = silent
}

// put changes a row, or removes it when value is nil.
func (p *plane) put(key string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revision++
	ev := client.Event{Revision: p.revision, Key: key}
	delete(p.rows, key)
	if value != nil {
		p.rows[key] = value
		ev.Value, _ = json.Marshal(value)
	}
	for reader := range p.readers {
		reader <- ev
	}
}

// allow maps a principal to roles; none unmaps it.
func (p *plane) allow(who innate.ObjectID, roles ...string) {
	if len(roles) == 0 {
		p.put("login/"+string(who), nil)
		return
	}
	p.put("login/"+string(who), client.DatabaseLogin{Object: who, Roles: roles})
}

func (p *plane) revoke(kind client.RevocationKind, id string) {
	p.put("revoked/"+client.RevocationKey(kind, id), client.Revocation{Kind: kind, ID: id})
}

// token is a good token of who, then what change says.
func (p *plane) token(who innate.ObjectID, change map[string]any) string {
	p.t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"aud": audience, "iss": p.URL + "/" + tenant + "/", "ver": "1.0", "iat": now, "nbf": now - 300, "exp": now + 3600,
		"tid": tenant, "idtyp": "app", "oid": who, "sub": who, "appid": "bbbbbbbb-0000-4000-8000-000000000001", "uti": "uti-" + string(who),
		"xms_mirid": vm + "web-1", "xms_az_rid": vm + "web-1", "innate_assurance": "cgroup+uid",
	}
	maps.Copy(claims, change)
	s, err := jwt.NewSigner(signingKey(), jwt.RS256, map[string]any{"kid": "k1"})
	if err != nil {
		p.t.Fatal(err)
	}
	token, err := s.Sign(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// A world is a control plane, a PostgreSQL server and the gateway beside it.
type world struct {
	*plane
	t       testing.TB
	pg      *postgrestest.Server
	gateway *postgres.Gateway
	config  postgres.Config
	log     *lines // the gateway's
	stop    func()
}

// lines are a log that is read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// here is the name of the user that the tests run as.
func here(t testing.TB) string {
	t.Helper()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return u.Username
}

// newWorld starts all of it, the gateway in this process. The roles app and
// other are there, and mapped to nobody.
func newWorld(t testing.TB, options ...postgrestest.Option) *world {
	t.Helper()
	w := newServer(t, options...)
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// newServer is the world without its gateway, whose port is taken.
func newServer(t testing.TB, options ...postgrestest.Option) *world {
	t.Helper()
	w := newHost(t, true, options)
	w.pg.Exec(`CREATE ROLE innate_managed; CREATE ROLE innate_gateway LOGIN;
		GRANT pg_signal_backend, pg_read_all_stats TO innate_gateway;
		CREATE ROLE app LOGIN IN ROLE innate_managed; CREATE ROLE other LOGIN IN ROLE innate_managed;`)
	return w
}

// newBare is the same with a server that has not been told of its gateway, and
// runs without libldap's timeouts.
func newBare(t testing.TB) *world {
	t.Helper()
	return newHost(t, false, nil)
}

func newHost(t testing.TB, told bool, options []postgrestest.Option) *world {
	t.Helper()
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// In memory where there is such a folder: a record on a disk that other tests are at
	// too may take longer than a log-in may.
	dir, err := os.MkdirTemp("/dev/shm", "gateway-")
	if err != nil {
		dir, err = os.MkdirTemp("", "gateway-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	w := &world{plane: newPlane(t), t: t, log: new(lines)}
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if told {
		options = append([]postgrestest.Option{
			postgrestest.WithHBA(strings.Join(postgres.HBA(postgres.ByToken(orders, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))), "\n")),
			postgrestest.WithIdent(postgres.Ident(here(t))),
			postgrestest.WithEnv(postgres.Environment(filepath.Join(dir, postgres.CAFile))...),
			postgrestest.WithSetting("authentication_timeout", "10s"), postgrestest.WithSetting("log_connections", "on"),
		}, options...)
	}
	w.pg = postgrestest.Start(t, options...)
	w.config = postgres.Config{
		Server: orders, Dir: dir, Listener: l, Connection: w.pg.Connection("innate_gateway", "postgres"),
		Feed: w.URL + "/feed", Records: w.URL + "/audit", PlaneHTTP: w.Client(), Authority: w.URL, Tenant: tenant, HTTP: w.Client(),
		Log: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", w.log)
		}
	})
	return w
}

// start runs the gateway until w.stop.
func (w *world) start() {
	w.t.Helper()
	g, err := postgres.New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	w.gateway = g
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the gateway ended with: %v", err)
		}
	})
	select {
	case <-g.Ready():
	case <-time.After(20 * time.Second):
		w.t.Fatalf("the gateway is not ready; its log:\n%s", w.log)
	}
}

// restart ends the gateway and starts it on the same port and folder.
func (w *world) restart() {
	w.t.Helper()
	addr := w.config.Listener.Addr().String()
	w.stop()
	l, err := caller.Listen(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.config.Listener = l
	w.start()
}

// logIn connects as a role with a token as the password.
func (w *world) logIn(role, token string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(w.pg.TCP(role, "postgres", w.pg.VerifyFull()))
	if err != nil {
		w.t.Fatal(err)
	}
	c.Password = token
	return pgx.ConnectConfig(w.t.Context(), c)
}

// session is the same, until the test ends, and fails it when it is refused.
func (w *world) session(role, token string) *pgx.Conn {
	w.t.Helper()
	conn, err := w.logIn(role, token)
	if err != nil {
		w.t.Fatalf("log-in as %s: %v\nPostgreSQL:\n%s", role, err, w.pg.Log())
	}
	w.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// until waits for the gateway to have heard what the plane said, by trying.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s did not come about", what)
		}
	}
}

// mapped maps and waits until the gateway lets the log-in in.
func (w *world) mapped(who innate.ObjectID, roles ...string) {
	w.t.Helper()
	w.allow(who, roles...)
	w.until(fmt.Sprintf("the mapping of %s", who), func() bool {
		conn, err := w.logIn(roles[len(roles)-1], w.token(who, nil))
		if err == nil {
			conn.Close(w.t.Context())
		}
		return err == nil
	})
}

// sqlState is that of a refusal.
func sqlState(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprintf("no answer of the server: %v", err)
}
