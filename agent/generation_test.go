package agent_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/agent"
	"innate/audit"
	"innate/feed/client"
)

// A program is a shell that runs as an app and does what it is told.
type program struct {
	in      *os.File
	out     *bufio.Reader
	started agent.Started
	ended   chan struct{}
	status  int   // after ended
	err     error // after ended
}

// run starts a shell script as an app, through the agent's socket.
func (r running) run(t *testing.T, app, script string) *program {
	t.Helper()
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{in: inW, out: bufio.NewReader(outR), ended: make(chan struct{})}
	started := make(chan agent.Started, 1)
	go func() {
		defer close(p.ended)
		p.status, p.err = agent.Run(r.socket(), agent.RunRequest{
			App: app, Args: []string{"/bin/sh", "-c", script}, Dir: "/", Env: []string{"PATH=/bin:/usr/bin", "IDENTITY_HEADER=stolen", "COLOUR=red"},
			Stdin: inR, Stdout: outW, OnStart: func(s agent.Started) { started <- s },
		})
		inR.Close()
		outW.Close()
	}()
	t.Cleanup(func() {
		inW.Close()
		<-p.ended
		outR.Close()
	})
	select {
	case p.started = <-started:
	case <-p.ended:
	}
	return p
}

func (p *program) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatalf("the app said nothing more: %v; it ended with %v", err, p.err)
	}
	return strings.TrimSuffix(s, "\n")
}

// environ reads the environment that a shell prints with printenv.
func (p *program) environ(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{}
	for l := p.line(t); l != "."; l = p.line(t) {
		name, value, _ := strings.Cut(l, "=")
		env[name] = value
	}
	return env
}

