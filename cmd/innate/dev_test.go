package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// dev starts 'innate dev' on a declaration and returns when it is ready; the
// shell has read its env file then.
func (s *shell) dev(declaration string, flags ...string) (p *process, file string) {
	s.t.Helper()
	file = s.write("innate.yaml", declaration)
	env := filepath.Join(s.tmp, "env")
	p = s.start(append([]string{"dev", "-f", file, "--env-file", env}, flags...)...)
	p.waitFor("innate dev: ready")
	s.read(env)
	return p, file
}

const someOfEach = `
vaults:
  kv1: {secrets: {db-password: hunter2, from-env: "${DB_PASSWORD}"}}
identities: [shared]
apps:
  api: {identities: [shared], settings: {LOG_LEVEL: debug}}
  worker: {}
vms:
  web-1: {}
registrations:
  orders: {uris: ["api://orders"], secret: true}
roles:
  - {to: api, role: Key Vault Secrets User, at: kv1}
`

func TestDevTellsOtherProgramsWhatTheyNeed(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.env = append(s.env, "DB_PASSWORD=from the environment")
	p, _ := s.dev(someOfEach)
	for _, name := range []string{
		"INNATE", "INNATE_SOCKET", "INNATE_AGENT_SOCKET", "AZURE_AUTHORITY_HOST", "AZURE_TENANT_ID", "AZURE_SUBSCRIPTION_ID",
		"INNATE_MANAGEMENT", "INNATE_GRAPH", "INNATE_VAULT_SUFFIX", "INNATE_VAULT_KV1_URL",
		"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
		"INNATE_APP_API_ID", "INNATE_APP_API_PRINCIPAL_ID", "INNATE_VM_WEB_1_ID", "INNATE_VM_WEB_1_PRINCIPAL_ID",
		"INNATE_IDENTITY_SHARED_ID", "INNATE_IDENTITY_SHARED_CLIENT_ID", "INNATE_IDENTITY_SHARED_PRINCIPAL_ID",
		"INNATE_REGISTRATION_ORDERS_CLIENT_ID", "INNATE_REGISTRATION_ORDERS_CLIENT_SECRET",
	} {
		if s.get(name) == "" {
			t.Errorf("the env file has no %s", name)
		}
	}
	env := filepath.Join(s.tmp, "env")
	if st, err := os.Stat(env); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the env file, which has a secret in it: %v, %v; want mode 0600", st, err)
	}

	vault := s.get("INNATE_VAULT_KV1_URL")
	for name, want := range map[string]string{"db-password": "hunter2", "from-env": "from the environment"} {
		if got := strings.TrimSpace(s.must("run", "--app", "api", "--", s.get("INNATE"), "sample", "secret", vault, name)); got != want {
			t.Errorf("the app reads %s: got %q, want %q", name, got, want)
		}
	}
	if got := strings.TrimSpace(s.must("run", "--app", "api", "--", "/bin/sh", "-c", "echo $LOG_LEVEL")); got != "debug" {
		t.Errorf("the app's setting: got %q, want debug", got)
	}
	if p := s.run("run", "--app", "api", "--", "/bin/sh", "-c", "exit 3"); p.code() != 3 {
		t.Errorf("the app ends with 3: got %d", p.code())
	}
	s.refused([]string{"403", "Key Vault Secrets User"}, "run", "--app", "worker", "--", s.get("INNATE"), "sample", "secret", vault, "db-password")

	p.signal(syscall.SIGTERM)
	if p.code() != 0 {
		t.Errorf("ended by SIGTERM: exit code %d, want 0:\n%s", p.code(), p.all())
	}
	if _, err := os.Stat(env); err == nil {
		t.Error("the env file outlives the platform that it tells of")
	}
	if left := s.leftBehind(p.pid()); len(left) > 0 {
		t.Errorf("it left behind:\n%s", strings.Join(left, "\n"))
	}
}

// names lists what a list command prints.
func (s *shell) names(command string) (names []string) {
	s.t.Helper()
	var all []struct {
		Name string `json:"name"`
	}
	out := s.must(command, "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		s.t.Fatalf("innate %s list: %v in:\n%s", command, err, out)
	}
	for _, a := range all {
		names = append(names, a.Name)
	}
	return names
}

