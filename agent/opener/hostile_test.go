package opener_test

import (
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/launch"
	"innate/agent/opener"
)

// The test binary is also the stub that starts programs.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "launch" {
		log.Fatal(launch.Main())
	}
	os.Exit(m.Run())
}

const app = innate.ResourceID("/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/rg/providers/Microsoft.Web/sites/api")

func start(t *testing.T) (*opener.Local, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("an opener is root")
	}
	dir := t.TempDir()
	l, err := opener.New(opener.Config{Runtime: filepath.Join(dir, "run"), Records: dir, Stub: []string{"/proc/self/exe", "launch"}, Cgroups: "innatetest-"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, dir
}

func connect(t *testing.T, l *opener.Local) *opener.Remote {
	t.Helper()
	there, _, err := l.Serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := opener.Connect(there)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAHostileWorkerIsRefusedOrderByOrder(t *testing.T) {
	l, dir := start(t)
	r := connect(t, l)
	h, err := opener.Make(t.Context(), r, opener.Want{App: app, Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Folder(opener.Secrets); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "outside")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, c := range map[string]struct {
		order opener.Order
		want  string
	}{
		"an unknown order":              {opener.Order{Op: "shell"}, "knows no order"},
		"root's uid":                    {opener.Order{Op: "make", App: app, Number: 2, User: "root"}, "is root"},
		"a user who is not lent":        {opener.Order{Op: "make", App: app, Number: 2, User: "daemon"}, "--lend-user daemon"},
		"a cgroup elsewhere":            {opener.Order{Op: "make", App: app + "/../..", Number: 2}, "cannot be called so"},
		"a name with an @":              {opener.Order{Op: "make", App: "/a/..", Number: 2}, "cannot be called so"},
		"another generation in it":      {opener.Order{Op: "make", App: app, Number: 1}, "there already"},
		"a generation that is none":     {opener.Order{Op: "make", App: app, Number: -1}, "want 1 or more"},
		"a unit that runs as root":      {opener.Order{Op: "make", App: app, Number: 2, Service: &opener.Service{Unit: "x.service", Cgroup: "/x.service"}}, "runs as root"},
		"a unit that is no service":     {opener.Order{Op: "make", App: app, Number: 2, Service: &opener.Service{Unit: "../x.service", Cgroup: "/x.service", UID: 1}}, "name of a service"},
		"another unit's cgroup":         {opener.Order{Op: "make", App: app, Number: 2, Service: &opener.Service{Unit: "x.service", Cgroup: "/system.slice/y.service", UID: 1}}, "is not that of"},
		"a unit's cgroup elsewhere":     {opener.Order{Op: "make", App: app, Number: 2, Service: &opener.Service{Unit: "x.service", Cgroup: "/../../tmp/x.service", UID: 1}}, "its path in the hierarchy"},
		"a user's own manager":          {opener.Order{Op: "make", App: app, Number: 2, Service: &opener.Service{Unit: "user@1.service", Cgroup: "/user.slice/user-1.slice/user@1.service", UID: 1}}, "the user's to say"},
		"a unit in another network":     {opener.Order{Op: "make", App: app, Number: 2, Isolate: true, Service: &opener.Service{Unit: "x.service", Cgroup: "/x.service", UID: 1}}, "its service manager's"},
		"a home that is none":           {opener.Order{Op: "start", Home: "api/g7", Program: &opener.Program{Args: []string{"true"}}}, "there is no home"},
		"files that did not come":       {opener.Order{Op: "start", Home: h.ID, Program: &opener.Program{Args: []string{"true"}, Files: [3]bool{true}}}, "fewer files"},
		"nothing":                       {opener.Order{Op: "start", Home: h.ID}, "nothing to start"},
		"beside nothing":                {opener.Order{Op: "start", Home: h.ID, Program: &opener.Program{Args: []string{"true"}, Beside: true}}, "nothing yet to run beside"},
		"a folder that is none":         {opener.Order{Op: "folder", Home: h.ID, Folder: "../../etc"}, "no folder"},
		"a file elsewhere":              {opener.Order{Op: "write", Home: h.ID, Folder: opener.Secrets, Name: "../../../outside", Content: []byte("x")}, "want letters"},
		"a hidden file":                 {opener.Order{Op: "write", Home: h.ID, Folder: opener.Secrets, Name: ".ssh"}, "want letters"},
		"a file of a folder not made":   {opener.Order{Op: "write", Home: h.ID, Folder: opener.Logins, Name: "pgpass"}, "has no folder"},
		"a file that is too long":       {opener.Order{Op: "write", Home: h.ID, Folder: opener.Secrets, Name: "big", Content: make([]byte, 1<<20)}, "want at most"},
		"taking away a file elsewhere":  {opener.Order{Op: "unlink", Home: h.ID, Folder: opener.Secrets, Name: "../../../outside"}, "want letters"},
		"a signal to init":              {opener.Order{Op: "signal", Home: h.ID, PID: 1, Signal: syscall.SIGTERM, To: "process"}, "finished"},
		"a signal to a group":           {opener.Order{Op: "signal", Home: h.ID, PID: -1, Signal: syscall.SIGTERM, To: "group"}, "finished"},
		"a signal that is none":         {opener.Order{Op: "signal", Home: h.ID, Signal: 99, To: "all"}, "there is none"},
		"the wait for a stranger":       {opener.Order{Op: "wait", Home: h.ID, PID: 1}, "has no process 1"},
		"the environment of nobody":     {opener.Order{Op: "environ", Home: h.ID}, "finished"},
		"a port that is none":           {opener.Order{Op: "dial", Home: h.ID, Port: 70000}, "want 1 to 65535"},
		"the host's own network":        {opener.Order{Op: "find", Place: &opener.Place{Host: true}}, "--take-over-imds"},
		"a namespace that did not come": {opener.Order{Op: "find", Place: &opener.Place{NetNS: "/proc/1/ns/net"}}, "did not come"},
		"a place that is none":          {opener.Order{Op: "find", Place: &opener.Place{}}, "say where"},
		"a spot that is none":           {opener.Order{Op: "listen", Spot: "x"}, "there is no spot"},
		"a record elsewhere":            {opener.Order{Op: "keep", Name: "../x"}, "want letters"},
		"a record that is too long":     {opener.Order{Op: "keep", Name: "x", Content: make([]byte, 5<<20)}, "want at most"},
		"a record that is none":         {opener.Order{Op: "kept", Name: "x"}, "there is no record"},
	} {
		ctx := t.Context()
		if _, _, err := r.Do(ctx, c.order); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
	if _, _, err := r.Do(t.Context(), opener.Order{Op: "find", Place: &opener.Place{NetNS: "/x"}}, null); err == nil || !strings.Contains(err.Error(), "no network namespace") {
		t.Errorf("another file as a namespace: got %v", err)
	}
	if b, err := os.ReadFile(secret); string(b) != "s" || err != nil {
		t.Errorf("the file outside: %q, %v", b, err)
	}

	// What it may do, it does as the app.
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	p, err := h.Start(opener.Program{
		Args: []string{"/bin/sh", "-c", "id -u; grep -E 'CapEff|NoNewPrivs' /proc/self/status"}, Dir: "/", Env: []string{"PATH=/bin:/usr/bin", "BIG=" + strings.Repeat("x", 100_000)},
	}, [3]*os.File{1: outW})
	outW.Close()
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(outR)
	if status, waitErr := p.Wait(); status != 0 || err != nil || waitErr != nil || string(said) != "1900000001\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\n" {
		t.Errorf("a program that it starts: %d, %v, %v, says %q", status, err, waitErr, said)
	}
}

func TestWhatIsNoMessageEndsTheWorkersLineAndNothingElse(t *testing.T) {
	l, _ := start(t)
	for name, packet := range map[string]string{"no JSON": "{", "no order": "{}", "a long message without its memfd": "\x00"} {
		there, served, err := l.Serve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		raw, err := there.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Write(func(fd uintptr) bool {
			_, err = unix.Write(int(fd), []byte(packet))
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-served:
			if err == nil {
				t.Errorf("%s: the line ended well", name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the line goes on", name)
		}
		there.Close()
	}
	if _, err := opener.ReadFacts(connect(t, l)); err != nil {
		t.Errorf("the next worker: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{"", "{}", `{"id":1,"order":{"op":"facts"}}`, `{"id":1,"order":{"op":"start","program":{"args":["x"],"files":[true]}}}`, `{"id":1,"cancel":true}`, `{"order":{"place":{"addresses":["::"]}}}`, "\x00"} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, long bool) {
		opener.Parse(b, long) // an error, or none: never a panic, and never a wait
	})
}
