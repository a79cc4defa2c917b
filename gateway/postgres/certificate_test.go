package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"innate"
	"innate/ca"
	"innate/feed/client"
	"innate/gateway/postgres"
	"innate/gateway/postgres/cluster"
	"innate/gateway/postgres/setup"
	"innate/seal"
	"innate/store"
	"innate/store/file"
)

// A certified is a world in which clients log in by certificate.
type certified struct {
	*world
	admin *administrator
	now   time.Time // when authorities and certificates are made
	ca    *ca.Authorities
	ident string // path of pg_ident.conf
}

// theirs is what the administrator has in pg_ident.conf.
const theirs = "# ours, and not to be touched\r\nowner  root  postgres\nowner  postgres  postgres\n\n\t# END innate\nowner  someone  \"o\"\"ther\" # no end of line"

// newCertified prepares a server for certificates and starts its gateway.
func newCertified(t *testing.T) *certified {
	t.Helper()
	w := &certified{world: newBare(t), now: time.Now().Add(-3 * time.Hour)}
	w.ident = filepath.Join(w.pg.Data(), "pg_ident.conf")
	w.ca = w.authorities()
	w.now = time.Now()
	w.authority = w.ca.Certificate(ca.Databases).Raw
	w.rows["server"] = client.DatabaseServer{Resource: orders, Audiences: []string{audience}, Certificate: true}
	w.config.Clients = w.URL + "/authorities/databases"
	// The gateway was here before, as it has to be.
	clients := filepath.Join(w.config.Dir, postgres.ClientsFile)
	if err := os.WriteFile(clients, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.authority}), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.pg.Write("pg_ident.conf", []byte(theirs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.ident, 0o640); err != nil {
		t.Fatal(err)
	}
	at := w.config.Listener.Addr().(*net.TCPAddr).AddrPort()
	w.admin = newAdministrator(t, w.pg, setup.Config{
		Server: orders, Gateway: netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), CA: filepath.Join(w.config.Dir, postgres.CAFile),
		Clients: clients, User: here(t), Roles: []string{"app", "other"}, Certificate: true,
	})
	if left := w.admin.apply(); len(left) > 0 {
		t.Fatalf("left to people: %+v", left)
	}
	w.admin.conn = w.pg.Connect(w.pg.Connection(cluster.Superuser, "postgres")) // log_connections is as it was when a session began
	if left := w.admin.steps(); len(left) > 0 {
		t.Fatalf("prepared, and these steps are left: %+v", left)
	}
	for _, who := range []innate.ObjectID{alice, bob, carol} {
		w.held(who, placeOf(who))
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// authorities are a platform's.
func (w *certified) authorities() *ca.Authorities {
	w.t.Helper()
	dir := w.t.TempDir()
	must := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	master, err := seal.CreateMaster(filepath.Join(dir, "master.key"))
	must(err)
	engine, err := file.Create(filepath.Join(dir, "store"))
	must(err)
	db, err := store.Open(w.t.Context(), engine)
	must(err)
	w.t.Cleanup(func() { db.Close() })
	all, err := ca.Open(w.t.Context(), ca.Config{DB: db, Seal: master, Domain: "example.org", Now: func() time.Time { return w.now }})
	must(err)
	return all
}

// certificate makes one, and is the part of a connection string that presents it.
func (w *certified) certificate(by *ca.Authorities, p ca.Purpose, who innate.ObjectID, units ...string) string {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	der, err := by.Issue(p, key.Public(), ca.Subject{CommonName: string(who), Units: units, URIs: ca.LoginURIs("example.org", who, orders), Life: time.Hour})
	if err != nil {
		w.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	dir := w.t.TempDir()
	for name, block := range map[string]*pem.Block{"crt": {Type: "CERTIFICATE", Bytes: der}, "key": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return fmt.Sprintf(" sslcert=%s/crt sslkey=%s/key", dir, dir)
}

// own is the certificate of an identity for this server, from its own place.
func (w *certified) own(who innate.ObjectID) string {
	return w.certificate(w.ca, ca.Databases, who, placeOf(who), "orders")
}

// placeOf is a place where an identity has certificates.
func placeOf(who innate.ObjectID) string { return "000000000000000" + string(who[len(who)-1]) }

// held makes a place one of an identity's certificates.
func (w *certified) held(who innate.ObjectID, place string) {
	w.put(client.DatabasePlaceKey(place), client.DatabasePlace{Object: who, Hosting: vm + "web-1", Host: "/host"})
}

func (w *certified) present(certificate, role string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(w.t.Context(), w.pg.TCP(role, "postgres", w.pg.VerifyFull()+certificate))
	if err == nil {
		w.t.Cleanup(func() { conn.Close(w.t.Context()) })
	}
	return conn, err
}

// untilIn waits until a log-in is let in, and untilOut until it is refused.
func (w *certified) untilIn(certificate, role string) (in *pgx.Conn) {
	w.t.Helper()
	w.until("a log-in as "+role, func() (ok bool) {
		conn, err := w.present(certificate, role)
		in = conn
		return err == nil
	})
	return in
}

func (w *certified) untilOut(certificate, role string) {
	w.t.Helper()
	w.until("that nobody logs in as "+role, func() bool {
		conn, err := w.present(certificate, role)
		if err == nil {
			conn.Close(w.t.Context())
		}
		return sqlState(err) == "28000"
	})
}

// file is pg_ident.conf as it is.
func (w *certified) file() string {
	w.t.Helper()
	b, err := os.ReadFile(w.ident)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// block is what the gateway keeps there; all else must be as it was.
func (w *certified) block() []string {
	w.t.Helper()
	before, lines, after, found, err := postgres.Rows.Cut(w.file())
	if err != nil || !found {
		w.t.Fatalf("pg_ident.conf has no block of the gateway's (%v):\n%s", err, w.file())
	}
	want := "# BEGIN innate: kept by 'innate postgres prepare', changes in here are lost\n" + postgres.Ident(here(w.t)) + "\n# END innate\n"
	if diff := cmp.Diff(want+theirs, before+after); diff != "" {
		w.t.Errorf("pg_ident.conf outside of the rows (-want +got):\n%s", diff)
	}
	return lines
}

func (w *certified) untilBlock(want ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("the rows %q", want), func() bool { return cmp.Equal(want, w.block()) })
}

func rowOf(who innate.ObjectID, role string) string {
	return `innate_certificates  "OU=orders,OU=` + placeOf(who) + `,CN=` + string(who) + `"  "` + role + `"`
}

func TestTheRowsOfCertificatesAreKeptAndAllElseIsLeftAsItIs(t *testing.T) {
	w := newCertified(t)
	before, err := os.Stat(w.ident)
	if err != nil {
		t.Fatal(err)
	}
	reloads := func() int { return strings.Count(w.pg.Log(), "received SIGHUP") }
	w.allow(bob, "other")
	w.allow(alice, "app", `o"t,h #er`, "/^.*$", "two\nlines")
	w.untilBlock(rowOf(alice, "app"), rowOf(alice, `o""t,h #er`), rowOf(bob, "other"))
	w.untilIn(w.own(bob), "other")
	w.untilIn(w.own(alice), "app")
	if !strings.Contains(w.log.String(), `\"/^.*$\" \"two\\nlines\"`) {
		t.Error("the log does not name the roles that have no row")
	}
	after, err := os.Stat(w.ident)
	if err != nil {
		t.Fatal(err)
	}
	was, is := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t)
	if after.Mode() != 0o640 || was.Uid != is.Uid || was.Gid != is.Gid || was.Ino == is.Ino {
		t.Errorf("pg_ident.conf was 0640 %d:%d, and is %v %d:%d; want the same, in another file", was.Uid, was.Gid, after.Mode(), is.Uid, is.Gid)
	}

	// What changes nothing of the rows makes the server read nothing.
	settled := reloads()
	w.allow(bob, "other")
	w.revoke(client.RevokedToken, "another's")
	w.allow(carol, "app")
	w.untilIn(w.own(carol), "app")
	if n := reloads() - settled; n != 1 {
		t.Errorf("the server read its files %d times for one row", n)
	}

	// The server is told of rows of which it could not be told when they were written.
	w.pg.Exec("REVOKE EXECUTE ON FUNCTION pg_reload_conf() FROM innate_gateway")
	w.allow(carol, "other")
	w.untilBlock(rowOf(alice, "app"), rowOf(alice, `o""t,h #er`), rowOf(bob, "other"), rowOf(carol, "other"))
	w.until("that the log says so", func() bool { return strings.Contains(w.log.String(), "permission denied for function pg_reload_conf") })
	w.pg.Exec("GRANT EXECUTE ON FUNCTION pg_reload_conf() TO innate_gateway")
	w.untilIn(w.own(carol), "other")

	// What somebody else does to the rows is mended; without the marks the file is theirs.
	mended := w.file()
	if err := w.pg.Write("pg_ident.conf", []byte(strings.ReplaceAll(mended, rowOf(bob, "other"), rowOf(alice, "other")))); err != nil {
		t.Fatal(err)
	}
	w.until("that the rows are mended", func() bool { return w.file() == mended })
	if err := w.pg.Write("pg_ident.conf", []byte(postgres.Ident(here(t))+"\n"+theirs)); err != nil {
		t.Fatal(err)
	}
	w.allow(carol)
	w.until("that the log says so", func() bool { return strings.Contains(w.log.String(), "has no lines for the gateway's rows") })
	if got := w.file(); got != postgres.Ident(here(t))+"\n"+theirs {
		t.Errorf("without marks the gateway wrote:\n%s", got)
	}
}

func TestWhoeverHasNoRowOrNoGoodCertificateIsRefused(t *testing.T) {
	w := newCertified(t)
	w.allow(alice, "app")
	w.untilIn(w.own(alice), "app")
	w.now = time.Now().Add(-2 * time.Hour)
	expired := w.own(alice)
	w.now = time.Now()
	const inTLS = "" // the server hangs up, and the client may or may not have read the alert by then
	for name, c := range map[string]struct{ certificate, role, code string }{
		"none":                        {"", "app", "28000"},
		"expired":                     {expired, "app", inTLS},
		"of another authority":        {w.certificate(w.authorities(), ca.Databases, alice, placeOf(alice), "orders"), "app", inTLS},
		"of another purpose":          {w.certificate(w.ca, ca.Identities, alice, placeOf(alice), "orders"), "app", inTLS},
		"for another server":          {w.certificate(w.ca, ca.Databases, alice, placeOf(alice), "payroll"), "app", "28000"},
		"for one whose name is part":  {w.certificate(w.ca, ca.Databases, alice, placeOf(alice), "orders2"), "app", "28000"},
		"for no server":               {w.certificate(w.ca, ca.Databases, alice, placeOf(alice)), "app", "28000"},
		"from nowhere":                {w.certificate(w.ca, ca.Databases, alice, "orders"), "app", "28000"},
		"from another place":          {w.certificate(w.ca, ca.Databases, alice, "00000000000000ff", "orders"), "app", "28000"},
		"from another's place":        {w.certificate(w.ca, ca.Databases, alice, placeOf(bob), "orders"), "app", "28000"},
		"of who is not mapped":        {w.own(bob), "app", "28000"},
		"of who is mapped to another": {w.own(alice), "other", "28000"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.present(c.certificate, c.role)
			var refused *pgconn.ConnectError
			if !errors.As(err, &refused) || c.code != inTLS && sqlState(err) != c.code {
				t.Errorf("got %v, want a refusal %s", err, c.code)
			}
		})
	}
	w.pg.Await("could not accept SSL connection: certificate verify failed")
	// Two places of one identity: with the one go its certificate and its session.
	w.held(alice, "00000000000000ff")
	second := w.certificate(w.ca, ca.Databases, alice, "00000000000000ff", "orders")
	theirs, mine := w.untilIn(second, "app"), w.untilIn(w.own(alice), "app")
	w.put(client.DatabasePlaceKey("00000000000000ff"), nil)
	if _, err := theirs.Exec(t.Context(), "SELECT pg_sleep(20)"); sqlState(err) != "57P01" {
		t.Errorf("the session from a place that is gone: %v", err)
	}
	if _, err := w.present(second, "app"); sqlState(err) != "28000" {
		t.Errorf("a log-in from a place that is gone: %v", err)
	}
	if _, err := mine.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session from the other place: %v", err)
	}

	// Over the socket, and without TLS, there is no certificate.
	if _, err := pgx.Connect(t.Context(), w.pg.Connection("app", "postgres")); sqlState(err) != "28000" {
		t.Errorf("over the socket: %v", err)
	}
	if _, err := pgx.Connect(t.Context(), w.pg.TCP("app", "postgres", "sslmode=disable")); sqlState(err) != "28000" {
		t.Errorf("without TLS: %v", err)
	}
}

