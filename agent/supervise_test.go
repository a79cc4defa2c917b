package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/agent"
	"innate/audit"
)

// environment of the shells that run as apps.
var plain = []string{"PATH=/bin:/usr/bin"}

// detach starts a shell script that runs on by itself.
func (r running) detach(t *testing.T, q agent.RunRequest, script string) (started agent.Started) {
	t.Helper()
	q.Args, q.Dir, q.Env, q.Detach = []string{"/bin/sh", "-c", script}, "/", plain, true
	q.OnStart = func(s agent.Started) { started = s }
	if q.App == "" {
		q.App = "api"
	}
	if _, err := agent.Run(r.socket(), q); err != nil {
		t.Fatal(err)
	}
	return started
}

// generations are the numbers of those that run.
func (r running) generations() (all []int) {
	for _, g := range r.Status().Generations {
		all = append(all, g.Generation)
	}
	return all
}

func (r running) log(t *testing.T, app string) string {
	t.Helper()
	var b bytes.Buffer
	if err := agent.Logs(t.Context(), r.socket(), app, false, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// follow reads the log of the app until stopped.
func (r running) follow(t *testing.T) (lines *bufio.Reader, stop func()) {
	t.Helper()
	in, out := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	go func() { followed <- agent.Logs(ctx, r.socket(), "api", true, out) }()
	return bufio.NewReader(in), func() {
		cancel()
		if err := <-followed; err != nil {
			t.Errorf("the follower ended with: %v", err)
		}
	}
}

func TestAProgramIsStartedAgainAsItsRunSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		restart agent.Restart
		exits   string // what the program ends with, run after run
		runs    int
		status  int
	}{
		{"", "3", 1, 3},
		{agent.RestartNo, "3", 1, 3},
		{agent.RestartOnFailure, "0", 1, 0},
		{agent.RestartOnFailure, "3 1 0", 3, 0},
		{agent.RestartAlways, "0 3 term", 3, 128 + int(syscall.SIGTERM)}, // until somebody ends it
	} {
		t.Run(string(c.restart)+" "+c.exits, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			p.place(app())
			a := p.start(nil)
			inR, inW, _ := os.Pipe()
			outR, outW, _ := os.Pipe()
			defer outR.Close()
			signals := make(chan os.Signal, 1)
			defer inW.Close()
			go func() {
				said := bufio.NewReader(outR)
				for exit := range strings.FieldsSeq(c.exits) {
					said.ReadString('\n') // it is up
					if exit == "term" {
						signals <- syscall.SIGTERM
						return
					}
					fmt.Fprintln(inW, exit)
				}
			}()
			status, err := agent.Run(a.socket(), agent.RunRequest{
				App: "api", Args: []string{"/bin/sh", "-c", "echo up; read code; exit $code"}, Dir: "/", Env: plain,
				Stdin: inR, Stdout: outW, Restart: c.restart, Signals: signals,
			})
			inR.Close()
			outW.Close()
			if status != c.status || err != nil {
				t.Errorf("it ended with %d %v, want %d", status, err, c.status)
			}
			runs := 0
			for ev, err := range audit.Read(filepath.Join(a.dir, "state", "audit.log")) {
				if err != nil {
					t.Fatal(err)
				}
				if ev.Action == "end-app" {
					runs++
				}
			}
			if runs != c.runs {
				t.Errorf("it ran %d times, want %d", runs, c.runs)
			}
		})
	}
}

func TestARunThatCannotBeIsRefusedInWords(t *testing.T) {
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	for why, q := range map[string]agent.RunRequest{
		"no program was given":               {App: "api", Detach: true},
		`want no, on-failure or always`:      {App: "api", Args: []string{"/bin/true"}, Restart: "sometimes", Detach: true},
		"/nonexistent":                       {App: "api", Args: []string{"/nonexistent"}, Restart: agent.RestartAlways, Detach: true},
		`no app called "other" is placed on`: {App: "other", Args: []string{"/bin/true"}, Detach: true},
	} {
		if _, err := agent.Run(a.socket(), q); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("got %v, want %q in it", err, why)
		}
	}
	if left := a.generations(); len(left) > 0 {
		t.Errorf("generations %v run", left)
	}
}

