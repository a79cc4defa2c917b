package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"innate/agent"
	"innate/agent/systemdtest"
	"innate/innatetest"
)

// A unitNode is a machine with a systemd, a control plane and an agent, which are
// units: the agent's is the one that is shipped.
type unitNode struct {
	*systemdtest.Machine
	t *testing.T
}

const (
	unitFile    = "../../packaging/systemd/innate-agent.service"
	agentUnit   = "innate-agent.service"
	programsDir = "/run/programs" // of the machine
)

func newUnitNode(t *testing.T) *unitNode {
	t.Helper()
	program := innatetest.Program(t)
	n := &unitNode{Machine: systemdtest.Boot(t), t: t}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(n.Path(programsDir), 0o755); err != nil {
		t.Fatal(err)
	}
	copyProgram(t, program, n.Path(programsDir+"/innate"))
	copyProgram(t, self, n.Path(programsDir+"/load"))
	n.Write("/etc/hosts", "127.0.0.1 localhost login."+domain+" hosts."+domain+" kv1.vault."+domain+"\n", 0o644)
	n.innate("server", "init", "--domain", domain)
	n.Unit("innate-server.service", "[Service]\nExecStart="+programsDir+"/innate server --listen 127.0.0.1:443\n")
	n.Run("systemctl", "start", "innate-server")
	eventually(t, "the server answers its administrators", func() bool {
		_, err := n.Try(programsDir+"/innate", "platform")
		return err == nil
	})
	n.Write("/run/join", n.innate("host", "add", "node-1", "-g", "hosts"), 0o600)
	n.Run("/bin/sh", "-c", programsDir+"/innate agent join </run/join")
	n.innate("app", "create", "api", "-g", "team", "--identity")

	b, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	n.Unit(agentUnit, strings.Replace(string(b), "ExecStart=/usr/bin/", "ExecStart="+programsDir+"/", 1))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the agent said:\n%s", n.Log(agentUnit))
		}
	})
	n.Run("systemctl", "start", agentUnit)
	return n
}

// innate runs the program in the machine.
func (n *unitNode) innate(args ...string) string {
	n.t.Helper()
	return n.Run(append([]string{programsDir + "/innate"}, args...)...)
}

func (n *unitNode) socket() string { return n.Path("/run/innate/run/agent.sock") }

func (n *unitNode) load() *loaded {
	n.t.Helper()
	return startLoad(n.t, n.socket(), "api", programsDir+"/load", agent.RestartNo)
}

// main is the pid of the opener, in the machine.
func (n *unitNode) main() int {
	n.t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(n.Run("systemctl", "show", "-p", "MainPID", "--value", agentUnit)))
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

// worker is the pid of the opener's child of the uid of workers, in the machine; 0: none.
func (n *unitNode) worker() int {
	out, err := n.Try("pgrep", "-u", "1900000000", "-P", strconv.Itoa(n.main()))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(out))
	return pid
}

// kill sends a signal to a process of the machine.
func (n *unitNode) kill(pid int, sig syscall.Signal) {
	n.t.Helper()
	n.Run("kill", fmt.Sprintf("-%d", sig), strconv.Itoa(pid))
}

// goesOn waits until the one app runs on as it was, under an agent that is active.
func (n *unitNode) goesOn(l *loaded) {
	n.t.Helper()
	eventually(n.t, "the app goes on under an active agent", func() bool {
		state, _ := n.Try("systemctl", "is-active", agentUnit)
		all, err := agent.ReadRunning(n.socket())
		return err == nil && strings.TrimSpace(state) == "active" && len(all) == 1 && all[0].PID == l.started.PID && all[0].Port == l.started.Port
	})
}

func TestTheAgentsUnitIsReloadedAndRestartedUnderLoadAndNoRequestFails(t *testing.T) {
	n := newUnitNode(t)
	l := n.load()
	for range 5 {
		worker, before := n.worker(), n.main()
		n.Run("systemctl", "reload", agentUnit)
		eventually(t, "another worker follows", func() bool { now := n.worker(); return now != 0 && now != worker })
		n.goesOn(l)
		if now := n.main(); now != before {
			t.Errorf("after a reload the agent is process %d, and was %d", now, before)
		}
		n.Run("systemctl", "restart", agentUnit)
		n.goesOn(l)
		if now := n.main(); now == before {
			t.Errorf("after a restart the agent is process %d still", now)
		}
	}
	sum, _ := l.toll(t) // the agent is not its parent any more
	t.Logf("%d answered", sum.OK)
	if sum.Refused > 0 || len(sum.Failed) > 0 || sum.OK == 0 {
		t.Errorf("%d answered, %d connections refused, failed: %v", sum.OK, sum.Refused, sum.Failed)
	}
}

func TestNoConnectionIsRefusedWhenThePartsOfTheAgentsUnitAreKilledOrStuck(t *testing.T) {
	n := newUnitNode(t)
	n.Write("/etc/systemd/system/"+agentUnit+".d/watchdog.conf", "[Service]\nWatchdogSec=1s\n", 0o644)
	n.Run("systemctl", "daemon-reload")
	n.Run("systemctl", "restart", agentUnit)
	l := n.load()
	for _, c := range []struct {
		what string
		pid  func() int
		sig  syscall.Signal
	}{
		{"the opener is killed", n.main, syscall.SIGKILL},
		{"the worker is killed", n.worker, syscall.SIGKILL},
		{"the opener is stuck", n.main, syscall.SIGSTOP},
		{"the worker is stuck", n.worker, syscall.SIGSTOP},
	} {
		var was int
		eventually(t, "there is a process", func() bool { was = c.pid(); return was != 0 })
		n.kill(was, c.sig)
		eventually(t, c.what+", and another follows", func() bool { now := c.pid(); return now != 0 && now != was })
		n.goesOn(l)
	}
	sum, _ := l.toll(t) // the agent is not its parent any more
	t.Logf("%d answered, failed: %v", sum.OK, sum.Failed)
	if sum.Refused > 0 || sum.OK == 0 {
		t.Errorf("%d connections refused, %d answered", sum.Refused, sum.OK)
	}
}

func TestStoppingTheAgentsUnitEndsAppsAndLeavesNothing(t *testing.T) {
	n := newUnitNode(t)
	l := n.load()
	cgroup := strings.TrimSpace(n.Run("systemctl", "show", "-p", "ControlGroup", "--value", agentUnit))
	if !strings.HasPrefix(l.started.Cgroup, "/sys/fs/cgroup"+cgroup+"/") {
		t.Errorf("the app is in %s, want it below %s", l.started.Cgroup, cgroup)
	}
	// A server that was there first closes the folder of both to nobody.
	if out, err := n.Try("setpriv", "--reuid=65534", "--clear-groups", programsDir+"/innate", "app", "ps"); err != nil {
		t.Errorf("an ordinary user asks the agent: %v\n%s", err, out)
	}
	n.Run("systemctl", "stop", agentUnit)
	if err := <-l.ended; err == nil {
		t.Error("the run of an app that was stopped ended well")
	}
	if state := strings.TrimSpace(n.Run("systemctl", "show", "-p", "Result", "--value", agentUnit)); state != "success" {
		t.Errorf("the unit ended with %s", state)
	}
	for _, left := range []string{n.Cgroup(cgroup), n.Path("/run/innate/run")} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is still there", left)
		}
	}
	if out, err := n.Try("pgrep", "-x", filepath.Base(programsDir+"/load")); err == nil {
		t.Errorf("the app lives on: %s", out)
	}
}
