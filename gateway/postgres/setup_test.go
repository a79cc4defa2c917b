package postgres_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"innate/gateway/postgres"
	"innate/gateway/postgres/cluster"
	"innate/gateway/postgres/postgrestest"
	"innate/gateway/postgres/setup"
)

// An administrator sets a server up.
type administrator struct {
	t    *testing.T
	pg   *postgrestest.Server
	conn *pgx.Conn
	c    setup.Config
}

func newAdministrator(t *testing.T, pg *postgrestest.Server, c setup.Config) *administrator {
	return &administrator{t, pg, pg.Connect(pg.Connection(cluster.Superuser, "postgres")), c}
}

func (a *administrator) read() *setup.Server {
	a.t.Helper()
	s, err := setup.Read(a.t.Context(), a.conn, a.c)
	if err != nil {
		a.t.Fatal(err)
	}
	return s
}

func (a *administrator) steps() []setup.Step {
	a.t.Helper()
	steps, err := a.read().Steps()
	if err != nil {
		a.t.Fatal(err)
	}
	return steps
}

func (a *administrator) apply() (left []setup.Step) {
	a.t.Helper()
	left, err := setup.Apply(a.t.Context(), a.conn, a.steps())
	if err != nil {
		a.t.Fatal(err)
	}
	return left
}

// faults are the kinds and texts of what is wrong, as one text.
func (a *administrator) faults(gateway error) string {
	a.t.Helper()
	var all strings.Builder
	for _, f := range a.read().Faults(gateway) {
		all.WriteString(f.Kind + " " + f.What + "\n")
	}
	return all.String()
}

func TestAServerThatWasPreparedTakesTokens(t *testing.T) {
	w := newBare(t)
	at := w.config.Listener.Addr().(*net.TCPAddr).AddrPort()
	a := newAdministrator(t, w.pg, setup.Config{
		Server: orders, Gateway: netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), CA: filepath.Join(w.config.Dir, postgres.CAFile),
		User: here(t), Roles: []string{"app", `o'ther "role"`},
	})
	hba := filepath.Join(w.pg.Data(), "pg_hba.conf")
	before, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no line by which the members of innate_managed log in", "there is no role innate_managed", "without LDAPTIMEOUT", "authority cannot be read", `no role "app"`} {
		if got := a.faults(nil); !strings.Contains(got, want) {
			t.Errorf("before: no fault says %q:\n%s", want, got)
		}
	}
	// The server is nobody's service here: its environment is left to people.
	left := a.apply()
	if len(left) != 1 || left[0].Needs != setup.Restart || len(left[0].Added) != 4 {
		t.Fatalf("left to people: %+v; want the four variables", left)
	}
	if err := w.pg.Restart(t.Context(), left[0].Added); err != nil {
		t.Fatal(err)
	}
	a.conn = w.pg.Connect(w.pg.Connection(cluster.Superuser, "postgres"))
	if left := a.steps(); len(left) > 0 {
		t.Errorf("prepared, and %d steps are left: %+v", len(left), left)
	}
	after, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(after), string(before)) || !strings.HasPrefix(string(after), "# BEGIN innate") {
		t.Errorf("pg_hba.conf is no longer what it was, below a block of ours:\n%s", after)
	}
	w.start()
	t.Cleanup(func() { w.stop() })
	w.mapped(alice, "app")
	w.session("app", w.token(alice, nil))
	if got := a.faults(postgres.Answers(t.Context(), a.c.Gateway, a.c.CA)); got != "" {
		t.Errorf("prepared, and a log-in works, and these are faults:\n%s", got)
	}
	// Again is nothing, another address is one line for another.
	a.c.Gateway = netip.MustParseAddrPort("127.0.0.2:390")
	var changed []string
	for _, s := range a.steps() {
		changed = append(changed, s.Path)
		if s.Path == hba && (len(s.Removed) != 2 || len(s.Added) != 2) {
			t.Errorf("another address changes %v to %v", s.Removed, s.Added)
		}
	}
	if diff := cmp.Diff([]string{hba}, changed); diff != "" {
		t.Errorf("another address changes (-want +got):\n%s", diff)
	}
}

