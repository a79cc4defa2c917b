package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/caller"
	"innate/agent/launch"
	"innate/audit"
	"innate/feed/client"
)

// Started says where an app runs.
type Started struct {
	App        innate.ResourceID `json:"app"`
	Generation int               `json:"generation"`
	PID        int               `json:"pid"`
	UID        uint32            `json:"uid"`
	Port       int               `json:"port"`             // of its endpoint on 127.0.0.1
	Endpoint   appservice.Shape  `json:"endpoint"`         // how it speaks; empty: as App Service
	Cgroup     string            `json:"cgroup,omitempty"` // directory; empty where the agent may make none
	Assurance  innate.Assurance  `json:"assurance"`        // how surely its calls are recognised
}

// A Generation is one run of an app: cgroup, uid, port and secret, created
// together, ended together with its last process (host-attestation §7).
type Generation struct {
	Started

	process *launch.Process // nil: lent, there is none
	cgroup  *launch.Cgroup  // nil: none may be made
	end     context.CancelFunc
	exited  chan struct{} // closed when the first process has ended
	status  int           // of the first process, as a shell counts; read after exited
	err     error         // why there is no status; read after exited
	over    chan struct{} // closed when everything of it is gone
}

// Wait waits for the end of the process that was started and returns its exit
// code as a shell counts it. What that process started may live on.
func (g *Generation) Wait() (int, error) {
	<-g.exited
	return g.status, g.err
}

// Over is closed when the last process is gone and the endpoint with it.
func (g *Generation) Over() <-chan struct{} { return g.over }

// End closes the endpoint, asks the processes to end and, after Config.Grace, kills them. It does not wait.
func (g *Generation) End() { g.end() }

// apps are the generations on this host.
type apps struct {
	agent   *Agent
	running sync.WaitGroup

	mu      sync.Mutex
	ctx     context.Context // of Agent.Run; nil when it is not running
	numbers map[string]int  // the newest generation's, by app key
	all     map[*Generation]bool
}

func newApps(a *Agent) *apps {
	return &apps{agent: a, numbers: map[string]int{}, all: map[*Generation]bool{}}
}

// open lets apps start, until ctx ends.
func (s *apps) open(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
}

// wait returns when every generation is over; none starts any more.
func (s *apps) wait() {
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.running.Wait()
}

// gone ends the generations of an app that is no longer placed here.
func (s *apps) gone(app innate.ResourceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.all {
		if g.App.Equal(app) {
			g.End()
		}
	}
}

// list returns what runs, by app and age.
func (s *apps) list() []Started {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Started
	for g := range s.all {
		all = append(all, g.Started)
	}
	slices.SortFunc(all, func(a, b Started) int {
		return cmp.Or(strings.Compare(a.App.Key(), b.App.Key()), a.Generation-b.Generation)
	})
	return all
}

// find returns a generation of an app; number 0 means the oldest.
func (s *apps) find(app innate.ResourceID, number int) (found *Generation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.all {
		if g.App.Equal(app) && (g.Generation == number || number == 0 && (found == nil || g.Generation < found.Generation)) {
			found = g
		}
	}
	return found
}

// add makes a place for a new generation.
func (s *apps) add(app innate.ResourceID) (*Generation, context.Context, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || s.ctx.Err() != nil {
		return nil, nil, errors.New("the agent is ending: start the app again when it is back")
	}
	if _, ok := s.agent.placed.get(app); !ok { // from here on, gone finds it
		return nil, nil, fmt.Errorf("%s was just taken off this host", app.Name())
	}
	s.numbers[app.Key()]++
	ctx, end := context.WithCancel(s.ctx)
	g := &Generation{
		Started: Started{App: app, Generation: s.numbers[app.Key()], Assurance: innate.SecretOnly, UID: uint32(os.Getuid())},
		end:     end, exited: make(chan struct{}), over: make(chan struct{}),
	}
	s.all[g] = true
	s.running.Add(1)
	return g, ctx, nil
}

// remove takes away what add made, when all of g is gone.
func (s *apps) remove(g *Generation) {
	g.end()
	s.mu.Lock()
	delete(s.all, g)
	s.mu.Unlock()
	close(g.over)
	s.running.Done()
}

