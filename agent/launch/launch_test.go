package launch_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate/agent/launch"
)

// The test binary is the program that has the stub.
var stub = []string{"/proc/self/exe", "launch"}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "launch" {
		fmt.Fprintln(os.Stderr, launch.Main())
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "ordinary" { // see asOrdinaryUser
		os.Args = append(os.Args[:1], os.Args[2:]...)
	}
	os.Exit(m.Run())
}

func root(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// subtree is a cgroup subtree that ends with the test.
func subtree(t *testing.T) *launch.Cgroups {
	t.Helper()
	name, err := launch.OwnName("innate-test-launch-")
	if err != nil {
		t.Fatal(err)
	}
	tree, err := launch.OpenCgroups(name)
	if errors.Is(err, launch.ErrNoCgroups) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree
}

// run starts a shell script to its end and returns what it wrote.
func run(t *testing.T, spec launch.Spec, script string) (out string, code int) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	spec.Args = []string{"sh", "-c", script}
	spec.Stub, spec.Stdout, spec.Stderr = stub, w, w
	if spec.Env == nil {
		spec.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"}
	}
	p, err := launch.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if code, err = p.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b)), code
}

func self() uint32 { return uint32(os.Getuid()) }

func TestAnAppIsItsUIDAndNothingMore(t *testing.T) {
	root(t)
	out, code := run(t, launch.Spec{UID: 60001}, `id -u; id -g; id -G; grep -E '^(NoNewPrivs|Cap(Prm|Eff|Amb)|Groups)' /proc/self/status; ls /proc/self/fd | tr "\n" " "`)
	want := "60001\n60001\n60001\n"
	if !strings.HasPrefix(out, want) || code != 0 {
		t.Errorf("got %q (exit %d), want it to begin with %q", out, code, want)
	}
	status := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{"Groups: CapPrm:", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapAmb: 0000000000000000", "NoNewPrivs: 1"} {
		if !strings.Contains(status, want) {
			t.Errorf("status lacks %q:\n%s", want, out)
		}
	}
	if !strings.HasSuffix(out, "\n0 1 2 3") { // the last is ls's own
		t.Errorf("the app has descriptors that are not its own:\n%s", out)
	}
}

// A shell that starts an agent in the background has it ignore SIGINT, nohup SIGHUP.
func TestAnAppIgnoresNoSignalThatTheAgentWasToldToIgnore(t *testing.T) {
	signal.Ignore(unix.SIGHUP, unix.SIGINT)
	defer signal.Reset(unix.SIGHUP, unix.SIGINT)
	for _, sig := range []string{"HUP", "INT"} {
		if out, code := run(t, launch.Spec{UID: self(), Dir: "/"}, "kill -"+sig+" $$; echo ignored"); out != "" || code == 0 {
			t.Errorf("SIG%s: it goes on and says %q (exit %d), want it to end", sig, out, code)
		}
	}
}

func TestAnAppSeesExactlyItsEnvironment(t *testing.T) {
	out, _ := run(t, launch.Spec{UID: self(), Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "SECRET=s1", "LD_PRELOAD="}}, "tr '\\0' '\\n' </proc/$$/environ; pwd")
	if want := "PATH=/usr/bin:/bin\nSECRET=s1\nLD_PRELOAD=\n/"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestAnAppSeesItsHostsFileAndNotTheHiddenDirectory(t *testing.T) {
	dir := t.TempDir()
	hosts, hidden := filepath.Join(dir, "hosts"), filepath.Join(dir, "admin")
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755),
		os.WriteFile(hosts, []byte("127.0.0.1 kv1.vault.innate.test\n"), 0o644),
		os.Mkdir(hidden, 0o755), os.WriteFile(filepath.Join(hidden, "admin.sock"), nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	spec := launch.Spec{UID: self(), Hosts: hosts, Hide: []string{hidden}}
	if self() == 0 {
		spec.UID = 60001
	} else if err := launch.UserNamespaces(stub); err != nil {
		t.Skip(err)
	}
	script := fmt.Sprintf(`cat /etc/hosts; ls -A %[1]s | wc -l; touch %[1]s/x 2>/dev/null || echo read-only; umount %[1]s 2>/dev/null || echo stays; id -u; grep CapEff /proc/self/status`, hidden)
	out, _ := run(t, spec, script)
	want := fmt.Sprintf("127.0.0.1 kv1.vault.innate.test\n0\nread-only\nstays\n%d\nCapEff:\t0000000000000000", spec.UID)
	if out != want {
		t.Errorf("inside: got\n%s\nwant\n%s", out, want)
	}
	if b, err := os.ReadFile("/etc/hosts"); err != nil || bytes.Contains(b, []byte("innate.test")) {
		t.Errorf("outside: /etc/hosts is %q, %v; want it untouched", b, err)
	}
}

