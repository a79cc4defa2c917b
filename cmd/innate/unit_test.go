package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"innate/agent"
	"innate/agent/systemdtest"
	"innate/innatetest"
)

// A machine is a systemd of the test's own that has a control plane, and an agent
// as it ships.
type machine struct {
	*systemdtest.Machine
	t *testing.T
}

const program = "/run/bin/innate" // of a machine

// asker is a unit's program: for each line of its queue, an endpoint and a header or
// "own", it asks for a token and prints the status; 000 is a connection refused.
const asker = `#!/bin/sh
exec 3<>/run/queue/"$1"
while read -r endpoint header <&3; do
	[ "$endpoint" != own ] || endpoint=$IDENTITY_ENDPOINT header=$IDENTITY_HEADER
	curl -s -o /dev/null -w '%{http_code}\n' -H "X-IDENTITY-HEADER: $header" "$endpoint?api-version=2019-08-01&resource=https://vault.azure.net"
done
`

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{systemdtest.Boot(t), t}
	binary, err := os.ReadFile(innatetest.Program(t))
	if err != nil {
		t.Fatal(err)
	}
	ships, err := os.ReadFile("../../packaging/systemd/innate-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	m.Write(program, string(binary), 0o755)
	m.Write("/run/bin/asker", asker, 0o755)
	m.Run("mkdir", "/run/queue")
	m.Write("/etc/hosts", "127.0.0.1 localhost login."+domain+" hosts."+domain+" kv1.vault."+domain+"\n", 0o644)
	m.Run(program, "server", "init", "--dir", "/var/lib/innate-server", "--domain", domain)
	m.Unit("innate-server.service", "[Service]\nType=exec\nExecStart="+program+" server --dir /var/lib/innate-server --listen 127.0.0.1:8443 --operator 0\n")
	m.Unit("innate-agent.service", strings.ReplaceAll(string(ships), "/usr/bin/innate", program))
	m.Run("systemctl", "start", "innate-server")
	eventually(t, "the server answers its administrators", func() bool { _, err := m.Try(program, "platform"); return err == nil })
	join := m.Command(program, "agent", "join", "--state", "/var/lib/innate/agent")
	join.Stdin = strings.NewReader(m.Run(program, "host", "add", "node-1", "-g", "hosts"))
	if out, err := join.CombinedOutput(); err != nil {
		t.Fatalf("joining: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the agent said:\n%s", m.Log("innate-agent.service"))
		}
	})
	m.Run("systemctl", "start", "innate-agent")
	eventually(t, "the agent answers", func() bool { _, err := m.Try(program, "agent", "status"); return err == nil })
	return m
}

// running is what runs as an app in the machine, by its unit.
func (m *machine) running() map[string]agent.Running {
	m.t.Helper()
	var all []agent.Running
	eventually(m.t, "the agent answers", func() bool {
		out, err := m.Try(program, "app", "ps", "-o", "json")
		return err == nil && json.Unmarshal([]byte(out), &all) == nil
	})
	by := map[string]agent.Running{}
	for _, r := range all {
		by[r.Unit] = r
	}
	return by
}

// asks has a unit ask for a token, and returns the answer's status.
func (m *machine) asks(unit, what string) string {
	m.t.Helper()
	before := strings.Count(m.Log(unit), "\n")
	queue, err := os.OpenFile(m.Path("/run/queue/"+unit), os.O_RDWR, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	defer queue.Close()
	fmt.Fprintln(queue, what)
	eventually(m.t, unit+" has its answer", func() bool { return strings.Count(m.Log(unit), "\n") > before })
	lines := strings.Split(strings.TrimSpace(m.Log(unit)), "\n")
	return lines[len(lines)-1]
}

// property is one of a unit.
func (m *machine) property(unit, name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.Run("systemctl", "show", "--value", "-p", name, unit))
}

