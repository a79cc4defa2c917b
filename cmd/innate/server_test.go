package main_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"innate"
	"innate/admin"
	"innate/audit"
	"innate/innatetest"
	"innate/platform"
	"innate/rest"
)

// domain is a production platform's; nothing outside these tests resolves it.
const domain = "id.example.test"

// A control is a control plane of production, in a process of its own.
type control struct {
	*process
	shell  *shell
	dir    string
	listen string
}

// newControl makes a platform and starts its server. The shell's commands are
// for it from now on.
func newControl(s *shell) *control {
	s.t.Helper()
	c := &control{shell: s, dir: filepath.Join(s.tmp, "control"), listen: "127.0.0.1:0"}
	s.env = append(s.env,
		"INNATE_SOCKET="+filepath.Join(s.tmp, "admin", "admin.sock"),
		"INNATE_AGENT_SOCKET="+filepath.Join(s.tmp, "run", "agent.sock"))
	s.must("server", "init", "--dir", c.dir, "--domain", domain)
	c.start()
	return c
}

// start starts the server, where it was before when it was.
func (c *control) start() {
	c.shell.t.Helper()
	c.process = c.shell.start("server", "--dir", c.dir, "--listen", c.listen, "--operator", fmt.Sprint(os.Getuid()))
	c.waitFor("administrators at")
	c.listen = regexp.MustCompile(` on (127\.0\.0\.1:\d+),`).FindStringSubmatch(c.errout.String())[1]
	eventually(c.shell.t, "the server answers its administrators", func() bool { return c.shell.run("platform").code() == 0 })
}

