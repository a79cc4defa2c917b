package systemdtest_test

import (
	"os"
	"strings"
	"testing"

	"innate/agent/systemdtest"
)

func TestAMachineRunsUnitsAndLeavesTheHostAlone(t *testing.T) {
	var cgroup string
	t.Run("machine", func(t *testing.T) {
		m := systemdtest.Boot(t)
		cgroup = m.Cgroup("/")
		m.Unit("hello.service", "[Service]\nType=oneshot\nDynamicUser=yes\nExecStart=/bin/sh -c 'echo hello, I am $$(id -un)'\n")
		m.Run("systemctl", "start", "hello")
		if got := m.Log("hello.service"); got != "hello, I am hello\n" {
			t.Errorf("it said %q", got)
		}
		if got := strings.TrimSpace(m.Run("systemctl", "is-system-running")); got != "running" {
			t.Errorf("the machine is %s", got)
		}
		for _, path := range []string{"/etc/systemdtest", "/usr/systemdtest", "/root/systemdtest"} {
			if out, err := m.Try("touch", path); err == nil {
				os.Remove(path)
				t.Errorf("it may write %s: %s", path, out)
			}
		}
		if got := m.Run("ip", "-brief", "link"); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "lo ") {
			t.Errorf("it has more network than loopback:\n%s", got)
		}
		if _, err := os.Stat("/etc/systemd/system/hello.service"); err == nil {
			t.Error("its unit is among the host's")
		}
	})
	if cgroup == "" {
		t.Skip("there was no machine")
	}
	if _, err := os.Stat(cgroup); err == nil {
		t.Errorf("its cgroups are still there: %s", cgroup)
	}
}