// asOrdinaryUser runs one test of this binary again as nobody in particular.
func TestTheMountTestsPassAsAnOrdinaryUserToo(t *testing.T) {
	root(t)
	dir, err := os.MkdirTemp("", "innate-launch-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, 60003, 60003); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "ordinary", "-test.v", "-test.run=^(TestAnAppSees|TestAProgramThat|TestOnlyRoot)")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + dir}
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 60003, Gid: 60003}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if n := bytes.Count(out, []byte("--- PASS")); n < 4 {
		t.Errorf("%d tests passed, want at least 4:\n%s", n, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		t.Logf("without user namespaces:\n%s", out)
	}
}

func TestAProgramThatCannotStartIsAnErrorThatSaysWhy(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755), os.WriteFile(script, []byte("#!/no/such/shell\n"), 0o755),
		os.WriteFile(filepath.Join(dir, "data"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		dir  string
		want []string
	}{
		{"not in PATH", []string{"no-such-program"}, "", []string{"no-such-program", "PATH is /usr/bin:/bin", fmt.Sprint("uid ", self())}},
		{"missing file", []string{"/no/such/program"}, "", []string{"/no/such/program", "no such file"}},
		{"not executable", []string{filepath.Join(dir, "data")}, "", []string{"permission denied", "must be able to execute it"}},
		{"no interpreter", []string{script}, "", []string{"interpreter"}},
		{"no directory", []string{"true"}, "/no/such/dir", []string{"/no/such/dir", "working directory"}},
		{"nothing", nil, "", []string{"no program was given"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := launch.Start(launch.Spec{Args: test.args, Dir: test.dir, Env: []string{"PATH=/usr/bin:/bin"}, UID: self(), Stub: stub})
			if err == nil {
				t.Fatal("it started")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestAProgramThatIsNotOurStubIsNamedAsSuch(t *testing.T) {
	_, err := launch.Start(launch.Spec{Args: []string{"true"}, UID: self(), Stub: []string{"/bin/true"}})
	if err == nil || !strings.Contains(err.Error(), "launch.Main") {
		t.Errorf("got %v", err)
	}
}

func TestOnlyRootStartsProgramsAsSomebodyElse(t *testing.T) {
	if self() == 0 {
		t.Skip("is root; runs as an ordinary user in another test")
	}
	for _, spec := range []launch.Spec{{UID: 0}, {UID: self() + 1}, {UID: self(), NetNS: os.Stdin}} {
		spec.Args, spec.Stub = []string{"true"}, stub
		if _, err := launch.Start(spec); err == nil || !strings.Contains(err.Error(), "only root") {
			t.Errorf("%+v: %v", spec, err)
		}
	}
}

func TestExitCodesAreAShells(t *testing.T) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 128 + 15} {
		if _, code := run(t, launch.Spec{UID: self()}, script); code != want {
			t.Errorf("%s: exit code %d, want %d", script, code, want)
		}
	}
}

func TestASignalReachesTheWholeProcessGroupAndNobodyAfterwards(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := launch.Start(launch.Spec{Args: []string{"sh", "-c", "sleep 60 & sleep 60"}, Env: []string{"PATH=/usr/bin:/bin"}, UID: self(), Stdout: w, Stub: stub})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(); err != nil || code != 128+15 {
		t.Errorf("exit code %d, %v", code, err)
	}
	if _, err := io.ReadAll(r); err != nil { // ends when nobody holds the pipe any more
		t.Error(err)
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: %v, want %v", err, os.ErrProcessDone)
	}
}

func TestAnAppIsInItsCgroupFromItsFirstInstant(t *testing.T) {
	root(t)
	g, err := subtree(t).Make("api/g1")
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, launch.Spec{UID: 60001, Cgroup: g}, "grep ^0:: /proc/self/cgroup; echo $$ 2>/dev/null > "+g.Path()+"/cgroup.procs || echo stays")
	if !strings.HasSuffix(strings.SplitN(out, "\n", 2)[0], "/api/g1") || !strings.HasSuffix(out, "stays") {
		t.Errorf("inside: %s", out)
	}
}

func TestACgroupIsEmptyWhenItsLastProcessIsGone(t *testing.T) {
	root(t)
	g, err := subtree(t).Make("g1")
	if err != nil {
		t.Fatal(err)
	}
	// A grandchild of another session outlives the program.
	p, err := launch.Start(launch.Spec{Args: []string{"sh", "-c", "setsid sleep 60 </dev/null >/dev/null 2>&1 & exit 3"}, Env: []string{"PATH=/usr/bin:/bin"}, UID: 60001, Cgroup: g, Stub: stub})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := g.Empty()
	if err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(); err != nil || code != 3 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	select {
	case <-empty:
		t.Fatal("empty, while the grandchild lives")
	default:
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-empty:
	case <-time.After(10 * time.Second):
		t.Fatal("not empty after Kill")
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(g.Kill(), g.Remove()); err != nil {
		t.Errorf("ending what has ended: %v", err)
	}
}

func TestACgroupIsMadeOnceAndStaysBelow(t *testing.T) {
	root(t)
	tree := subtree(t)
	first, err := tree.Make("api/g1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Make("api/g1"); !errors.Is(err, os.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	for _, path := range []string{"", ".", "..", "../x", "/x", "a/../../x"} {
		if _, err := tree.Make(path); err == nil {
			t.Errorf("Make(%q): no error", path)
		}
	}
	if err := first.Remove(); err != nil {
		t.Fatal(err)
	}
	second, err := tree.Make("api/g1")
	if err != nil || second.ID == first.ID {
		t.Errorf("made again: id %d after %d, %v; want another id", second.ID, first.ID, err)
	}
}

func TestWhatADeadOwnerLeftIsSweptAndNothingElse(t *testing.T) {
	root(t)
	const prefix = "innate-test-sweep-"
	own, err := launch.OwnName(prefix)
	if err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(strings.TrimPrefix(own, prefix), "-")
	names := map[string]bool{ // to whether Sweep leaves it
		own: true,
		fmt.Sprintf("%s%d-1", prefix, dead.Process.Pid): false,
		prefix + pid + "-1":                             false, // ours by the pid, another's by the start time
		prefix + "notes":                                true,
		prefix + "1-x":                                  true,
	}
	groups := map[string]*launch.Cgroup{}
	for name := range names {
		tree, err := launch.OpenCgroups(name)
		if errors.Is(err, launch.ErrNoCgroups) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if groups[name], err = tree.Make("g1"); err != nil {
			t.Fatal(err)
		}
	}
	left := fmt.Sprintf("%s%d-1", prefix, dead.Process.Pid)
	p, err := launch.Start(launch.Spec{Args: []string{"sleep", "60"}, Env: []string{"PATH=/usr/bin:/bin"}, UID: 60001, Cgroup: groups[left], Stub: stub})
	if err != nil {
		t.Fatal(err)
	}
	if err := launch.Sweep(prefix); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(); err != nil || code != 128+9 {
		t.Errorf("the process left behind: exit code %d, %v; want it killed", code, err)
	}
	for name, stays := range names {
		if _, err := os.Stat(groups[name].Path()); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %v", name, err, stays)
		}
	}
}

func TestAnAppEntersTheNetworkNamespaceItIsTold(t *testing.T) {
	root(t)
	made := make(chan *os.File)
	go func() {
		defer close(made)
		runtime.LockOSThread() // the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("making a network namespace: %v", err)
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Error(err)
			return
		}
		made <- f
	}()
	ns, ok := <-made
	if !ok {
		t.FailNow()
	}
	defer ns.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, launch.Spec{UID: 60001, NetNS: ns}, "readlink /proc/self/ns/net")
	if want := fmt.Sprintf("net:[%d]", st.Ino); out != want {
		t.Errorf("inside: %s, want %s", out, want)
	}
}

// What has no cgroup to clean up after it must not outlive the agent.
func TestAnAppWithoutACgroupEndsWithItsAgent(t *testing.T) {
	if os.Getenv("INNATE_TEST_AGENT") != "" {
		p, err := launch.Start(launch.Spec{Args: []string{"sleep", "60"}, Env: []string{"PATH=/usr/bin:/bin"}, UID: self(), Stdout: os.Stdout, Stub: stub})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("started")
		p.Wait()
		return
	}
	agent := exec.Command("/proc/self/exe", "-test.run=^TestAnAppWithoutACgroupEndsWithItsAgent$")
	agent.Env = append(os.Environ(), "INNATE_TEST_AGENT=1")
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, len("started"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "started" {
		t.Fatalf("%q, %v", line, err)
	}
	agent.Process.Kill()
	done := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(out) // ends when the app no longer holds it
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the app outlives its agent")
	}
	agent.Wait()
}