func TestServerInitMakesAPlatformOnlyInAnEmptyFolder(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	dir := filepath.Join(s.tmp, "control")
	for _, bad := range []string{"localhost", "ID.example.org", "-a.example.org", "a..org", "ex_ample.org", "a b.org", "example.org.", "", strings.Repeat("a", 64) + ".org"} {
		s.refused([]string{fmt.Sprintf("domain %q", bad)}, "server", "init", "--dir", dir, "--domain", bad)
	}
	s.refused([]string{`required flag(s) "domain"`}, "server", "init", "--dir", dir)
	if _, err := os.Stat(dir); err == nil {
		t.Error("a refused init made the folder")
	}
	s.must("server", "init", "--dir", dir, "--domain", domain)
	key, err := os.ReadFile(filepath.Join(dir, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	s.refused([]string{"is not empty"}, "server", "init", "--dir", dir, "--domain", domain)
	if again, err := os.ReadFile(filepath.Join(dir, "master.key")); err != nil || string(again) != string(key) {
		t.Errorf("a refused init changed the master key (%v)", err)
	}
	s.refused([]string{"is not empty"}, "server", "init", "--dir", filepath.Dir(s.write("notes", "mine")), "--domain", domain)
}

func TestAServerSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	empty := filepath.Join(s.tmp, "empty")
	s.refused([]string{"innate server init --dir " + empty}, "server", "--dir", empty, "--listen", "127.0.0.1:0")
	if _, err := os.Stat(empty); err == nil {
		t.Error("opening made a folder: a mistyped path is to be an error")
	}
	c := newControl(s)
	s.refused([]string{"another process has the store open"}, "server", "--dir", c.dir, "--listen", "127.0.0.1:0")
	s.refused([]string{"address already in use"}, "server", "--dir", c.dir, "--listen", c.listen)
	other := filepath.Join(s.tmp, "other")
	s.must("server", "init", "--dir", other, "--domain", domain)
	s.refused([]string{"another server answers at"}, "server", "--dir", other, "--listen", "127.0.0.1:0")
	c.signal(syscall.SIGTERM)
	if c.code() != 0 {
		t.Errorf("ended by SIGTERM: exit code %d\n%s", c.code(), c.all())
	}
}

func TestTheAdministratorsSocketAsksTheKernelWhoIsThere(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	s := newShell(t)
	newControl(s)
	other := s.as(nobody)
	other.refused([]string{"is for root and the operator"}, "vm", "list")

	// Even when somebody opens the door, the server looks at who comes in.
	socket := s.get("INNATE_SOCKET")
	for path, mode := range map[string]os.FileMode{filepath.Dir(socket): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	other.refused([]string{"uid 65534 may not use the administrators' socket"}, "vm", "list")
	s.must("vm", "list")
	if got := s.must("audit", "--refused", "-o", "json"); !strings.Contains(got, `"uid": "65534"`) {
		t.Errorf("the log does not have the refusal:\n%s", got)
	}
}

// Not parallel: what the killed quickstart left is swept at the test's end.
func TestDevelopmentAndProductionRefuseEachOthersStore(t *testing.T) {
	s := newShell(t)
	p := s.start("quickstart")
	p.waitFor("\n 2. ")
	p.kill()
	left, err := filepath.Glob(filepath.Join(s.tmp, "innate-quickstart-*/platform/control"))
	if err != nil || len(left) != 1 {
		t.Fatalf("the killed quickstart's store: %q, %v", left, err)
	}
	s.refused([]string{"not for production", "innate server init"}, "server", "--dir", left[0], "--listen", "127.0.0.1:0", "--socket", filepath.Join(s.tmp, "a.sock"))

	dir := filepath.Join(s.tmp, "platform")
	s.must("server", "init", "--dir", filepath.Join(dir, "control"), "--domain", domain)
	if _, err := platform.Open(t.Context(), platform.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "made by 'innate server init'") {
		t.Errorf("a development platform on a production store: got %v, want a refusal", err)
	}
}

// A ledger is what a server has acknowledged.
type ledger struct {
	mu      sync.Mutex
	secrets map[string]string
	names   []string // of user-assigned identities
	enough  int
	full    chan struct{} // closed when there are enough
}

// note writes an acknowledged write down.
func (l *ledger) note(write func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	write()
	if len(l.secrets)+len(l.names) == l.enough {
		close(l.full)
	}
}

// fill writes until the server is gone: secrets and identities, in turn.
func (l *ledger) fill(ctx context.Context, c *admin.Client, writer string) error {
	for n := 0; ; n++ {
		name := fmt.Sprintf("%s-%d", writer, n)
		if n%2 == 0 {
			if err := c.Vault(ctx, "kv1", http.MethodPut, "/secrets/"+name, map[string]string{"value": "value of " + name}, nil); err != nil {
				return err
			}
			l.note(func() { l.secrets[name] = "value of " + name })
			continue
		}
		id := string(c.Group("team")) + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/" + name
		if err := c.ARM(ctx, http.MethodPut, id, map[string]string{"location": "local"}, nil); err != nil {
			return err
		}
		l.note(func() { l.names = append(l.names, name) })
	}
}

func TestNothingAcknowledgedIsLostWhenTheServerIsKilledAmidWrites(t *testing.T) {
	t.Parallel()
	const rounds, writers, eachRound = 4, 8, 120
	s := newShell(t)
	c := newControl(s)
	s.must("vault", "create", "kv1", "-g", "team")
	l := &ledger{secrets: map[string]string{}}
	for round := range rounds {
		client, err := admin.Dial(t.Context(), s.get("INNATE_SOCKET"))
		if err != nil {
			t.Fatal(err)
		}
		l.enough, l.full = len(l.secrets)+len(l.names)+eachRound, make(chan struct{})
		var writing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				var refused *rest.Error // any other error is the connection's end
				if err := l.fill(t.Context(), client, fmt.Sprintf("r%dw%d", round, w)); errors.As(err, &refused) {
					t.Error(err)
				}
			})
		}
		select {
		case <-l.full:
		case <-c.ended:
			t.Fatalf("the server ended by itself:\n%s", c.all())
		}
		c.kill()
		writing.Wait()
		c.start()
		l.check(t, s)
	}
}