func TestWhatIsUnsafeIsSaid(t *testing.T) {
	w := newServer(t)
	at := w.config.Listener.Addr().(*net.TCPAddr).AddrPort()
	gateway := netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	a := newAdministrator(t, w.pg, setup.Config{Server: orders, Gateway: gateway, CA: filepath.Join(w.config.Dir, postgres.CAFile), User: here(t)})
	hba := strings.Join(postgres.HBA(postgres.ByToken(orders, gateway)), "\n") + "\nlocal all postgres peer map=owner\n"
	for name, c := range map[string]struct{ hba, sql, want string }{
		"a broader line above":     {"host all all 127.0.0.1/32 trust\n" + hba, "", "unsafe pg_hba.conf line 1 (host all, all) comes before ours"},
		"a line for a member":      {"host all app 127.0.0.1/32 md5\n" + hba, "", "unsafe pg_hba.conf line 1 (host app, all) comes before ours"},
		"ldaps":                    {strings.ReplaceAll(hba, "ldaptls=1", "ldapscheme=ldaps"), "", "unsafe pg_hba.conf line 4 asks by ldaps"},
		"in clear":                 {strings.ReplaceAll(hba, "ldaptls=1", ""), "", "unsafe pg_hba.conf line 4 sends tokens to the gateway in clear"},
		"without TLS":              {strings.ReplaceAll(hba, "hostssl ", "host "), "", "unsafe pg_hba.conf line 4 takes tokens over connections without TLS"},
		"localhost":                {strings.ReplaceAll(hba, "ldapserver=127.0.0.1", "ldapserver=localhost"), "", "missing pg_hba.conf line 4 says ldapserver=localhost"},
		"another port":             {strings.ReplaceAll(hba, "ldapport=", "ldapport=1"), "", "missing pg_hba.conf line 4 asks 127.0.0.1 port 1"},
		"a line that is none":      {"hostssl all all nonsense\n" + hba, "", "missing pg_hba.conf line 1 cannot be read"},
		"a superuser":              {hba, "CREATE ROLE root_of_all SUPERUSER LOGIN IN ROLE innate_managed", `unsafe role "root_of_all" is for tokens and a superuser`},
		"the gateway may not":      {hba, "ALTER ROLE innate_gateway NOSUPERUSER; REVOKE pg_signal_backend FROM innate_gateway", "missing innate_gateway must log in and be a member of pg_signal_backend"},
		"the gateway is superuser": {hba, "ALTER ROLE innate_gateway SUPERUSER", "unsafe the gateway's role is a superuser"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := w.pg.Write("pg_hba.conf", []byte(c.hba)); err != nil {
				t.Fatal(err)
			}
			if c.sql != "" {
				w.pg.Exec(c.sql)
			}
			if got := a.faults(nil); !strings.Contains(got, c.want) {
				t.Errorf("no fault says %q:\n%s", c.want, got)
			}
		})
	}
	if err := w.pg.Write("pg_hba.conf", []byte(hba)); err != nil { // with a line that is none it would not start
		t.Fatal(err)
	}
	if err := w.pg.Restart(context.Background(), []string{"LDAPTLS_REQCERT=never", "LDAPTLS_CACERT=/other.crt"}); err != nil {
		t.Fatal(err)
	}
	a.conn = w.pg.Connect(w.pg.Connection(cluster.Superuser, "postgres"))
	for _, want := range []string{"unsafe the server runs with LDAPTLS_REQCERT=never", "missing the server runs with LDAPTLS_CACERT=/other.crt", "unsafe the server runs without LDAPNETWORK_TIMEOUT", "advice the server runs without SASL_PATH"} {
		if got := a.faults(nil); !strings.Contains(got, want) {
			t.Errorf("no fault says %q:\n%s", want, got)
		}
	}
}

func TestAFileThatTheServerCannotReadIsPutBack(t *testing.T) {
	w := newServer(t)
	at := netip.MustParseAddrPort("127.0.0.1:389")
	a := newAdministrator(t, w.pg, setup.Config{Server: "with \" a quote", Gateway: at, CA: "/ca.crt", User: here(t)})
	hba := filepath.Join(w.pg.Data(), "pg_hba.conf")
	before, _ := os.ReadFile(hba)
	steps := a.steps()
	if _, err := setup.Apply(t.Context(), a.conn, steps); err == nil || !strings.Contains(err.Error(), "is as it was before") {
		t.Errorf("applied: %v", err)
	}
	after, _ := os.ReadFile(hba)
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Errorf("pg_hba.conf (-before +after):\n%s", diff)
	}
}

func TestTheEnvironmentIsWrittenWhereDebianHasIt(t *testing.T) {
	w := newServer(t)
	if err := w.pg.Write("environment", []byte("# kept by the administrator\nTZ = 'UTC'\n")); err != nil {
		t.Fatal(err)
	}
	a := newAdministrator(t, w.pg, setup.Config{Server: orders, Gateway: netip.MustParseAddrPort("127.0.0.1:389"), CA: "/var/lib/x/ca.crt", User: here(t)})
	a.apply()
	got, err := os.ReadFile(filepath.Join(w.pg.Data(), "environment"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(got), "\n")
	want := "LDAPTLS_CACERT = '/var/lib/x/ca.crt'\nLDAPNETWORK_TIMEOUT = '2'\nLDAPTIMEOUT = '3'\nSASL_PATH = '/proc/sys'\n# END innate\n# kept by the administrator\nTZ = 'UTC'\n"
	if diff := cmp.Diff(want, block); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if left := a.steps(); len(left) > 0 {
		t.Errorf("and again: %+v", left)
	}
}