// Start runs a program as an app that is placed on this host, for a local user
// (uid) who may: root, the uids that the app lists and, in development, the
// agent's own. Signals and OnStart of r are not looked at.
func (a *Agent) Start(ctx context.Context, r RunRequest, by uint32) (*Generation, error) {
	p, err := a.runnable(ctx, r.App)
	if err != nil {
		return nil, err
	}
	if len(r.Args) == 0 {
		return nil, errors.New("nothing to start: no program was given")
	}
	ev := audit.Event{
		Time: a.config.Now(), Action: "run-app", Target: string(p.Resource), Name: p.Name, Host: string(a.machine.Machine),
		Assurance: a.Assurance(), Detail: map[string]string{"uid": strconv.Itoa(int(by)), "program": filepath.Base(r.Args[0])},
	}
	err = a.mayRun(p, by)
	if err == nil {
		err = a.suffices(p, a.Assurance())
	}
	if ev.Allowed = err == nil; !ev.Allowed {
		ev.Why = err.Error()
	}
	if recording := a.audit.Record(ctx, ev); recording != nil {
		return nil, fmt.Errorf("recording who runs the app: %w", recording)
	}
	if err != nil {
		return nil, err
	}
	return a.apps.start(p, r)
}

// mayRun refuses who may not run as an app: running as it is being it (design §5).
func (a *Agent) mayRun(p *client.Placement, by uint32) error {
	if by == 0 || slices.Contains(p.RunAs, by) || a.config.Dev && by == uint32(os.Getuid()) {
		return nil
	}
	return &innate.Refusal{
		Status: http.StatusForbidden, OAuth: "access_denied",
		Text: fmt.Sprintf("uid %d may not run as %s: root may, and the uids in the app's properties.runAs, which has %v", by, p.Name, p.RunAs),
	}
}

// start makes the five things that are a generation, and the process among them.
func (s *apps) start(p *client.Placement, r RunRequest) (_ *Generation, err error) {
	a, here := s.agent, s.agent.host()
	g, ctx, err := s.add(p.Resource)
	if err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			s.discard(g)
		}
	}()
	if os.Getuid() == 0 {
		if g.UID, err = a.uids.of(p.Resource); err != nil {
			return nil, err
		}
	}
	g.Assurance, g.Endpoint = here.assurance, shapeOf(p, r)
	if here.cgroups != nil {
		if g.cgroup, err = here.cgroups.Make(directoryName(p.Resource) + "/g" + strconv.Itoa(g.Generation)); err != nil {
			return nil, err
		}
		g.Cgroup = g.cgroup.Path()
	}
	endpoint, env, err := s.endpoint(g, here.diag)
	if err != nil {
		return nil, err
	}
	spec := launch.Spec{
		Args: r.Args, Dir: r.Dir, Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr,
		Env:    environment(env, a.direct(), r.Env, a.config.Env, pairs(p.Settings)),
		Cgroup: g.cgroup, UID: g.UID, Stub: a.config.Stub,
	}
	if here.mounts == nil {
		spec.Hosts, spec.Hide = a.config.Hosts, a.config.Hide
	}
	if g.Endpoint == appservice.Arc {
		spec.Show = []launch.Shown{{Dir: a.challenges(g), At: appservice.ChallengeDir}}
	}
	// The endpoint serves before the app can ask.
	serving := make(chan error, 1)
	go func() {
		defer close(serving)
		serving <- endpoint.Run(ctx)
	}()
	if g.process, err = launch.Start(spec); err != nil {
		g.end()
		<-serving
		return nil, err
	}
	g.PID = g.process.PID
	started = true
	go s.supervise(ctx, g, serving)
	return g, nil
}

// discard takes back a generation that did not start.
func (s *apps) discard(g *Generation) {
	if g.cgroup != nil {
		if err := g.cgroup.Remove(); err != nil {
			s.agent.config.Log.Warn("removing a cgroup", "err", err)
		}
	}
	close(g.exited)
	s.remove(g)
}

// directoryName tells apps of one name in several groups apart.
func directoryName(app innate.ResourceID) string {
	sum := sha256.Sum256([]byte(app.Key()))
	return app.Name() + "-" + hex.EncodeToString(sum[:4])
}