// check asks the server for everything that it acknowledged.
func (l *ledger) check(t *testing.T, s *shell) {
	t.Helper()
	client, err := admin.Dial(t.Context(), s.get("INNATE_SOCKET"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range l.secrets {
		var got struct {
			Value string `json:"value"`
		}
		if err := client.Vault(t.Context(), "kv1", http.MethodGet, "/secrets/"+name, nil, &got); err != nil || got.Value != want {
			t.Errorf("acknowledged secret %s: got %q, %v; want %q", name, got.Value, err, want)
		}
	}
	identities, err := client.List(t.Context(), "Microsoft.ManagedIdentity/userAssignedIdentities")
	if err != nil {
		t.Fatal(err)
	}
	principals := map[string]any{}
	for _, id := range identities {
		principals[id.Name] = id.Properties["principalId"]
	}
	for _, name := range l.names {
		if principals[name] == nil {
			t.Errorf("acknowledged identity %s: it is gone, or has no principal", name)
		}
	}
	events := map[string]bool{}
	eventually(t, "the log has every acknowledged change", func() bool {
		var page struct {
			Value []audit.Event `json:"value"`
		}
		if err := client.Get(t.Context(), "/audit?last=1000&action=userAssignedIdentities/write", &page); err != nil {
			t.Fatal(err)
		}
		for _, ev := range page.Value {
			events[innate.ResourceID(ev.Target).Name()] = true
		}
		return !slices.ContainsFunc(l.names, func(name string) bool { return !events[name] })
	})
	// What was not acknowledged may be there or not, but whole: an identity has its service principal.
	for name, principal := range principals {
		if err := client.Graph(t.Context(), http.MethodGet, fmt.Sprintf("/v1.0/servicePrincipals/%v", principal), nil, nil); err != nil {
			t.Errorf("identity %s without its service principal: %v", name, err)
		}
	}
}

// named starts the program in a mount namespace of its own, where hosts is
// /etc/hosts: what DNS does for a host of production. It needs root.
func (s *shell) named(hosts, in string, args ...string) *process {
	s.t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", `mount --bind "$0" /etc/hosts && exec "$@"`, hosts, innatetest.Program(s.t)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stdin = strings.NewReader(in)
	return s.startWith(cmd)
}

func TestAHostOfProductionServesItsAppsAndOutlivesItsServer(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a mount namespace, where the platform's names resolve, needs root")
	}
	s := newShell(t)
	c := newControl(s)
	hosts := s.write("hosts", "127.0.0.1 localhost login."+domain+" hosts."+domain+" kv1.vault."+domain+"\n")
	_, port, _ := strings.Cut(c.listen, ":")
	vault := "https://kv1.vault." + domain + ":" + port
	program := innatetest.Program(t)

	// The host joins, once, and its agent starts.
	state := filepath.Join(s.tmp, "agent")
	line := s.must("host", "add", "node-1", "-g", "hosts")
	join := s.named(hosts, line, "agent", "join", "--state", state)
	if join.wait(); join.code() != 0 {
		t.Fatalf("joining: %s", join.all())
	}
	again := s.named(hosts, line, "agent", "join", "--state", filepath.Join(s.tmp, "stolen"))
	if again.wait(); again.code() == 0 {
		t.Error("one line joined two hosts")
	}
	agent := s.named(hosts, "", "agent", "--state", state, "--runtime", filepath.Join(s.tmp, "run"))
	agent.waitFor("callers are proved by")

	// An app is placed on it and reads a secret.
	s.env = append(s.env, "SSL_CERT_FILE="+s.write("ca.pem", s.must("platform", "ca")))
	s.must("app", "create", "api", "-g", "team", "--identity")
	s.must("vault", "create", "kv1", "-g", "team")
	if p := s.runWith("hunter2\n", "secret", "set", "db-password", "--vault", "kv1"); p.code() != 0 {
		t.Fatal(p.all())
	}
	s.must("role", "assign", "--to", "api", "--role", "Key Vault Secrets User", "--at", "kv1")
	read := []string{"run", "--app", "api", "--", program, "sample", "secret", vault, "db-password"}
	if got := s.must(read...); got != "hunter2\n" {
		t.Errorf("the app reads %q, want hunter2", got)
	}
	show := []string{"run", "--app", "api", "--", program, "token", "show", "--resource", "https://vault.azure.net"}
	claims := s.must(show...)
	if !regexp.MustCompile(`(?m)^innate_host +/subscriptions/.*/machines/node-1$`).MatchString(claims) {
		t.Errorf("the token does not name the host:\n%s", claims)
	}
	if strings.Contains(agent.all(), "callers are proved by cgroup+uid") && !regexp.MustCompile(`(?m)^innate_assurance +cgroup\+uid$`).MatchString(claims) {
		t.Errorf("the token does not say how its holder was proved:\n%s", claims)
	}
	s.as(nobody).refused([]string{"uid 65534 may not run as api"}, "run", "--app", "api", "--", "/bin/true")

	// The server dies: what the host holds still works. It comes back: the agent finds it by itself.
	c.kill()
	if while := s.must(show...); while != claims {
		t.Errorf("with the server gone the app gets another token than the agent holds:\n%s", while)
	}
	c.start()
	if got := s.must(read...); got != "hunter2\n" {
		t.Errorf("after the server came back the app reads %q, want hunter2", got)
	}
	s.must("app", "create", "late", "-g", "team", "--identity", "--host", "node-1")
	eventually(t, "the agent hears of an app that was placed after the server came back", func() bool {
		return s.run("run", "--app", "late", "--", program, "token", "show").code() == 0
	})

	// Shut out, it opens nothing with what it was given.
	s.must("host", "evict", "node-1")
	s.refused([]string{"401", "the machine it was issued on was evicted"}, read...)

	agent.signal(syscall.SIGTERM)
	if agent.code() != 0 {
		t.Errorf("the agent, ended by SIGTERM: exit code %d\n%s", agent.code(), agent.all())
	}
	if left := cgroupsOf(agent.pid()); len(left) > 0 {
		t.Errorf("the agent left %q", left)
	}
}
