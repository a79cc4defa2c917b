package main_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"innate/agent/systemdtest"
	"innate/gateway/postgres/cluster"
	"innate/innatetest"
)

// Where there is no environment file of Debian's, the server's unit has it.
func TestPrepareTellsTheUnitOfAServerWhatLibldapIsToBelieve(t *testing.T) {
	programs, err := cluster.Find()
	if err != nil {
		t.Skip(err)
	}
	m := &machine{systemdtest.Boot(t), t}
	binary, err := os.ReadFile(innatetest.Program(t))
	if err != nil {
		t.Fatal(err)
	}
	m.Write(program, string(binary), 0o755)
	identity, err := cluster.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m.Run("install", "-d", "-o", "postgres", "/var/lib/pg", "/run/pg")
	asServer := []string{"setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"}
	m.Run(append(slices.Clone(asServer), programs+"/initdb", "--pgdata", "/var/lib/pg/data", "--username", "postgres", "--auth", "peer", "--no-sync")...)
	for name, content := range map[string]string{
		"server.crt": string(identity.Certificate), "server.key": string(identity.Key),
		"postgresql.conf": "listen_addresses = ''\nunix_socket_directories = '/run/pg'\nssl = on\nshared_buffers = '16MB'\n",
		"pg_hba.conf":     "local all postgres peer map=owner\n", "pg_ident.conf": "owner root postgres\nowner postgres postgres\n",
	} {
		m.Write("/var/lib/pg/data/"+name, content, 0o600)
		m.Run("chown", "postgres", "/var/lib/pg/data/"+name)
	}
	m.Unit("pg.service", "[Service]\nType=notify\nUser=postgres\nExecStart="+programs+"/postgres -D /var/lib/pg/data\n")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the server said:\n%s", m.Log("pg.service"))
		}
	})
	m.Run("systemctl", "start", "pg")
	tell := func(as []string, more ...string) string {
		t.Helper()
		return m.Run(append(append(slices.Clone(as), program, "postgres", "prepare", "--server", "orders", "--role", "app", "--connection", "host=/run/pg user=postgres dbname=postgres"), more...)...)
	}
	const file = "/etc/systemd/system/pg.service.d/innate.conf"
	if out := tell(asServer, "--apply"); !strings.Contains(out, "into "+file+", as root") {
		t.Errorf("it does not say what is left to root:\n%s", out)
	}
	if out := tell(nil); !strings.Contains(out, file) || strings.Contains(out, "pg_hba.conf") {
		t.Errorf("all but the environment was done:\n%s", out)
	}
	if out := tell(nil, "--apply"); !strings.Contains(out, "systemctl daemon-reload && systemctl restart pg.service") {
		t.Errorf("it does not say how that is in force:\n%s", out)
	}
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "restart", "pg")
	got := m.environ("pg.service")
	for name, want := range map[string]string{"LDAPTLS_CACERT": "/var/lib/innate-postgres/ca.crt", "LDAPNETWORK_TIMEOUT": "2", "LDAPTIMEOUT": "3", "SASL_PATH": "/proc/sys"} {
		if got[name] != want {
			t.Errorf("the server runs with %s=%q, want %q", name, got[name], want)
		}
	}
	if out := tell(nil); !strings.Contains(out, "The server is told all of it") {
		t.Errorf("and again:\n%s", out)
	}
}
