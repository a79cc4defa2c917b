package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"innate/agent"
	"innate/agent/launch"
	"innate/innatetest"
)

// A node is a host of production with its agent, as root runs it.
type node struct {
	shell *shell
	hosts string
	state string
	agent *process
}

// newNode starts a control plane and a host that has joined it.
func newNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("an agent of two processes needs root")
	}
	s := newShell(t)
	newControl(s)
	n := &node{shell: s, state: filepath.Join(s.tmp, "agent")}
	n.hosts = s.write("hosts", "127.0.0.1 localhost login."+domain+" hosts."+domain+" kv1.vault."+domain+"\n")
	join := s.named(n.hosts, s.must("host", "add", "node-1", "-g", "hosts"), "agent", "join", "--state", n.state)
	if join.wait(); join.code() != 0 {
		t.Fatalf("joining: %s", join.all())
	}
	n.start()
	s.env = append(s.env, "SSL_CERT_FILE="+s.write("ca.pem", s.must("platform", "ca")))
	s.must("app", "create", "api", "-g", "team", "--identity")
	return n
}

func (n *node) start() {
	n.shell.t.Helper()
	n.agent = n.shell.named(n.hosts, "", "agent", "--state", n.state, "--runtime", filepath.Join(n.shell.tmp, "run"))
	started := n.agent
	n.shell.t.Cleanup(func() {
		if n.shell.t.Failed() {
			n.shell.t.Logf("what the agent said:\n%s", started.all())
		}
	})
	n.agent.waitFor("callers are proved by")
}

func (n *node) socket() string { return n.shell.get("INNATE_AGENT_SOCKET") }

// workers counts those that have started so far.
func (n *node) workers() int { return strings.Count(n.agent.errout.String(), "callers are proved by") }

// worker is the pid of the present one.
func (n *node) worker() int {
	n.shell.t.Helper()
	children, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", n.agent.pid()))
	if err != nil {
		n.shell.t.Fatal(err)
	}
	for _, path := range children {
		b, _ := os.ReadFile(path) // of a thread that ended, none
		for _, pid := range strings.Fields(string(b)) {
			args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			if strings.Contains(string(args), "\x00agent\x00worker\x00") {
				found, _ := strconv.Atoi(pid)
				return found
			}
		}
	}
	return 0
}

// running is what runs of an app.
func (n *node) running(app string) (found []agent.Running) {
	n.shell.t.Helper()
	var all []agent.Running
	eventually(n.shell.t, "the agent answers", func() (answers bool) {
		var err error
		all, err = agent.ReadRunning(n.socket())
		return err == nil
	})
	for _, r := range all {
		if r.App.Name() == app {
			found = append(found, r)
		}
	}
	return found
}

// restarts is how many there are, when somebody asks for them: a thousand take minutes.
const restartsVariable = "INNATE_TEST_RESTARTS"

func TestAnAgentIsRestartedUnderLoadAndNoRequestFails(t *testing.T) {
	n := newNode(t)
	l := n.load("api", agent.RestartNo)
	most, until := 1_000_000, time.Now().Add(12*time.Second) // what fits; INNATE_TEST_RESTARTS=1000 has its time
	if s := os.Getenv(restartsVariable); s != "" {
		most, _ = strconv.Atoi(s)
		until = time.Now().Add(time.Hour)
	}
	pid, done := n.agent.pid(), 0
	for ; done < most && time.Now().Before(until); done++ {
		before := n.workers()
		if err := n.agent.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a new worker serves", func() bool { return n.workers() > before })
		select {
		case err := <-l.ended:
			t.Fatalf("the app ended after %d restarts: %v", done+1, err)
		default:
		}
	}
	if found := n.running("api"); len(found) != 1 || found[0].PID != l.started.PID || found[0].Generation != 1 {
		t.Errorf("after %d restarts: %+v, want the process that was started", done, found)
	}
	sum := l.end(t)
	t.Logf("%d restarts of process %d, %d requests answered", done, pid, sum.OK)
	if sum.Refused > 0 || len(sum.Failed) > 0 || sum.OK < done || done < 3 {
		t.Errorf("%d restarts: %d answered, %d connections refused, failed: %v", done, sum.OK, sum.Refused, sum.Failed)
	}
}