func TestNobodyLogsInByCertificateOnTheWordOfAnOldFeedOrOfNoGateway(t *testing.T) {
	w := newCertified(t)
	w.stop()
	w.config.Stale = 3 * time.Second
	w.config.Listener = nil
	again := func() {
		t.Helper()
		var err error
		if w.config.Listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		w.start()
	}
	again()
	w.allow(alice, "app")
	certificate := w.own(alice)
	session := w.untilIn(certificate, "app")

	w.quiet(true)
	w.untilOut(certificate, "app")
	w.untilBlock()
	if _, err := session.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("the session that was there: %v", err)
	}
	w.quiet(false)
	w.untilIn(certificate, "app")

	w.stop()
	w.untilOut(certificate, "app")
	w.untilBlock()

	// One that was killed leaves its rows. What they say is not believed.
	stale := strings.Replace(w.file(), string(postgres.Rows)+"\n", string(postgres.Rows)+"\n"+rowOf(bob, "app")+"\n", 1)
	if err := w.pg.Write("pg_ident.conf", []byte(stale)); err != nil {
		t.Fatal(err)
	}
	if err := w.pg.Reload(); err != nil {
		t.Fatal(err)
	}
	left := w.own(bob)
	left1 := w.untilIn(left, "app")
	again()
	w.untilBlock(rowOf(alice, "app"))
	w.untilOut(left, "app")
	if _, err := left1.Exec(t.Context(), "SELECT pg_sleep(20)"); sqlState(err) != "57P01" && sqlState(err) != "" {
		t.Errorf("the session of who lost the right meanwhile: %v", err)
	}
	w.untilIn(certificate, "app")

	// One that ends when the server is not to be reached leaves none for its next start.
	w.pg.Exec("ALTER ROLE innate_gateway NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'innate_gateway'")
	w.until("that the gateway knows", func() bool { return strings.Contains(w.log.String(), "is not permitted to log in") })
	w.stop()
	w.untilBlock()
}