// environ is what a unit's process was given.
func (m *machine) environ(unit string) map[string]string {
	m.t.Helper()
	values := map[string]string{}
	for _, v := range strings.Split(m.Run("cat", "/proc/"+m.property(unit, "MainPID")+"/environ"), "\x00") {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	return values
}

// own are its endpoint and secret.
func (m *machine) own(unit string) string {
	m.t.Helper()
	env := m.environ(unit)
	return env["IDENTITY_ENDPOINT"] + " " + env["IDENTITY_HEADER"]
}

// worker is the pid of the agent's.
func (m *machine) worker() string {
	m.t.Helper()
	out, _ := m.Try("pgrep", "-f", "^/proc/self/exe agent worker ") // none: exit code 1
	return strings.TrimSpace(out)
}

// asking writes a service that runs asker, and makes its queue.
func (m *machine) asking(name, how string, instances ...string) {
	m.t.Helper()
	m.Unit(name, "[Service]\nType=exec\n"+how+"\nExecStart=/run/bin/asker %n\n")
	if len(instances) == 0 {
		instances = []string{name}
	}
	for _, i := range instances {
		m.Run("mkfifo", "-m", "666", "/run/queue/"+i)
	}
}

// refused runs our program, which is to fail and say so.
func (m *machine) refused(want string, args ...string) {
	m.t.Helper()
	if out, err := m.Try(append([]string{program}, args...)...); err == nil || !strings.Contains(out, want) {
		m.t.Errorf("innate %s: %v, want a refusal that says %q:\n%s", strings.Join(args, " "), err, want, out)
	}
}

// Statuses of a token endpoint, as asker prints them.
const (
	answered = "200"
	noSecret = "401"
	stranger = "403"
	deaf     = "000" // listens there
)

func (m *machine) expect(unit, what, want, when string) {
	m.t.Helper()
	if got := m.asks(unit, what); got != want {
		m.t.Errorf("%s: %s asked and was answered %s, want %s", when, unit, got, want)
	}
}

func TestAUnitIsAnAppByItsCgroup(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(program, "app", "create", "api", "-g", "team", "--identity")
	m.asking("api.service", "User=daemon\nEnvironment=IMDS_ENDPOINT=http://127.0.0.1:1 MINE=1")
	m.asking("other.service", "User=daemon")
	m.Run(program, "attach", "--app", "api", "--unit", "api.service")
	m.Run("systemctl", "start", "api", "other")

	m.expect("api.service", "own", answered, "the unit")
	own := m.own("api.service")
	endpoint, secret, _ := strings.Cut(own, " ")
	m.expect("api.service", endpoint+" wrong", noSecret, "without the secret")
	m.expect("other.service", own, stranger, "another unit of the same user, with the secret")
	if got := m.environ("api.service"); got["IMDS_ENDPOINT"] != "" || got["MINE"] != "1" {
		t.Errorf("of the unit's own variables it has %q", got)
	}

	// Its process, where somebody has moved it.
	pid := m.property("api.service", "MainPID")
	move := func(to string) { m.Run("sh", "-c", "echo "+pid+" >/sys/fs/cgroup/system.slice/"+to+"/cgroup.procs") }
	move("other.service")
	m.expect("api.service", "own", stranger, "a process that was moved out of the unit")
	move("api.service")
	m.expect("api.service", "own", answered, "a process that was moved back")

	// Who may know the secret.
	file := "/run/innate/run/units/api.service.env"
	if got := strings.TrimSpace(m.Run("stat", "-c", "%a %U", file)); got != "600 root" {
		t.Errorf("the unit's variables have mode and owner %s, want 600 root", got)
	}
	for _, args := range [][]string{{"systemctl", "show", "api.service"}, {"systemctl", "cat", "api.service"}, {program, "app", "ps"}, {program, "agent", "status", "-o", "json"}} {
		if strings.Contains(m.Run(args...), secret) {
			t.Errorf("%q shows the secret", args)
		}
	}
	if strings.Contains(m.Log("innate-agent.service"), secret) {
		t.Error("the agent's log has the secret")
	}

	// A start is a generation.
	was := m.running()["api.service"]
	m.Run("systemctl", "restart", "api")
	now := m.running()["api.service"]
	if now.Generation != was.Generation+1 || now.Port == was.Port || len(m.running()) != 1 {
		t.Errorf("after a restart: %+v, before: %+v; want the next generation alone", now, was)
	}
	m.expect("api.service", "own", answered, "the unit started again")
	m.expect("api.service", own, deaf, "the endpoint of the start before")
	for _, args := range [][]string{{"app", "ps"}, {"agent", "status"}} {
		if out := m.Run(append([]string{program}, args...)...); !strings.Contains(out, "api.service") {
			t.Errorf("innate %v does not tell the unit:\n%s", args, out)
		}
	}
	m.refused("systemctl", "app", "stop", "api")

	own = m.own("api.service")
	m.Run("systemctl", "stop", "api")
	eventually(t, "nobody answers for the unit that was stopped", func() bool { return m.asks("other.service", own) == deaf })
	eventually(t, "the generation is over", func() bool { return len(m.running()) == 0 })
	if out, err := m.Try("cat", file); err == nil {
		t.Errorf("the unit's variables are left: %s", out)
	}

	// And back.
	m.Run("systemctl", "start", "api")
	if out, err := m.Try("setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", program, "detach", "--unit", "api.service"); err == nil || !strings.Contains(out, "uid 1 may not run as api") {
		t.Errorf("another user detaches it: %v\n%s", err, out)
	}
	own, pid = m.own("api.service"), m.property("api.service", "MainPID")
	m.Run(program, "detach", "--unit", "api.service")
	m.expect("api.service", "own", deaf, "detached")
	if got := m.property("api.service", "MainPID"); got != pid {
		t.Errorf("detached, process %s is %s", pid, got)
	}
	m.Run("systemctl", "restart", "api")
	if got := m.own("api.service"); got != " " {
		t.Errorf("detached and started again, it has an endpoint: %s", got)
	}
	if out, err := m.Try("ls", "/etc/systemd/system/api.service.d"); err == nil {
		t.Errorf("what was written is left: %s", out)
	}
	m.refused("is no app", "detach", "--unit", "api.service")
	for _, action := range []string{"attach-unit", "start-unit", "start-app", "end-app", "detach-unit"} {
		eventually(t, "the audit log has "+action, func() bool {
			return strings.Contains(m.Run(program, "audit", "--action", action, "-o", "json"), `"unit":"api.service"`) ||
				strings.Contains(m.Run(program, "audit", "--action", action, "-o", "json"), `"unit": "api.service"`)
		})
	}
}

func TestInstancesOfATemplateAreToldApart(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(program, "app", "create", "worker", "-g", "team", "--identity")
	m.Run(program, "app", "create", "web", "-g", "team", "--identity")
	m.asking("worker@.service", "DynamicUser=yes", "worker@1.service", `worker@a\x2db.service`)
	m.asking("web@.service", "User=daemon", "web@1.service", "web@2.service")
	m.Run(program, "attach", "--app", "worker", "--unit", "worker@.service")
	m.Run("systemctl", "start", "worker@1", `worker@a\x2db`)
	m.expect("worker@1.service", "own", answered, "an instance")
	m.expect(`worker@a\x2db.service`, "own", answered, "another, of an odd name")
	m.expect(`worker@a\x2db.service`, m.own("worker@1.service"), stranger, "an instance with another's secret")
	now := m.running()
	one, other := now["worker@1.service"], now[`worker@a\x2db.service`]
	if one.UID != other.UID || one.UID == 0 || one.Generation == other.Generation || one.Port == other.Port {
		t.Errorf("instances of one dynamic user: %+v and %+v", one, other)
	}
	m.refused("is the app worker already", "attach", "--app", "web", "--unit", "worker@1.service")

	m.Run(program, "attach", "--app", "web", "--unit", "web@1.service")
	m.Run("systemctl", "start", "web@1", "web@2")
	m.expect("web@1.service", "own", answered, "the instance that was attached")
	if got := m.own("web@2.service"); got != " " {
		t.Errorf("an instance that was not attached has an endpoint: %s", got)
	}
	m.refused("is the app web already", "attach", "--app", "worker", "--unit", "web@.service")
	m.Run(program, "detach", "--unit", "worker@.service")
	m.expect("worker@1.service", "own", deaf, "detached with its template")
	m.expect("web@1.service", "own", answered, "another app's")
}

func TestAUnitOutlivesTheAgentAndKeepsItsEndpoint(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(program, "app", "create", "api", "-g", "team", "--identity")
	m.asking("api.service", "User=daemon")
	m.Run(program, "attach", "--app", "api", "--unit", "api.service")
	m.Run("systemctl", "start", "api")
	m.expect("api.service", "own", answered, "the unit")
	was, pid := m.running()["api.service"], m.property("api.service", "MainPID")
	goesOn := func(after string) {
		t.Helper()
		m.expect("api.service", "own", answered, after)
		if now := m.running()["api.service"]; now.Started != was.Started || m.property("api.service", "MainPID") != pid {
			t.Errorf("%s: %+v with process %s, before %+v with %s", after, now, m.property("api.service", "MainPID"), was, pid)
		}
	}
	worker := m.worker()
	m.Run("kill", "-KILL", worker)
	eventually(t, "there is another worker", func() bool { now := m.worker(); return now != "" && now != worker })
	goesOn("the worker was killed")
	worker = m.worker()
	m.Run("systemctl", "reload", "innate-agent")
	eventually(t, "there is another worker", func() bool { now := m.worker(); return now != "" && now != worker })
	goesOn("the agent became the installed program")

	// What holds the port is killed, and systemd has kept it.
	own := m.own("api.service")
	opener := m.property("innate-agent", "MainPID")
	m.Run("kill", "-KILL", opener)
	eventually(t, "the agent is started again", func() bool {
		return m.property("innate-agent", "MainPID") != opener && m.property("innate-agent", "ActiveState") == "active"
	})
	goesOn("the opener was killed")
	m.Run("systemctl", "restart", "innate-agent")
	goesOn("the agent was restarted")
	m.Run("systemctl", "restart", "api")
	m.expect("api.service", "own", answered, "the unit was started again")
	if m.own("api.service") == own {
		t.Error("it has the secret of before")
	}

	// Where the port is lost it is not opened again, and the unit is left alone.
	lost := func(when string) {
		t.Helper()
		m.running()
		m.expect("api.service", "own", deaf, when)
		if got := m.property("api.service", "MainPID"); got != pid {
			t.Errorf("%s: process %s of the unit is %s", when, pid, got)
		}
		m.Run("systemctl", "restart", "api")
		m.expect("api.service", "own", answered, "the unit was started again")
		pid = m.property("api.service", "MainPID")
	}
	pid = m.property("api.service", "MainPID")
	m.Run("systemctl", "stop", "innate-agent")
	m.expect("api.service", "own", deaf, "the agent was stopped")
	m.Write("/etc/systemd/system/innate-agent.service.d/no-store.conf", "[Service]\nFileDescriptorStoreMax=0\n", 0o644)
	m.Run("systemctl", "daemon-reload")
	m.Run("systemctl", "start", "innate-agent")
	lost("the agent was stopped")
	opener = m.property("innate-agent", "MainPID")
	m.Run("kill", "-KILL", opener)
	eventually(t, "the agent is started again", func() bool {
		return m.property("innate-agent", "MainPID") != opener && m.property("innate-agent", "ActiveState") == "active"
	})
	lost("the opener was killed, and nobody has kept the port")
	if log := m.Log("innate-agent.service"); !strings.Contains(log, "'systemctl restart api.service'") {
		t.Errorf("the agent does not say what to do:\n%s", log)
	}
	m.Run("systemctl", "stop", "api")
	eventually(t, "the generation is over", func() bool { return len(m.running()) == 0 })
}

func TestAUnitHasWhatAnAppHas(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(program, "app", "create", "api", "-g", "team", "--identity")
	m.Run(program, "vault", "create", "kv1", "-g", "team")
	set := m.Command(program, "secret", "set", "db-password", "--vault", "kv1")
	set.Stdin = strings.NewReader("hunter2\n")
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.Run(program, "role", "assign", "--to", "api", "--role", "Key Vault Secrets User", "--at", "kv1")
	odd := "\"two\"\n  $lines `of` \\ # it"
	m.Run(program, "app", "settings", "api", "DB_PASSWORD=@Microsoft.KeyVault(SecretUri=https://kv1.vault."+domain+":8443/secrets/db-password)", "ODD="+odd, "BOTH=app", "GONE=1")
	m.asking("api.service", "User=daemon\nEnvironment=BOTH=unit HTTPS_PROXY=http://proxy.example.test:3128")
	m.Run(program, "attach", "--app", "api", "--unit", "api.service")
	m.Run("systemctl", "start", "api")
	env := m.environ("api.service")
	for name, want := range map[string]string{"DB_PASSWORD": "hunter2", "ODD": odd, "BOTH": "app", "GONE": "1"} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if !strings.Contains(env["NO_PROXY"], "127.0.0.1") {
		t.Errorf("NO_PROXY is %q: a program would ask its endpoint by way of the proxy", env["NO_PROXY"])
	}
	secret := env["INNATE_SECRETS_DIR"] + "/DB_PASSWORD"
	if got := m.Run("setpriv", "--reuid", "daemon", "--regid", "daemon", "--clear-groups", "cat", secret); got != "hunter2" {
		t.Errorf("the secret's file has %q", got)
	}
	if out, err := m.Try("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "cat", secret); err == nil {
		t.Errorf("another user reads the secret's file: %s", out)
	}

	// Settings that went are not there at the next start, and those that systemd would drop keep it from starting.
	m.Run(program, "app", "settings", "api", "GONE=", "BOTH=", "DB_PASSWORD=")
	eventually(t, "the unit starts without settings that went", func() bool {
		m.Run("systemctl", "restart", "api")
		env := m.environ("api.service")
		_, there := env["GONE"]
		return !there && env["BOTH"] == "unit" && env["ODD"] == odd
	})
	if _, err := m.Try("ls", secret); err == nil {
		t.Error("the file of a secret of the start before is left")
	}
	m.Run(program, "app", "settings", "api", "LD_PRELOAD=/tmp/x.so")
	eventually(t, "the unit does not start", func() bool { _, err := m.Try("systemctl", "restart", "api"); return err != nil })
	if log := m.Log("api.service"); !strings.Contains(log, "variable LD_PRELOAD") {
		t.Errorf("it does not say why:\n%s", log)
	}
}

func TestAUnitsCgroupsCountAsItsOwn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(program, "app", "create", "api", "-g", "team", "--identity")
	m.Write("/run/bin/nested", `#!/bin/sh
mkdir -p /sys/fs/cgroup/system.slice/$1/a/b && echo $$ >/sys/fs/cgroup/system.slice/$1/a/b/cgroup.procs && exec /run/bin/asker $1
`, 0o755)
	m.Unit("nested.service", "[Service]\nType=exec\nUser=daemon\nDelegate=yes\nExecStart=/run/bin/nested %n\n")
	m.Unit("other.service", "[Service]\nType=exec\nUser=daemon\nDelegate=yes\nExecStart=/run/bin/nested %n\n")
	m.Run("mkfifo", "-m", "666", "/run/queue/nested.service", "/run/queue/other.service")
	m.Run(program, "attach", "--app", "api", "--unit", "nested.service")
	m.Run("systemctl", "start", "nested", "other")
	m.expect("nested.service", "own", answered, "below the unit's cgroup")
	m.expect("other.service", m.own("nested.service"), stranger, "below another's")

	// What a start leaves behind has no identity, though the cgroup is the same, and
	// the variables of that start do not pass for the unit's own.
	m.Run(program, "app", "settings", "api", "KEPT=1")
	m.Unit("left.service", "[Service]\nType=exec\nUser=daemon\nKillMode=process\nExecStart=/bin/sh -c '/bin/sleep 60 & exec /run/bin/asker %n'\n")
	m.Run("mkfifo", "-m", "666", "/run/queue/left.service")
	m.Run(program, "attach", "--app", "api", "--unit", "left.service")
	eventually(t, "the unit starts with the app's setting", func() bool {
		m.Run("systemctl", "restart", "left")
		return m.environ("left.service")["KEPT"] == "1"
	})
	was, own := m.running()["left.service"], m.own("left.service")
	m.Run("systemctl", "restart", "left")
	m.expect("left.service", "own", answered, "a unit that left something behind")
	if now := m.running()["left.service"]; now.Processes < 3 { // two, and the one that was left
		t.Errorf("%+v, before %+v: want that a process was left in the cgroup", now, was)
	}
	m.expect("left.service", own, deaf, "the endpoint of the start before")
	if m.environ("left.service")["KEPT"] != "1" {
		t.Error("the app's setting is lost at the next start")
	}
}