func TestAKilledWorkerIsFollowedByAnotherAndNoConnectionIsRefused(t *testing.T) {
	n := newNode(t)
	l := n.load("api", agent.RestartNo)
	n.shell.must("run", "--app", "api", "--detach", "--restart", "always", "--", "/bin/sh", "-c", "while :; do echo tick; sleep 0.1; done")
	detached := n.running("api")
	const kills = 5
	for range kills {
		worker, before := n.worker(), n.workers()
		if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
			t.Fatalf("worker %d: %v", worker, err)
		}
		eventually(t, "a new worker serves", func() bool { return n.workers() > before })
		eventually(t, "requests are answered", func() bool { return len(n.running("api")) == 2 })
	}
	for i, r := range n.running("api") {
		if r.PID != detached[i].PID {
			t.Errorf("generation %d has process %d after %d kills, and had %d", r.Generation, r.PID, kills, detached[i].PID)
		}
	}
	logs := func() int { return strings.Count(n.shell.must("app", "logs", "api"), "tick") }
	said := logs()
	eventually(t, "the log of the detached app goes on", func() bool { return logs() > said })
	sum := l.end(t)
	t.Logf("%d answered, failed: %v", sum.OK, sum.Failed)
	if sum.Refused > 0 || sum.OK == 0 {
		t.Errorf("%d connections refused, %d answered", sum.Refused, sum.OK)
	}
	n.shell.must("app", "rotate", "api")
	n.shell.must("app", "stop", "api")
	if left := n.running("api"); len(left) > 0 {
		t.Errorf("after the stop: %+v", left)
	}
}

func TestTheWorkerHasNoPrivileges(t *testing.T) {
	n := newNode(t)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.worker()))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t1900000000\t1900000000\t1900000000\t1900000000", "CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the worker's status has not %q:\n%s", want, b)
		}
	}
	for _, path := range []string{filepath.Join(n.state, "host.pem"), n.state, filepath.Join(n.shell.tmp, "run", "worker")} {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil || st.Uid != 1_900_000_000 || st.Mode&0o077 != 0 {
			t.Errorf("%s is of uid %d, mode %o, %v; want it the worker's alone", path, st.Uid, st.Mode&0o777, err)
		}
	}
	// What it could do with a namespace is what its uid can.
	p, err := launch.Start(launch.Spec{
		Args: []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", n.worker()), "true"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/bin"},
		UID: 1_900_000_000, Stub: []string{innatetest.Program(t), "launch"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); status == 0 || err != nil {
		t.Errorf("setns as the worker: exit code %d, %v; want it refused", status, err)
	}
}

func TestWhatAKilledOpenerHeldIsRolledAndNeverServedOnAGuess(t *testing.T) {
	n := newNode(t)
	l := n.load("api", agent.RestartNo)
	n.shell.must("app", "create", "web", "-g", "team", "--identity")
	n.shell.must("run", "--app", "web", "--detach", "--restart", "always", "--", "/bin/sleep", "600")
	was := n.running("web")
	if len(was) != 1 {
		t.Fatalf("%+v", was)
	}
	worker := n.worker()
	n.agent.kill()
	eventually(t, "the worker ends with its opener", func() bool { return syscall.Kill(worker, 0) != nil })
	for _, port := range []int{was[0].Port, l.started.Port} {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
			t.Errorf("somebody serves at port %d without an opener", port)
		}
	}
	n.start()
	eventually(t, "what was kept by a restart policy runs again", func() bool {
		now := n.running("web")
		return len(now) == 1 && now[0].Generation > was[0].Generation && now[0].PID != was[0].PID && now[0].State == "serving"
	})
	if now := n.running("web"); now[0].Cgroup == was[0].Cgroup {
		t.Errorf("the new generation is in the old one's cgroup %s", was[0].Cgroup)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", was[0].PID)); err == nil && len(b) > 0 {
		t.Errorf("the old process of a rolled app lives on: %q", b)
	}
	select {
	case err := <-l.ended:
		if err == nil {
			t.Error("the run of an app that could not be kept ended well")
		}
	case <-time.After(patience):
		t.Error("'innate run' does not hear that its app could not be kept")
	}
	if left := n.running("api"); len(left) > 0 {
		t.Errorf("an app without a restart policy: %+v", left)
	}
	n.agent.signal(syscall.SIGTERM)
	if n.agent.code() != 0 {
		t.Errorf("ended by SIGTERM: exit code %d\n%s", n.agent.code(), n.agent.all())
	}
	if tree := filepath.Dir(filepath.Dir(was[0].Cgroup)); was[0].Cgroup != "" {
		if _, err := os.Stat(tree); err == nil {
			t.Errorf("it left its cgroups at %s", tree)
		}
	}
}