func TestADetachedProgramRunsOnAndItsLogIsKept(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	started := a.detach(t, agent.RunRequest{}, `echo "to out"; echo "to err" >&2; printf 'colour \033[31m red\tand a long \r\nlast'; exec sleep 60`)
	want := []string{"g1 to out", "g1 to err", "g1 colour \uFFFD[31m red\tand a long"}
	eventually(t, "the log has what it wrote", func() bool { return strings.Count(a.log(t, "api"), "\n") == len(want) })
	for n, line := range strings.Split(strings.TrimSpace(a.log(t, "api")), "\n") {
		at, text, _ := strings.Cut(line, " ")
		if _, err := time.Parse(time.RFC3339, at); err != nil || strings.TrimSpace(text) != want[n] {
			t.Errorf("line %d is %q, want a time and %q", n+1, line, want[n])
		}
	}
	if got := a.generations(); !slices.Equal(got, []int{started.Generation}) {
		t.Errorf("generations %v run, want it to run on", got)
	}
	if err := agent.End(a.socket(), "api", started.Generation, false); err != nil {
		t.Fatal(err)
	}
	if got := a.log(t, "api"); !strings.HasSuffix(got, " g1 last\n") {
		t.Errorf("the log ends with %q, want what had no end of line", got[max(0, len(got)-50):])
	}
	if err := agent.End(a.socket(), "api", 0, false); err == nil || !strings.Contains(err.Error(), "does not run here") {
		t.Errorf("ending it again: got %v", err)
	}
}

func TestALogIsBoundedAndKeepsTheEnd(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	a.detach(t, agent.RunRequest{}, `yes $(printf %01000d 0) | head -c 12000000; echo; echo the end; exec sleep 60`)
	lines, stop := a.follow(t)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("the log ends with %q: %v", line, err)
		}
		if strings.HasSuffix(line, " g1 the end\n") {
			break
		}
	}
	stop()
	if !strings.HasSuffix(a.log(t, "api"), " g1 the end\n") {
		t.Error("the end is not kept")
	}
	var size, files int64
	filepath.WalkDir(filepath.Join(a.dir, "run", "logs"), func(path string, d fs.DirEntry, err error) error {
		if info, infoErr := d.Info(); err == nil && infoErr == nil && !d.IsDir() {
			size, files = size+info.Size(), files+1
		}
		return err
	})
	if files != 2 || size > 8<<20 || size < 4<<20 {
		t.Errorf("the log has %d bytes in %d files, want 4 to 8 MiB in two", size, files)
	}
}

func TestAFollowerOfALogHearsWhatIsWritten(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	lines, stop := a.follow(t)
	a.detach(t, agent.RunRequest{}, "echo first; exec sleep 60")
	if line, err := lines.ReadString('\n'); !strings.HasSuffix(line, " g1 first\n") {
		t.Errorf("got %q %v", line, err)
	}
	a.detach(t, agent.RunRequest{}, "echo second; exec sleep 60")
	if line, err := lines.ReadString('\n'); !strings.HasSuffix(line, " g2 second\n") {
		t.Errorf("got %q %v", line, err)
	}
	stop()
}

func TestTheEndOfTheLastProcessIsTheEndOfTheEndpoint(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	var took []time.Duration
	for range 5 {
		run := a.run(t, "api", printEnvironment)
		env := run.environ(t)
		if err := unix.Kill(run.started.PID, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		eventually(t, "the port refuses connections", func() bool { _, err := ask(t, env, ""); return errors.Is(err, unix.ECONNREFUSED) })
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	if took[2] > 100*time.Millisecond {
		t.Errorf("it took %v, want a median of at most 100 ms", took)
	}
}

func TestAnIsolatedAppIsOutOfEverybodysReach(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	p := newPlane(t)
	pl := app(ident(1, true))
	pl.MinimumAssurance = innate.NetNS
	p.place(pl)
	a := p.start(nil)
	if a.Assurance() < innate.CgroupUID {
		t.Skipf("here callers are proved by %s only", a.Assurance())
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(a.dir, "program")
	copyFile(t, self, public)
	q := agent.RunRequest{App: "api", Args: []string{public, "ask"}, Dir: "/", Env: plain}
	if _, err := agent.Run(a.socket(), q); err == nil || !strings.Contains(err.Error(), "wants its callers proved by netns") {
		t.Errorf("without a namespace of its own: got %v", err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	q.Isolate, q.Stdout, q.Stderr = true, out, os.Stderr
	if status, err := agent.Run(a.socket(), q); status != 0 || err != nil {
		t.Fatalf("it ended with %d %v", status, err)
	}
	token, err := os.ReadFile(out.Name())
	if want := string(ident(1, true).Client) + "|" + vault + "|netns|1"; string(token) != want || err != nil {
		t.Errorf("the app got %q %v, want %q", token, err, want)
	}
	// From outside there is nothing at its port, for the host has no such socket.
	started := a.detach(t, agent.RunRequest{Isolate: true}, "exec sleep 60")
	if !started.Isolated || started.Assurance != innate.NetNS {
		t.Errorf("it is proved by %s", started.Assurance)
	}
	env := map[string]string{"IDENTITY_ENDPOINT": fmt.Sprintf("http://127.0.0.1:%d/msi/token", started.Port)}
	if status, err := ask(t, env, ""); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("its port from outside: got %d %v, want a refused connection", status, err)
	}
}
