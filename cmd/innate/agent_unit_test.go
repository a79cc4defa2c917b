package main_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"innate/agent"
)

// A unitNode is a machine whose agent has an app to keep.
type unitNode struct{ *machine }

const agentUnit = "innate-agent.service"

func newUnitNode(t *testing.T) *unitNode {
	t.Helper()
	n := &unitNode{newMachine(t)}
	n.Run(program, "app", "create", "api", "-g", "team", "--identity")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copyProgram(t, self, n.Path("/run/bin/load"))
	return n
}

func (n *unitNode) socket() string { return n.Path("/run/innate/run/agent.sock") }

func (n *unitNode) load() *loaded {
	n.t.Helper()
	return startLoad(n.t, n.socket(), "api", "/run/bin/load", agent.RestartNo)
}

// kill sends a signal to a process of the machine.
func (n *unitNode) kill(pid string, sig syscall.Signal) {
	n.t.Helper()
	n.Run("kill", fmt.Sprintf("-%d", sig), pid)
}

// main is the pid of the opener.
func (n *unitNode) main() string { return n.property(agentUnit, "MainPID") }

// goesOn waits until the one app runs on as it was, under an agent that is active.
func (n *unitNode) goesOn(l *loaded) {
	n.t.Helper()
	eventually(n.t, "the app goes on under an active agent", func() bool {
		all, err := agent.ReadRunning(n.socket())
		return err == nil && n.property(agentUnit, "ActiveState") == "active" && len(all) == 1 && all[0].PID == l.started.PID && all[0].Port == l.started.Port
	})
}

func TestTheAgentsUnitIsReloadedAndRestartedUnderLoadAndNoRequestFails(t *testing.T) {
	n := newUnitNode(t)
	l := n.load()
	for range 5 {
		worker, before := n.worker(), n.main()
		n.Run("systemctl", "reload", agentUnit)
		eventually(t, "another worker follows", func() bool { now := n.worker(); return now != "" && now != worker })
		n.goesOn(l)
		if now := n.main(); now != before {
			t.Errorf("after a reload the agent is process %s, and was %s", now, before)
		}
		n.Run("systemctl", "restart", agentUnit)
		n.goesOn(l)
		if now := n.main(); now == before {
			t.Errorf("after a restart the agent is process %s still", now)
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
		pid  func() string
		sig  syscall.Signal
	}{
		{"the opener is killed", n.main, syscall.SIGKILL},
		{"the worker is killed", n.worker, syscall.SIGKILL},
		{"the opener is stuck", n.main, syscall.SIGSTOP},
		{"the worker is stuck", n.worker, syscall.SIGSTOP},
	} {
		var was string
		eventually(t, "there is a process", func() bool { was = c.pid(); return was != "" && was != "0" && !strings.Contains(was, "\n") })
		n.kill(was, c.sig)
		eventually(t, c.what+", and another follows", func() bool { now := c.pid(); return now != "" && now != "0" && now != was })
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
	cgroup := n.property(agentUnit, "ControlGroup")
	if !strings.HasPrefix(l.started.Cgroup, "/sys/fs/cgroup"+cgroup+"/") {
		t.Errorf("the app is in %s, want it below %s", l.started.Cgroup, cgroup)
	}
	// A server that was there first closes the folder of both to nobody.
	if out, err := n.Try("setpriv", "--reuid=65534", "--clear-groups", program, "app", "ps"); err != nil {
		t.Errorf("an ordinary user asks the agent: %v\n%s", err, out)
	}
	n.Run("systemctl", "stop", agentUnit)
	if err := <-l.ended; err == nil {
		t.Error("the run of an app that was stopped ended well")
	}
	if state := n.property(agentUnit, "Result"); state != "success" {
		t.Errorf("the unit ended with %s", state)
	}
	for _, left := range []string{n.Cgroup(cgroup), n.Path("/run/innate/run")} {
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s is still there", left)
		}
	}
	if out, err := n.Try("pgrep", "-x", "load"); err == nil {
		t.Errorf("the app lives on: %s", out)
	}
}
