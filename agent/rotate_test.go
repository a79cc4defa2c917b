package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate/agent"
	"innate/feed/client"
)

// serveAsApp is what the test binary does as a service: it shares its port with
// another generation of itself, and is as well as HEALTH says.
func serveAsApp() error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, ctl)
	}}
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	if os.Getenv("HEALTH") == "ends" {
		return errors.New("not today")
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" || os.Getenv("HEALTH") != "well" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
}

// service runs the test binary as a service, detached.
func (r running) service(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	public := filepath.Join(r.dir, "program")
	copyFile(t, self, public)
	if _, err := agent.Run(r.socket(), agent.RunRequest{App: "api", Args: []string{public, "serve"}, Dir: "/", Env: plain, Detach: true}); err != nil {
		t.Fatal(err)
	}
}

func TestARotationWaitsUntilTheNewGenerationIsWell(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := fmt.Sprint(taken.Addr().(*net.TCPAddr).Port)
	taken.Close()
	for _, c := range []struct {
		name string
		then string            // HEALTH of the second generation
		port map[string]string // settings of the port; none: each generation has one of its own
		why  string            // the rotation fails; "": it does not
	}{
		{"it is", "well", nil, ""},
		{"it is, at the port of the old one", "well", map[string]string{"WEBSITES_PORT": free}, ""},
		{"it answers 503", "ill", nil, "503"},
		// The old one, which is well, has the port too, and the kernel gives it every other question.
		{"it answers 503 at the port of the old one", "ill", map[string]string{"PORT": free}, "not well"},
		{"it ends", "ends", nil, "ended with exit code 1"},
		{"its port makes no sense", "well", map[string]string{"PORT": "http"}, "want a port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlane(t)
			place := func(health string, port map[string]string) {
				pl := app()
				pl.HealthCheck, pl.Settings = "/health", map[string]string{"HEALTH": health}
				for name, value := range port {
					pl.Settings[name] = value
				}
				p.place(pl)
			}
			first := c.port
			if c.port["PORT"] == "http" {
				first = nil
			}
			place("well", first)
			a := p.start(func(c *agent.Config) { c.Well = time.Second })
			if a.Status().Why != "" {
				t.Skip(a.Status().Why) // who answers is not proved
			}
			a.service(t)
			place(c.then, c.port)
			place(c.then, c.port)
			p.tell(row("/subscriptions/x/resourceGroups/y/providers/Microsoft.Web/sites/last"), client.Placement{Resource: "/subscriptions/x/resourceGroups/y/providers/Microsoft.Web/sites/last"})
			eventually(t, "the feed has told", func() bool { return len(a.Status().Placements) == 2 })
			err := agent.Rotate(a.socket(), "api", 0, false)
			want := []int{2}
			if c.why != "" {
				want = []int{1}
			}
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why) || !strings.Contains(err.Error(), "generation 1 goes on")) {
				t.Errorf("got %v, want %q in it", err, c.why)
			}
			if got := a.generations(); !slices.Equal(got, want) {
				t.Errorf("generations %v run, want %v", got, want)
			}
		})
	}
}

func TestAfterARotationTheOldSecretIsWorthless(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	if a.Status().Why != "" {
		t.Skip(a.Status().Why)
	}
	run := a.run(t, "api", printEnvironment)
	one := run.environ(t)
	rotated := make(chan error, 1)
	go func() { rotated <- agent.Rotate(a.socket(), "api", 1, false) }()
	two := run.environ(t) // the same output, written by the new one
	if status, err := ask(t, one, ""); status != http.StatusUnauthorized {
		t.Errorf("the old one, while the new one is looked at: got %d %v, want it to serve", status, err)
	}
	if err := <-rotated; err != nil {
		t.Fatal(err)
	}
	if one["IDENTITY_HEADER"] == two["IDENTITY_HEADER"] || one["IDENTITY_ENDPOINT"] == two["IDENTITY_ENDPOINT"] {
		t.Error("the new one has the secret or the port of the old one")
	}
	if status, err := ask(t, one, one["IDENTITY_HEADER"]); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the old port: got %d %v, want a refused connection", status, err)
	}
	if status, _ := ask(t, two, one["IDENTITY_HEADER"]); status != http.StatusUnauthorized {
		t.Errorf("the old secret at the new port: got %d, want 401", status)
	}
	if status, _ := ask(t, two, two["IDENTITY_HEADER"]); status != http.StatusForbidden {
		t.Errorf("the new secret from elsewhere: got %d, want 403", status)
	}
	select {
	case <-run.ended:
		t.Errorf("the run ended with its first generation: %d %v", run.status, run.err)
	default:
	}
}

func TestAnEmergencyRotationGivesNoGrace(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(func(c *agent.Config) { c.Grace = time.Hour })
	a.detach(t, agent.RunRequest{}, "trap '' TERM; while :; do sleep 1; done")
	if err := agent.Rotate(a.socket(), "api", 0, true); err != nil {
		t.Fatal(err)
	}
	if got := a.generations(); !slices.Equal(got, []int{2}) {
		t.Errorf("generations %v run, want the second", got)
	}
	if err := agent.End(a.socket(), "api", 0, true); err != nil {
		t.Fatal(err)
	}
}

func TestAGenerationGetsAsOldAsItsAppLets(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	a.detach(t, agent.RunRequest{Check: []string{"/bin/test", "-n", "$IDENTITY_HEADER"}}, "exec sleep 60")
	never, soon := time.Duration(0), 200*time.Millisecond
	pl := app()
	pl.MaxGenerationAge = &soon // it runs already
	p.place(pl)
	eventually(t, "it is replaced again and again", func() bool { g := a.generations(); return len(g) > 0 && g[0] > 2 })
	pl.MaxGenerationAge = &never
	p.place(pl)
	eventually(t, "one is left", func() bool { return len(a.generations()) == 1 })
}

func TestACommandMaySayWhetherAProgramIsWell(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app())
	a := p.start(func(c *agent.Config) { c.Well = time.Second })
	a.detach(t, agent.RunRequest{Check: []string{"/bin/false"}}, "exec sleep 60")
	if err := agent.Rotate(a.socket(), "api", 0, false); err == nil || !strings.Contains(err.Error(), "/bin/false ended with exit code 1") {
		t.Errorf("got %v", err)
	}
	if got := a.generations(); !slices.Equal(got, []int{1}) {
		t.Errorf("generations %v run, want the first", got)
	}
}