func TestAServerGoesFromCertificatesToTokensAndBack(t *testing.T) {
	w := newCertified(t)
	w.allow(alice, "app")
	certificate := w.own(alice)
	w.untilIn(certificate, "app")

	// The resource first: tokens are good, and no certificate is.
	server := client.DatabaseServer{Resource: orders, Audiences: []string{audience}}
	w.put("server", server)
	w.untilBlock()
	w.untilOut(certificate, "app")
	w.admin.c.Certificate = false
	w.admin.apply()
	w.admin.conn = w.pg.Connect(w.pg.Connection(cluster.Superuser, "postgres"))
	if got, want := w.file(), "# BEGIN innate: kept by 'innate postgres prepare', changes in here are lost\n"+postgres.Ident(here(t))+"\n# END innate\n"+theirs; got != want {
		t.Errorf("pg_ident.conf where one logs in by token:\n%s", cmp.Diff(want, got))
	}
	if got := w.pg.Query("SHOW ssl_ca_file"); got != "" {
		t.Errorf("the server still believes client certificates, by %s", got)
	}
	if err := w.pg.Restart(t.Context(), postgres.Environment(w.admin.c.CA)); err != nil {
		t.Fatal(err)
	}
	w.until("a log-in by token", func() bool {
		conn, err := w.logIn("app", w.token(alice, nil))
		if err == nil {
			conn.Close(t.Context())
		}
		return err == nil
	})

	// And back: tokens are refused before the server is told, and what the server had is there again.
	server.Certificate = true
	w.put("server", server)
	w.until("that tokens are refused", func() bool {
		conn, err := w.logIn("app", w.token(alice, nil))
		if err == nil {
			conn.Close(t.Context())
		}
		return sqlState(err) == "28000"
	})
	w.pg.Await("LDAP diagnostics: this server takes certificates and no tokens")
	w.admin.conn = w.pg.Connect(w.pg.Connection(cluster.Superuser, "postgres"))
	w.admin.c.Certificate = true
	w.admin.apply()
	w.untilIn(certificate, "app")
	w.untilBlock(rowOf(alice, "app"))
}