func TestUnitsThatCannotBeAppsAreRefused(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run(program, "app", "create", "api", "-g", "team", "--identity")
	m.Unit("root.service", "[Service]\nExecStart=/bin/sleep 60\n")
	m.Unit("zero.service", "[Service]\nUser=0\nExecStart=/bin/sleep 60\n")
	m.Unit("plus.service", "[Service]\nUser=daemon\nExecStartPre=+/bin/true\nExecStart=/bin/sleep 60\n")
	m.Unit("bang.service", "[Service]\nUser=daemon\nExecStart=!/bin/sleep 60\n")
	m.Unit("alone.service", "[Service]\nUser=daemon\nPrivateNetwork=yes\nExecStart=/bin/sleep 60\n")
	for unit, want := range map[string]string{
		"none.service":         "systemd has no unit none.service",
		"none@.service":        "systemd has no unit none@.service",
		"init.scope":           "want a service",
		"system.slice":         "want a service",
		"../x.service":         "want a service",
		"innate-agent.service": "as root",
		"root.service":         "give it a User=",
		"zero.service":         "give it a User=",
		"plus.service":         "runs /bin/true as root",
		"bang.service":         "runs /bin/sleep as root",
		"alone.service":        "a network of its own",
	} {
		m.refused(want, "attach", "--app", "api", "--unit", unit)
	}
	m.Unit("api.service", "[Service]\nUser=daemon\nExecStart=/bin/sleep 60\n")
	m.refused(`no app called "nix"`, "attach", "--app", "nix", "--unit", "api.service")
	if out := m.Run("find", "/etc/systemd/system", "-name", "*innate.conf"); out != "" {
		t.Errorf("something was written: %s", out)
	}
	m.refused("for systemd", "unit", "--app", "api", "api.service")

	// A unit that became root's after it was attached does not start.
	m.Run(program, "attach", "--app", "api", "--unit", "api.service")
	m.Unit("api.service", "[Service]\nExecStart=/bin/sleep 60\n")
	if out, err := m.Try("systemctl", "start", "api"); err == nil {
		t.Errorf("a unit that became root's was started as an app: %s", out)
	}
	if log := m.Log("api.service"); !strings.Contains(log, "give it a User=") {
		t.Errorf("it does not say why:\n%s", log)
	}
	if now := m.running(); len(now) != 0 {
		t.Errorf("it runs: %+v", now)
	}
}