func TestDevFollowsItsFile(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	p, file := s.dev(`
vaults: {kv1: {secrets: {a: one}}}
apps: {api: {}, worker: {}}
registrations: {orders: {uris: ["api://orders"]}}
`)
	client := s.get("INNATE_REGISTRATION_ORDERS_CLIENT_ID")
	s.refused([]string{"403"}, "run", "--app", "api", "--", s.get("INNATE"), "sample", "secret", s.get("INNATE_VAULT_KV1_URL"), "a")

	const second = `
vaults: {kv1: {secrets: {a: one}}, kv2: {secrets: {b: two}}}
apps: {api: {}}
registrations: {orders: {uris: ["api://orders"]}}
roles: [{to: api, role: Key Vault Secrets User, at: kv2}]
`
	s.write(filepath.Base(file), second)
	p.waitFor(file + " applied")
	s.read(filepath.Join(s.tmp, "env"))
	if got := s.must("run", "--app", "api", "--", s.get("INNATE"), "sample", "secret", s.get("INNATE_VAULT_KV2_URL"), "b"); got != "two\n" {
		t.Errorf("the new vault's secret: got %q, want two", got)
	}
	if got := s.names("app"); len(got) != 1 || got[0] != "api" {
		t.Errorf("worker is declared no more: got the apps %q, want api alone", got)
	}
	s.refused([]string{"worker"}, "run", "--app", "worker", "--", "/bin/true")
	if got := s.get("INNATE_REGISTRATION_ORDERS_CLIENT_ID"); got != client {
		t.Errorf("a registration that stayed was made anew: client id %s, was %s", got, client)
	}
	if got := strings.Count(s.must("secret", "versions", "a", "--vault", "kv1"), "\na "); got != 1 {
		t.Errorf("a secret that stayed the same has %d versions, want 1", got)
	}

	s.write(filepath.Base(file), "vaults: {}\nvalts: {}\n")
	p.waitFor("not applied")
	if said := p.errout.String(); !strings.Contains(said, `line 2: there is no key "valts"`) {
		t.Errorf("it does not say why the file is wrong:\n%s", said)
	}
	if got := s.names("vault"); len(got) != 2 {
		t.Errorf("a wrong file changed something: got the vaults %q, want kv1 and kv2", got)
	}

	s.write(filepath.Base(file), strings.Replace(second, "Key Vault Secrets User", "Key Vault Secret User", 1)+"identities: [late]\n")
	p.waitFor(`no role is called "Key Vault Secret User"`)
	if got := s.names("identity"); len(got) != 0 {
		t.Errorf("a file with an unknown role changed something: got the identities %q", got)
	}

	s.write(filepath.Base(file), strings.Replace(second, "roles: [", "roles: [] # [", 1))
	eventually(t, "the role that is declared no more is taken back", func() bool {
		return !strings.Contains(s.must("role", "list", "--at", "kv2"), "Key Vault Secrets User")
	})
}

func TestDevNamesEveryFaultOfItsFileAtOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"everything": {`
colour: red
vaults: {kv1: {secrets: {a: "${NOT_SET}", b: "${NOR_THIS}"}, sku: premium}}
apps: {api: {identities: [x]}}
vms: {v: {identities: [y]}}
roles: [{to: api}]
`, []string{
			`line 2: there is no key "colour"`, `line 3: there is no key "sku"`,
			`apps.api uses the identity "x"`, `vms.v uses the identity "y"`,
			"vaults.kv1.secrets.a: the environment has no NOT_SET", "vaults.kv1.secrets.b: the environment has no NOR_THIS",
			"roles[0]: want to, role and at",
		}},
		"a list where names are wanted": {"apps: [api]\n", []string{"line 1"}},
		"not YAML":                      {"apps: {api\n", []string{"innate.yaml"}},
		"an unknown role":               {"apps: {api: {}}\nroles: [{to: api, role: Kaiser, at: api}]\n", []string{`roles[0]: role: no role is called "Kaiser"`, "innate role definitions"}},
		"nobody of that name":           {"apps: {api: {}}\nroles: [{to: apy, role: Reader, at: api}]\n", []string{`roles[0]: to: nobody is called "apy"`}},
		"a vault's name that is none":   {"vaults: {a: {}}\n", []string{"a: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			s.refused(c.want, "dev", "-f", s.write("innate.yaml", c.file))
			if files, _ := filepath.Glob(filepath.Join(s.tmp, "innate-*")); len(files) > 0 {
				t.Errorf("refused, it left %q", files)
			}
		})
	}
	t.Run("a file that is not there", func(t *testing.T) {
		t.Parallel()
		newShell(t).refused([]string{"/nonexistent/innate.yaml"}, "dev", "-f", "/nonexistent/innate.yaml")
	})
}

func TestOnlyTheUsersThatAnAppListsMayRunAsIt(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	s := newShell(t)
	s.dev("apps: {api: {}}\n")
	s.must("app", "create", "job", "-g", "dev", "--identity", "--run-as", "65534")
	other := s.as(nobody)
	other.refused([]string{"uid 65534", "may not run as api"}, "run", "--app", "api", "--", "/bin/true")
	if got := other.must("run", "--app", "job", "--", "/usr/bin/id", "-u"); got == "65534\n" || got == "0\n" {
		t.Errorf("as job the program has uid %s, want one of the app's own", got)
	}
	other.refused([]string{"root and the operator"}, "app", "list")
}