func TestTheAuthorityOfCertificatesJoinsThoseThatAreThere(t *testing.T) {
	w := newCertified(t)
	others := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.authorities().Certificate(ca.Databases).Raw})
	if err := w.pg.Write("root.crt", others); err != nil {
		t.Fatal(err)
	}
	w.pg.Exec("ALTER SYSTEM SET ssl_ca_file = 'root.crt'")
	w.pg.Exec("SELECT pg_reload_conf()")
	w.until("the setting", func() bool { return w.pg.Query("SHOW ssl_ca_file") == "root.crt" })
	path := filepath.Join(w.pg.Data(), "root.crt")
	if got := w.admin.faults(nil); !strings.Contains(got, "missing the platform's authority for clients of databases is not in "+path) {
		t.Errorf("no fault says that it is missing:\n%s", got)
	}
	steps := w.admin.steps()
	if len(steps) != 1 || steps[0].Path != path || len(steps[0].Removed) > 0 {
		t.Fatalf("steps: %+v, want one, to %s, that removes nothing", steps, path)
	}
	w.admin.apply()
	both, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(string(both), string(others)) {
		t.Errorf("their file is now (%v):\n%s", err, both)
	}
	w.allow(alice, "app")
	w.untilIn(w.own(alice), "app")
	w.admin.c.Certificate = false
	w.admin.apply()
	if got, err := os.ReadFile(path); err != nil || string(got) != string(others) {
		t.Errorf("by token again, and their file is (%v):\n%s", err, got)
	}
}

