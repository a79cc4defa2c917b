package agent_test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/agent"
	"innate/audit"
)

// console runs a program beside an app, to its end.
func (r running) console(t *testing.T, generation int, args ...string) (out string, status int, err error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	status, err = agent.Exec(r.socket(), agent.ConsoleRequest{App: "api", Generation: generation, Args: args, Stdout: f, Stderr: f})
	b, readErr := os.ReadFile(f.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	return strings.TrimSpace(string(b)), status, err
}

func TestAConsoleIsInsideTheAppsSurroundings(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	pl := app(ident(1, true))
	pl.Settings = map[string]string{"COLOUR": "blue"}
	p.place(pl)
	a := p.start(nil)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(a.dir, "program")
	copyFile(t, self, public)
	first := a.detach(t, agent.RunRequest{}, "exec sleep 60")
	second := a.detach(t, agent.RunRequest{Isolate: os.Getuid() == 0}, "exec sleep 60")
	for _, g := range []agent.Started{first, second} {
		token, status, err := a.console(t, g.Generation, public, "ask")
		if want := "|" + vault + "|" + g.Assurance.String() + "|"; status != 0 || err != nil || !strings.Contains(token, want) {
			t.Errorf("generation %d: the endpoint gives a console %q, %d %v; want %q in it", g.Generation, token, status, err, want)
		}
		if g.Cgroup != "" {
			group, _, _ := a.console(t, g.Generation, "/bin/sh", "-c", `grep ^0:: /proc/self/cgroup`)
			if _, path, _ := strings.Cut(group, "::"); !strings.HasSuffix(g.Cgroup, path) || path == "" {
				t.Errorf("it is in cgroup %q, want %s", group, g.Cgroup)
			}
		}
		said, status, err := a.console(t, g.Generation, "/bin/sh", "-c", `echo $COLOUR $(id -u) $IDENTITY_ENDPOINT; exit 4`)
		want := fmt.Sprintf("blue %d http://127.0.0.1:%d/msi/token", g.UID, g.Port)
		if said != want || status != 4 || err != nil {
			t.Errorf("generation %d: it says %q, %d %v; want %q and 4", g.Generation, said, status, err, want)
		}
	}
	if _, _, err := a.console(t, 3, "/bin/true"); err == nil || !strings.Contains(err.Error(), "no generation 3") {
		t.Errorf("in one that is not there: got %v", err)
	}
}

func TestAConsoleEndsWithItsApp(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	if a.Status().Why != "" {
		t.Skip("without cgroups a console is a process like any other: " + a.Status().Why)
	}
	a.detach(t, agent.RunRequest{}, "exec sleep 60")
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	ended := make(chan int, 1)
	go func() {
		status, _ := agent.Exec(a.socket(), agent.ConsoleRequest{App: "api", Args: []string{"/bin/sh", "-c", "echo up; exec sleep 60"}, Stdout: outW})
		outW.Close()
		ended <- status
	}()
	if line, err := bufio.NewReader(outR).ReadString('\n'); line != "up\n" {
		t.Fatalf("the console says %q %v", line, err)
	}
	if err := agent.End(a.socket(), "api", 0, false); err != nil {
		t.Fatal(err)
	}
	if status := <-ended; status != 128+15 {
		t.Errorf("the console ended with %d, want it ended by SIGTERM", status)
	}
}

func TestALookInsideNeedsAPermissionOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		by   uint32
		may  bool
	}{
		{"root", 0, true},
		{"who may run as the app", 1001, false},
		{"who may look into it", 1002, true},
		{"somebody", 1003, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			pl := app()
			pl.RunAs, pl.ConsoleFor, pl.MinimumAssurance = []uint32{1001}, []uint32{1002}, innate.SecretOnly
			p.place(pl)
			a := p.start(func(cfg *agent.Config) { cfg.Dev = false })
			i, err := a.Start(t.Context(), agent.RunRequest{App: "api", Args: []string{"/bin/sleep", "60"}, Dir: "/", Env: plain}, 0)
			if err != nil {
				t.Fatal(err)
			}
			console, err := a.Console(t.Context(), agent.ConsoleRequest{App: "api", Args: []string{"/bin/echo", "--password=x"}}, c.by)
			if c.may != (err == nil) || err != nil && !strings.Contains(err.Error(), "consoleFor, which has [1002]") {
				t.Errorf("a console: got %v, want permission %v", err, c.may)
			}
			if err == nil {
				console.Wait()
			}
			if _, err := a.Variables(t.Context(), "api", 0, c.by); c.may != (err == nil) {
				t.Errorf("the variables: got %v, want permission %v", err, c.may)
			}
			i.Kill()
			<-i.Over()
			recorded := map[string]bool{}
			for ev, err := range audit.Read(filepath.Join(a.dir, "state", "audit.log")) {
				if err != nil {
					t.Fatal(err)
				}
				if ev.Allowed == c.may && ev.Detail["uid"] == fmt.Sprint(c.by) && ev.Detail["program"] != "--password=x" {
					recorded[ev.Action] = true
				}
			}
			if !recorded["console-app"] || !recorded["show-app-variables"] {
				t.Errorf("recorded %v", slices.Sorted(maps.Keys(recorded)))
			}
		})
	}
}

func TestVariablesAreShownWithoutTheirSecrets(t *testing.T) {
	secret := strings.Repeat("5e", 32)
	got := agent.Masked([]string{
		"IDENTITY_HEADER=" + secret, "MSI_SECRET=" + secret, "IDENTITY_ENDPOINT=http://127.0.0.1:1/msi/token",
		"COPY=x" + secret + "y", // wherever it stands
		"DB_PASSWORD=hunter2", "db_pwd=hunter2", "API_KEY=k", "EMPTY_TOKEN=", "PWD=/srv", "COLOUR=blue",
		"DATABASE_URL=postgres://ann:p@ss:w0rd@db/x?sslmode=require", "REPO=https://ann@example.org/x",
		"ODD=amqp://ann:p%zz@db", // what we cannot read
		"NOVALUE",
	})
	want := []string{
		"API_KEY=********", "COLOUR=blue", "COPY=x********y",
		"DATABASE_URL=postgres://ann:********@db/x?sslmode=require", "DB_PASSWORD=********", "EMPTY_TOKEN=",
		"IDENTITY_ENDPOINT=http://127.0.0.1:1/msi/token", "IDENTITY_HEADER=********", "MSI_SECRET=********",
		"NOVALUE=", "ODD=********", "PWD=/srv", "REPO=https://ann@example.org/x", "db_pwd=********",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("shown (-want +got):\n%s", diff)
	}
}

// An app may do to its environment what it likes; the endpoint's secret is not shown.
func FuzzMaskedVariables(f *testing.F) {
	f.Add("COPY", "x")
	f.Add("URL", "http://user:pw@host/")
	f.Add("MSI_SECRET", "other")
	f.Add("U", "a://b:c@d@e")
	f.Fuzz(func(t *testing.T, name, value string) {
		secret := strings.Repeat("5e", 32)
		if strings.Contains(name, secret) {
			return // it says so itself
		}
		env := []string{"IDENTITY_HEADER=" + secret, name + "=" + value + secret, "PASSWORD=" + value}
		if name == "IDENTITY_HEADER" {
			return
		}
		for _, v := range agent.Masked(env) {
			if strings.Contains(v, secret) || strings.HasPrefix(v, "PASSWORD=") && value != "" && name != "PASSWORD" && v != "PASSWORD=********" {
				t.Errorf("%q: shown as %q", env, v)
			}
		}
	})
}