// endpoint makes a generation's port and secret. The secret is kept by the
// endpoint as a hash, and by the app; env is what tells the app.
func (s *apps) endpoint(g *Generation, diag *caller.Diag) (_ *appservice.Endpoint, env []string, err error) {
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("opening the app's endpoint: %w", err)
	}
	var random [32]byte
	rand.Read(random[:]) // never fails, see crypto/rand
	secret := hex.EncodeToString(random[:])
	a := s.agent
	c := appservice.Config{
		Generation: appservice.Generation{App: g.App, Number: g.Generation, UID: g.UID, Proof: g.Assurance},
		Shape:      g.Endpoint, Challenges: a.challenges(g), Client: a.defaultClient(g.App),
		Listener: l, Secret: secret, Tokens: a, Audit: a.audit, Log: a.config.Log, Now: a.config.Now,
	}
	if g.cgroup != nil {
		c.Generation.Cgroup = g.cgroup.ID
		if a.host().search {
			c.Generation.Procs = g.cgroup.Path()
		}
	}
	if diag != nil {
		c.Attestor = diag
	}
	e, err := appservice.New(c)
	if err != nil {
		l.Close()
		return nil, nil, err
	}
	g.Port = l.Addr().(*net.TCPAddr).Port
	return e, e.Environment(secret), nil
}

// supervise sees a generation to its end: its last process gone, the app taken
// off this host, or the agent ending.
func (s *apps) supervise(ctx context.Context, g *Generation, serving <-chan error) {
	a := s.agent
	go func() {
		defer close(g.exited)
		g.status, g.err = g.process.Wait()
	}()
	last := g.lastGone(a)
	select {
	case <-last:
	case <-ctx.Done():
		s.terminate(g, last)
	case err := <-serving: // what was created together ends together
		if ctx.Err() == nil {
			a.config.Log.Error("an app's endpoint ended by itself; the app ends with it", "app", g.App, "generation", g.Generation, "err", err)
		}
		s.terminate(g, last)
	}
	g.end()
	if err := <-serving; err != nil {
		a.config.Log.Warn("closing an app's endpoint", "app", g.App, "generation", g.Generation, "err", err)
	}
	<-g.exited
	if g.cgroup != nil {
		if err := g.cgroup.Remove(); err != nil {
			a.config.Log.Warn("removing an app's cgroup", "app", g.App, "generation", g.Generation, "err", err)
		}
	}
	err := a.audit.Record(context.WithoutCancel(ctx), audit.Event{
		Time: a.config.Now(), Action: "end-app", Allowed: true, Target: string(g.App), Host: string(a.machine.Machine),
		Detail: map[string]string{"generation": strconv.Itoa(g.Generation), "status": strconv.Itoa(g.status)},
	})
	if err != nil {
		a.config.Log.Warn("recording the end of an app", "app", g.App, "generation", g.Generation, "err", err)
	}
	s.remove(g)
}

// lastGone is closed when the last process of g has ended: the kernel says so of
// a cgroup; without one, the first process's end must do.
func (g *Generation) lastGone(a *Agent) <-chan struct{} {
	if g.cgroup == nil {
		return g.exited
	}
	empty, err := g.cgroup.Empty()
	if err != nil {
		a.config.Log.Warn("watching an app's cgroup; its first process stands for all", "app", g.App, "err", err)
		return g.exited
	}
	return empty
}

// terminate asks the processes of g to end, and kills what is left after the grace.
func (s *apps) terminate(g *Generation, last <-chan struct{}) {
	a := s.agent
	if err := g.process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.config.Log.Warn("asking an app to end", "app", g.App, "generation", g.Generation, "err", err)
	}
	if within(last, a.config.Grace) {
		return
	}
	err := errors.ErrUnsupported
	if g.cgroup != nil {
		err = g.cgroup.Kill()
	}
	if err != nil {
		err = g.process.Signal(syscall.SIGKILL)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.config.Log.Warn("killing an app", "app", g.App, "generation", g.Generation, "err", err)
	}
}

// within reports whether done is closed before d has passed.
func within(done <-chan struct{}, d time.Duration) bool {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	}
}