func TestWhatIsUnsafeOrMissingByCertificateIsSaid(t *testing.T) {
	w := newCertified(t)
	if got := w.admin.faults(postgres.Answers(t.Context(), w.admin.c.Gateway, w.admin.c.CA)); got != "" {
		t.Errorf("prepared, and these are faults:\n%s", got)
	}
	w.stop()
	hba, ident := strings.Join(postgres.HBA(postgres.ByCertificate), "\n")+"\nlocal all postgres peer map=owner\n", w.file()
	for name, c := range map[string]struct{ hba, ident, sql, want string }{
		"a row of somebody's":     {hba, ident + "\ninnate_certificates \"OU=orders,CN=x\" app\n", "", "unsafe " + w.ident + " has a row of the map innate_certificates"},
		"no block":                {hba, theirs, "", "missing " + w.ident + " has no lines for the gateway's rows"},
		"half a block":            {hba, string(postgres.Rows) + "\n" + theirs, "", "missing the gateway cannot keep its rows"},
		"another map":             {strings.ReplaceAll(hba, "map=innate_certificates", "map=owner"), ident, "", "unsafe pg_hba.conf line 4 does not look into the gateway's rows"},
		"by password":             {strings.ReplaceAll(hba, postgres.ByCertificate, "md5"), ident, "", "missing pg_hba.conf has no line by which the members of innate_managed log in (cert)"},
		"a broader line above":    {"host all all 127.0.0.1/32 trust\n" + hba, ident, "", "unsafe pg_hba.conf line 1 (host all, all) comes before ours"},
		"the gateway may not see": {hba, ident, "REVOKE pg_read_all_settings FROM innate_gateway", "missing innate_gateway must be a member of pg_read_all_settings"},
		"a revocation list":       {hba, ident, "ALTER SYSTEM SET ssl_crl_file = 'none.crl'; SELECT pg_reload_conf()", "missing the server wants a revocation list of every authority (ssl_crl_file)"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.pg.Write("pg_hba.conf", []byte(c.hba)); err != nil {
				t.Fatal(err)
			}
			if err := w.pg.Write("pg_ident.conf", []byte(c.ident)); err != nil {
				t.Fatal(err)
			}
			for statement := range strings.SplitSeq(c.sql, "; ") {
				w.pg.Exec(statement)
			}
			w.until("a fault that says "+c.want, func() bool { return strings.Contains(w.admin.faults(nil), c.want) })
		})
	}
	w.admin.c.User = "nobody"
	if got := w.admin.faults(nil); !strings.Contains(got, "the gateway could not keep its rows: "+w.pg.Data()+" is not nobody's") {
		t.Errorf("no fault says that the gateway may not write:\n%s", got)
	}
	if err := os.Remove(w.admin.c.Clients); err != nil {
		t.Fatal(err)
	}
	if err := w.admin.read().Obstacle(); err == nil || !strings.Contains(err.Error(), "start the gateway") {
		t.Errorf("without the authority: %v", err)
	}
}
