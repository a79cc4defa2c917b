// Package systemdtest boots a real systemd for a test, as pid 1 of namespaces of
// its own: for what this project ships as units, and for units that are apps.
//
//	m := systemdtest.Boot(t)
//	m.Unit("api.service", "[Service]\nExecStart=/bin/sleep 60\n")
//	m.Run("systemctl", "start", "api")
//
// The machine has processes, mounts, a network with nothing but loopback, host
// names, IPC and a cgroup tree that are its own. It sees the host's files; those of
// the root file system it cannot change, nor the kernel's settings. /run, /var,
// /tmp, /dev and /etc/systemd/system are new. Of the units that the host has, it
// knows none. Everything is gone with the test, also when the test's process is
// killed.
package systemdtest

import (
	"context"
	_ "embed"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"innate/agent/launch"
)

const (
	systemd  = "/lib/systemd/systemd"
	patience = 30 * time.Second // of a boot, or of a program that is waited for
	cannot   = 77               // exit code of boot.sh: this machine does not allow it
)

//go:embed boot.sh
var boot string

// janitor removes the cgroup $0 and all that is in it, then the folder $1, when
// its standard input ends.
const janitor = `cat >/dev/null
until ! [ -d "$0" ] || { echo 1 >"$0/cgroup.kill"; find "$0" -depth -type d -exec rmdir {} + 2>/dev/null; }; do sleep 0.01; done
rm -rf "$1"`

// A Machine is a running systemd.
type Machine struct {
	t      testing.TB
	pid    int    // of systemd, as the host has it
	cgroup string // directory, of the host
	shared string // folder, the same: /run/host of the machine
}

// Boot starts a machine that runs until the test ends. It skips the test where
// there can be none, and says why.
func Boot(t testing.TB) *Machine {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("a systemd of the test's own needs root")
	}
	for _, program := range []string{systemd, "systemctl", "nsenter", "unshare", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("a systemd of the test's own needs %s: %v", program, err)
		}
	}
	top, err := launch.Hierarchy()
	if err != nil {
		t.Skipf("a systemd of the test's own needs cgroups: %v", err)
	}
	cgroup, err := os.MkdirTemp(top, "systemdtest-")
	if err == nil {
		err = os.Chmod(cgroup, 0o755) // as the top of a host's is
	}
	if err != nil {
		t.Skipf("a systemd of the test's own needs a cgroup: %v", err)
	}
	shared, err := os.MkdirTemp("", "systemdtest-")
	if err != nil {
		os.Remove(cgroup)
		t.Fatal(err)
	}
	m := &Machine{t: t, cgroup: cgroup, shared: shared}
	m.clean()
	m.start()
	return m
}

// clean sees to it that nothing is left of the machine.
func (m *Machine) clean() {
	m.t.Helper()
	cmd := exec.Command("/bin/sh", "-c", janitor, m.cgroup, m.shared)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt is not for it
	alive, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		os.Remove(m.cgroup)
		os.RemoveAll(m.shared)
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		alive.Close()
		if err := cmd.Wait(); err != nil {
			m.t.Errorf("removing a machine: %v", err)
		}
	})
}

// start starts systemd and waits until it has booted.
func (m *Machine) start() {
	m.t.Helper()
	if err := writeUnits(filepath.Join(m.shared, "units")); err != nil {
		m.t.Fatal(err)
	}
	console, err := os.Create(filepath.Join(m.shared, "console"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer console.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.shared, "notify"), Net: "unixgram"})
	if err != nil {
		m.t.Fatal(err)
	}
	defer notify.Close()
	dir, err := os.Open(m.cgroup)
	if err != nil {
		m.t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("unshare", "--cgroup", "/bin/sh", "-c", boot, "boot", m.shared)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true,
	}
	said := func() string {
		b, _ := os.ReadFile(console.Name())
		return string(b)
	}
	if err := cmd.Start(); errors.Is(err, fs.ErrPermission) {
		m.t.Skipf("this machine allows no systemd of the test's own: %v", err)
	} else if err != nil {
		m.t.Fatal(err)
	}
	m.pid = cmd.Process.Pid
	ended := make(chan error, 1)
	booted := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	go func() { booted <- awaitReady(notify) }()
	select {
	case err := <-booted:
		if err != nil {
			m.t.Fatalf("systemd did not boot: %v\n%s", err, said())
		}
	case err := <-ended:
		if cmd.ProcessState.ExitCode() == cannot {
			m.t.Skipf("this machine allows no systemd of the test's own: %s", said())
		}
		m.t.Fatalf("systemd ended: %v\n%s", err, said())
	}
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("what systemd said:\n%s", said())
		}
	})
}

// awaitReady waits until systemd says that it has booted, as sd_notify(3) says.
func awaitReady(c *net.UnixConn) error {
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// writeUnits writes what a machine has from the start: the targets that every
// unit is tied to, and where units' output goes.
func writeUnits(dir string) error {
	files := map[string]string{"service.d/10-log.conf": "[Service]\nStandardOutput=append:/run/log/%n\nStandardError=inherit\n"}
	for _, name := range []string{"default", "sysinit", "basic", "shutdown", "umount", "final", "sockets", "multi-user", "network", "network-online"} {
		files[name+".target"] = "[Unit]\nDefaultDependencies=no\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Path is where the test finds a file of the machine.
func (m *Machine) Path(path string) string {
	return "/proc/" + strconv.Itoa(m.pid) + "/root" + path
}

// Cgroup is the directory where the test finds a cgroup of the machine, such as
// /system.slice/api.service.
func (m *Machine) Cgroup(path string) string { return filepath.Join(m.cgroup, path) }

// Write writes a file of the machine: below /run, /var, /tmp or
// /etc/systemd/system, or /etc/hosts.
func (m *Machine) Write(path, text string, mode fs.FileMode) {
	m.t.Helper()
	inside := m.Path(path)
	if err := os.MkdirAll(filepath.Dir(inside), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(inside, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
}

// Unit writes a unit's file and has systemd read it. What a service prints is
// in its Log.
func (m *Machine) Unit(name, text string) {
	m.t.Helper()
	m.Write("/etc/systemd/system/"+name, text, 0o644)
	m.Run("systemctl", "daemon-reload")
}

// Log is what a service has printed.
func (m *Machine) Log(service string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.Path("/run/log/" + service))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	return string(b)
}

// Command is a program that runs in the machine as root, but in none of its cgroups.
func (m *Machine) Command(args ...string) *exec.Cmd { return m.command(m.t.Context(), args...) }

func (m *Machine) command(ctx context.Context, args ...string) *exec.Cmd {
	namespaces := []string{"--target", strconv.Itoa(m.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(namespaces, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system", "SYSTEMD_PAGER="}
	return cmd
}

// Try runs a program in the machine and returns what it printed.
func (m *Machine) Try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	cmd := m.command(ctx, args...)
	cmd.WaitDelay = time.Second // what it left behind may hold its output open
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Run is Try for what must succeed.
func (m *Machine) Run(args ...string) string {
	m.t.Helper()
	out, err := m.Try(args...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}