// variables reads an environment as a list.
func variables(list []string) map[string]string {
	env := map[string]string{}
	for _, v := range list {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	return env
}

// printEnvironment prints the environment, then waits until its input ends.
const printEnvironment = "/usr/bin/env; echo .; read x"

// ask asks at an app's endpoint from this process, which is not in the app's cgroup.
func ask(t *testing.T, env map[string]string, secret string) (int, error) {
	t.Helper()
	return askWith(t, env, secret, "")
}

// askWith is ask with more in the query.
func askWith(t *testing.T, env map[string]string, secret, more string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, env["IDENTITY_ENDPOINT"]+"?api-version=2019-08-01&resource="+vault+more, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-IDENTITY-HEADER", secret)
	tr := &http.Transport{DisableKeepAlives: true, Proxy: nil}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func TestAProgramRunsAsTheAppWithItsEndpointAndSettings(t *testing.T) {
	p := newPlane(t)
	pl := app(ident(1, true))
	pl.Settings = map[string]string{"COLOUR": "blue", "MSI_SECRET": "mine"}
	p.place(pl)
	a := p.start(func(c *agent.Config) { c.Env = []string{"COLOUR=green", "SSL_CERT_FILE=/bundle"} })
	run := a.run(t, "api", "/usr/bin/env; echo .; read x; exit 7")
	env := run.environ(t)
	for name, want := range map[string]string{
		"COLOUR": "blue", "SSL_CERT_FILE": "/bundle", "PATH": "/bin:/usr/bin",
		"MSI_ENDPOINT": env["IDENTITY_ENDPOINT"], "MSI_SECRET": env["IDENTITY_HEADER"],
		"IDENTITY_ENDPOINT": "http://127.0.0.1:" + strconv.Itoa(run.started.Port) + "/msi/token",
	} {
		if env[name] != want {
			t.Errorf("%s is %q, want %q", name, env[name], want)
		}
	}
	if len(env["IDENTITY_HEADER"]) != 64 {
		t.Errorf("the secret has %d characters, want 64", len(env["IDENTITY_HEADER"]))
	}
	if os.Getuid() == 0 && run.started.UID != 1_910_000_001 {
		t.Errorf("the app's uid is %d, want the first of its own", run.started.UID)
	}
	run.in.Close()
	<-run.ended
	if run.status != 7 || run.err != nil {
		t.Errorf("ended with %d %v, want 7", run.status, run.err)
	}
}

func TestASecretIsWorthlessOutsideItsGeneration(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	if a.Assurance() < innate.CgroupUID {
		t.Skipf("here callers are proved by %s only: want root and cgroup2", a.Assurance())
	}
	first := a.run(t, "api", printEnvironment)
	one := first.environ(t)
	second := a.run(t, "api", printEnvironment)
	two := second.environ(t)
	for _, c := range []struct {
		name   string
		env    map[string]string
		secret string
		want   int
	}{
		{"right secret, wrong caller", one, one["IDENTITY_HEADER"], http.StatusForbidden},
		{"the first's secret at the second's port", two, one["IDENTITY_HEADER"], http.StatusUnauthorized},
		{"no secret", one, "", http.StatusUnauthorized},
	} {
		if status, err := ask(t, c.env, c.secret); status != c.want {
			t.Errorf("%s: got %d %v, want %d", c.name, status, err, c.want)
		}
	}
	first.in.Close()
	<-first.ended
	if status, err := ask(t, one, one["IDENTITY_HEADER"]); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the first's port after its end: got %d %v, want a refused connection", status, err)
	}
	if status, _ := ask(t, two, two["IDENTITY_HEADER"]); status != http.StatusForbidden {
		t.Errorf("the second's port: got %d, want it to serve on", status)
	}
	if p.calls.Load() != 0 {
		t.Error("a token was fetched for an outsider")
	}
}

func TestTheAppItselfGetsItsToken(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	want := string(ident(1, true).Client) + "|" + vault + "|" + a.Assurance().String() + "|1"
	if got := a.askAs(t, apiApp); got != want {
		t.Errorf("the app got %q, want %q", got, want)
	}
}

// askAs runs this test's program as an app, to ask for a token.
func (r running) askAs(t *testing.T, app innate.ResourceID) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(r.dir, "program") // the test's folder is its user's alone
	copyFile(t, self, public)
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	status, err := agent.Run(r.socket(), agent.RunRequest{
		App: string(app), Args: []string{public, "ask"}, Env: []string{"PATH=/bin"}, Stdout: outW, Stderr: os.Stderr,
	})
	outW.Close()
	got, _ := io.ReadAll(outR)
	if status != 0 || err != nil {
		t.Fatalf("ended with %d %v: %s", status, err, got)
	}
	return string(got)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// askAsApp is what the test binary does as an app: it gets a token and prints it.
func askAsApp() error {
	req, err := http.NewRequest(http.MethodGet, os.Getenv("IDENTITY_ENDPOINT")+"?api-version=2019-08-01&resource="+vault, nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var v struct {
		Token string `json:"access_token"`
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &v); err != nil || v.Token == "" {
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	fmt.Print(v.Token)
	return nil
}

func TestAGenerationEndsWithItsLastProcessNotItsFirst(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	if a.Assurance() < innate.CgroupUID {
		t.Skip("without cgroups the first process stands for all")
	}
	run := a.run(t, "api", "/usr/bin/env; echo .; exec 3<&0; (read x <&3) & exit 0")
	env := run.environ(t)
	<-run.ended
	if status, err := ask(t, env, ""); status != http.StatusUnauthorized {
		t.Errorf("the first process has ended, another lives: got %d %v, want the endpoint to serve on", status, err)
	}
	run.in.Close()
	eventually(t, "the endpoint closes", func() bool { _, err := ask(t, env, ""); return errors.Is(err, unix.ECONNREFUSED) })
}

func TestAnAppThatIsTakenOffTheHostEndsAtOnce(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(func(c *agent.Config) { c.Grace = 200 * time.Millisecond })
	run := a.run(t, "api", "trap '' TERM; /usr/bin/env; echo .; while :; do sleep 1; done")
	env := run.environ(t)
	p.tell(row(apiApp), nil)
	<-run.ended
	if run.status != 128+int(syscall.SIGKILL) {
		t.Errorf("a program that does not heed SIGTERM ended with %d %v", run.status, run.err)
	}
	if _, err := ask(t, env, ""); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("its port: got %v, want a refused connection", err)
	}
	if run = a.run(t, "api", "true"); run.err == nil || !strings.Contains(run.err.Error(), "is placed on this host") {
		t.Errorf("running what is gone: got %v", run.err)
	}
}

func TestTheEndOfWhoeverRunsItEndsTheProgram(t *testing.T) {
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: a.socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	if _, _, err := c.WriteMsgUnix([]byte(`{"op":"run","app":"api","args":["/bin/sleep","60"],"dir":"/"}`+"\n"), unix.UnixRights(fd, fd, fd), nil); err != nil {
		t.Fatal(err)
	}
	if l, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(l, `"started"`) {
		t.Fatalf("got %q %v", l, err)
	}
	if n := len(a.Status().Generations); n != 1 {
		t.Errorf("%d generations run, want 1", n)
	}
	c.Close()
	eventually(t, "the program ends", func() bool { return len(a.Status().Generations) == 0 })
}

func TestSignalsReachTheProgram(t *testing.T) {
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	signals := make(chan os.Signal, 1)
	go func() {
		bufio.NewReader(outR).ReadString('\n') // the trap is set
		signals <- syscall.SIGUSR1
	}()
	status, err := agent.Run(a.socket(), agent.RunRequest{
		App: "api", Args: []string{"/bin/sh", "-c", "trap 'exit 42' USR1; echo; while :; do sleep 0.05; done"}, Dir: "/",
		Env: []string{"PATH=/bin:/usr/bin"}, Stdout: outW, Signals: signals,
	})
	outW.Close()
	if status != 42 || err != nil {
		t.Errorf("got %d %v, want 42", status, err)
	}
}

func TestOnlyWhoIsListedMayRunAsAnApp(t *testing.T) {
	for _, c := range []struct {
		name  string
		dev   bool
		runAs []uint32
		by    uint32
		may   bool
	}{
		{"root", false, nil, 0, true},
		{"somebody", false, nil, 1234, false},
		{"somebody who is listed", false, []uint32{1, 1234}, 1234, true},
		{"somebody, in development", true, nil, 1234, false},
		{"the developer, in development", true, nil, uint32(os.Getuid()), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlane(t)
			pl := app()
			pl.RunAs, pl.MinimumAssurance = c.runAs, innate.SecretOnly
			p.place(pl)
			a := p.start(func(cfg *agent.Config) { cfg.Dev = c.dev })
			g, err := a.Start(t.Context(), agent.RunRequest{App: "api", Args: []string{"/bin/true", "--password=x"}, Dir: "/"}, c.by)
			if c.may != (err == nil) {
				t.Fatalf("got %v, want permission %v", err, c.may)
			}
			if err == nil {
				<-g.Over()
			} else if want := fmt.Sprintf("uid %d may not run as Api", c.by); !strings.Contains(err.Error(), want) {
				t.Errorf("got %q, want %q in it", err, want)
			}
			for ev, err := range audit.Read(filepath.Join(a.dir, "state", "audit.log")) {
				if err != nil {
					t.Fatal(err)
				}
				if ev.Action == "run-app" && (ev.Allowed != c.may || ev.Detail["uid"] != fmt.Sprint(c.by) || ev.Detail["program"] != "true") {
					t.Errorf("recorded %+v", ev)
				}
			}
		})
	}
}

func TestAnAppKeepsItsUIDAndNoOtherGetsIt(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives apps uids of their own")
	}
	p := newPlane(t)
	other := innate.ResourceID(prefix + "Microsoft.Web/sites/other")
	p.place(app())
	p.place(client.Placement{Resource: other})
	a := p.start(nil)
	uid := func(app innate.ResourceID) uint32 {
		t.Helper()
		g, err := a.Start(t.Context(), agent.RunRequest{App: string(app), Args: []string{"/bin/true"}, Dir: "/"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		<-g.Over()
		return g.Started().UID
	}
	first, second, again := uid(apiApp), uid(other), uid(apiApp)
	if first != again || first == second || first == 0 || second == 0 {
		t.Errorf("got uids %d, %d and %d", first, second, again)
	}
}

func TestALentEndpointServesUntilItIsGivenBack(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	ctx, giveBack := context.WithCancel(t.Context())
	defer giveBack()
	list, err := a.Lend(ctx, apiApp)
	if err != nil {
		t.Fatal(err)
	}
	env := variables(list)
	if status, err := ask(t, env, env["IDENTITY_HEADER"]); status != http.StatusOK {
		t.Errorf("got %d %v, want a token", status, err)
	}
	giveBack()
	eventually(t, "the endpoint closes", func() bool { _, err := ask(t, env, ""); return errors.Is(err, unix.ECONNREFUSED) })
}

func TestNoEndpointIsLentInProduction(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(func(c *agent.Config) { c.Dev = false })
	if _, err := a.Lend(t.Context(), apiApp); err == nil {
		t.Error("an endpoint was lent")
	}
}
