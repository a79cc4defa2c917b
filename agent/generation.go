package agent

import (
	"context"
	crypto "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/caller"
	"innate/agent/launch"
	"innate/agent/opener"
	"innate/audit"
	"innate/feed/client"
)

// Started says where an app runs.
type Started struct {
	App        innate.ResourceID `json:"app"`
	Generation int               `json:"generation"`
	PID        int               `json:"pid"` // of its first process
	UID        uint32            `json:"uid"`
	Port       int               `json:"port"`             // of its endpoint on 127.0.0.1
	Endpoint   appservice.Shape  `json:"endpoint"`         // how it speaks; empty: as App Service
	Serves     int               `json:"serves,omitempty"` // port at which the program itself is to listen; 0: none was given
	Cgroup     string            `json:"cgroup,omitempty"` // directory; empty where the agent may make none
	Isolated   bool              `json:"isolated,omitempty"`
	Unit       string            `json:"unit,omitempty"`             // of the service manager, which starts and ends its programs; empty: we do
	Assurance  innate.Assurance  `json:"assurance"`                  // how surely its calls are recognised
	Why        string            `json:"notBetterBecause,omitempty"` // no more surely
	Created    time.Time         `json:"created"`
}

// A birth is what was made together for a generation, is used together and ends
// together (host-attestation §7): by it a generation is known again. The secret
// itself is the app's alone.
type birth struct {
	Started
	CgroupID uint64            `json:"cgroupId,omitempty"` // a directory made again under the same name has another
	Secret   [sha256.Size]byte `json:"secret"`             // its SHA-256
}

// A Generation is one run of an app.
type Generation struct {
	birth

	home     *opener.Home    // nil: lent, there is none
	diag     *caller.Diag    // of its own network namespace; nil: the host's sees its callers
	process  *opener.Process // nil: lent, there is none, or a unit's, which we do not know
	endpoint *appservice.Endpoint
	secrets  *secrets // nil: no setting refers to one
	logins   *logins  // nil: it has no log-in at a PostgreSQL server
	share    float64  // of the age that it may get: not all are replaced at once
	end      context.CancelFunc
	rush     func()        // closes rushed
	rushed   chan struct{} // no grace, or no longer
	serving  atomic.Bool   // it is well, or nobody asks
	begun    chan struct{} // closed when all above is there
	exited   chan struct{} // closed when the first process has ended
	status   int           // of the first process, as a shell counts; read after exited
	err      error         // why there is no status; read after exited
	lastGone chan struct{} // closed when the last process has ended
	over     chan struct{} // closed when everything of it is gone
}

func newGeneration(app innate.ResourceID, number int, now time.Time) *Generation {
	g := &Generation{
		birth: birth{Started: Started{
			App: app, Generation: number, UID: uint32(os.Getuid()), Assurance: innate.SecretOnly, Created: now,
		}},
		share: 0.9 + rand.Float64()/10, rushed: make(chan struct{}), begun: make(chan struct{}), exited: make(chan struct{}),
		lastGone: make(chan struct{}), over: make(chan struct{}),
	}
	g.rush = sync.OnceFunc(func() { close(g.rushed) })
	return g
}

// End asks the processes to end and, after Config.Grace, kills them. The endpoint
// serves until they have ended. It does not wait.
func (g *Generation) End() { g.end() }

// Over is closed when the last process is gone and the endpoint with it.
func (g *Generation) Over() <-chan struct{} { return g.over }

// Kill is End without a grace.
func (g *Generation) Kill() {
	g.rush()
	g.end()
}

func (g *Generation) starting() bool {
	select {
	case <-g.begun:
		return false
	default:
		return true
	}
}

// members counts its processes; 0: it is not known.
func (g *Generation) members() int {
	if g.home == nil {
		return 0
	}
	return g.home.Members()
}

func (g *Generation) state() string {
	select {
	case <-g.exited:
		return "ending"
	default:
	}
	if g.serving.Load() {
		return "serving"
	}
	return "starting"
}

// A program is what a generation runs.
type program struct {
	args                  []string
	dir                   string
	env                   []string
	stdin, stdout, stderr *os.File
	told                  *os.File         // the other end of stdout and stderr; nil: they are the program's own
	instance              string           // id of the one that it is a run of
	shape                 appservice.Shape // of its endpoint
	isolate               bool
	user                  string          // of the host; empty: the app's own
	service               *opener.Service // a unit that the service manager is about to start; nil: args are started
	serves                bool            // it listens where PORT says: there is a path to ask whether it is well
}

// start makes all that is a generation, and the process among it. The
// generation ends with ctx; nil means with the agent.
func (s *apps) start(ctx context.Context, p *client.Placement, r program) (*Generation, []string, error) {
	g, ctx, err := s.add(ctx, p.Resource)
	if err != nil {
		return nil, nil, err
	}
	env, err := s.begin(ctx, g, p, r)
	if err != nil {
		s.discard(g)
		return nil, nil, err
	}
	return g, env, nil
}

// begin is start for a generation that has its place; env is what its programs are given.
func (s *apps) begin(ctx context.Context, g *Generation, p *client.Placement, r program) (env []string, err error) {
	a := s.agent
	if err = s.settle(ctx, g, r); err != nil {
		return nil, err
	}
	values, err := s.resolve(ctx, g, p)
	if err != nil {
		return nil, err
	}
	settings := pairs(values)
	if r.serves {
		if g.Serves, err = servesAt(g.home, p.Settings); err != nil {
			return nil, err
		}
		settings = append(settings, "PORT="+strconv.Itoa(g.Serves))
	}
	g.Endpoint = r.shape
	endpoint, told, err := s.endpoint(g, g.home.Listener)
	if err != nil {
		return nil, err
	}
	logins, err := s.logIn(ctx, g, p, r.env, settings)
	if err != nil {
		return nil, err
	}
	env = environment(told, a.direct(), r.env, a.config.Env, logins, settings)
	serving, shut := g.serve(ctx, endpoint)
	if err = s.record(ctx, "start-app", g, nil); err == nil {
		err = g.run(r, env, a.local == nil)
	}
	if err != nil {
		shut()
		<-serving
		return nil, err
	}
	close(g.begun)
	if g.secrets != nil {
		g.secrets.follow(ctx, g)
	}
	if g.logins != nil {
		g.logins.follow(ctx)
	}
	go s.attend(ctx, g, serving, shut)
	return env, nil
}

// run starts the first process, unless that is a service manager's to do, and
// writes the generation down when it is to outlive this agent.
func (g *Generation) run(r program, env []string, outlives bool) (err error) {
	if r.service == nil {
		files := [3]*os.File{r.stdin, r.stdout, r.stderr}
		if g.process, err = g.home.Start(opener.Program{Args: r.args, Dir: r.dir, Env: env}, files); err != nil {
			return err
		}
		g.PID = g.process.PID
	}
	if outlives {
		if err = g.note(r); err != nil && g.process != nil {
			err = errors.Join(err, g.home.Kill())
		}
	}
	return err
}

// serve has the endpoint of g answer before the app can ask, and until it can ask
// no more: a program that is asked to end may have calls to finish.
func (g *Generation) serve(ctx context.Context, e *appservice.Endpoint) (serving <-chan error, shut func()) {
	g.endpoint = e
	open, shut := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		ended <- e.Run(open)
	}()
	return ended, shut
}

// settle makes the home of g, and what sees its callers there.
func (s *apps) settle(ctx context.Context, g *Generation, r program) (err error) {
	here := s.agent.host()
	if g.home, err = opener.Make(ctx, s.agent.opener, opener.Want{App: g.App, Number: g.Generation, Isolate: r.isolate, User: r.user, Service: r.service}); err != nil {
		return err
	}
	g.UID, g.Cgroup, g.CgroupID, g.Isolated = g.home.UID, g.home.Cgroup, g.home.CgroupID, g.home.Isolated
	if r.service != nil {
		g.Unit = r.service.Unit
	}
	g.Assurance = here.proofOf(r.isolate)
	if why := here.why(); why != nil {
		g.Why = why.Error()
	}
	if r.isolate {
		g.diag, err = g.home.Diag()
	}
	return err
}

// sees is what asks the kernel about the callers of g; nil: nothing can be asked.
func (s *apps) sees(g *Generation) *caller.Diag {
	if g.Isolated {
		return g.diag
	}
	return s.agent.host().diag
}

// discard takes back a generation that did not start.
func (s *apps) discard(g *Generation) {
	s.takeAway(g)
	close(g.exited)
	s.remove(g)
}

// takeAway removes what was made for g, when its processes are gone.
func (s *apps) takeAway(g *Generation) {
	var errs []error
	if g.secrets != nil {
		g.secrets.close()
	}
	if g.logins != nil {
		g.logins.close()
	}
	if g.diag != nil {
		errs = append(errs, g.diag.Close())
	}
	if g.home != nil && (g.Unit == "" || !s.ending()) { // a unit goes on, and a next agent may find it as it was
		errs = append(errs, g.home.Remove())
	}
	if err := errors.Join(errs...); err != nil {
		s.agent.config.Log.Warn("removing what was made for an app", "app", g.App, "generation", g.Generation, "err", err)
	}
}

// directoryName tells apps of one name in several groups apart.
func directoryName(app innate.ResourceID) string {
	sum := sha256.Sum256([]byte(app.Key()))
	return app.Name() + "-" + hex.EncodeToString(sum[:4])
}

// endpoint makes a generation's secret and what serves on l. The secret is kept
// by the endpoint as a hash, and by the app; env is what tells the app.
func (s *apps) endpoint(g *Generation, l *net.TCPListener) (_ *appservice.Endpoint, env []string, err error) {
	var random [32]byte
	crypto.Read(random[:]) // never fails, see crypto/rand
	secret := hex.EncodeToString(random[:])
	g.Port = l.Addr().(*net.TCPAddr).Port
	g.Secret = sha256.Sum256([]byte(secret))
	c := s.endpointConfig(g, l)
	c.Secret = secret
	if g.Endpoint == appservice.Arc {
		if c.Challenges, err = g.home.Folder(opener.Challenges); err != nil {
			return nil, nil, err
		}
	}
	e, err := appservice.New(c)
	if err != nil {
		return nil, nil, err
	}
	return e, e.Environment(secret), nil
}

// endpointConfig is what serves a generation on l, but for its secret.
func (s *apps) endpointConfig(g *Generation, l *net.TCPListener) appservice.Config {
	a := s.agent
	c := appservice.Config{
		Generation: appservice.Generation{App: g.App, Number: g.Generation, UID: g.UID, Cgroup: g.CgroupID, Proof: g.Assurance},
		Shape:      g.Endpoint, Client: a.defaultClient(g.App),
		Listener: l, Tokens: a, Audit: a.audit, Log: a.config.Log, Now: a.config.Now,
	}
	if g.CgroupID != 0 && a.host().search {
		c.Generation.Held = g.home.Held
	}
	if g.home != nil && g.home.Service != nil && g.home.Service.Delegated {
		c.Generation.Below = func(id uint64) bool { return launch.Holds(g.Cgroup, id) }
	}
	if d := s.sees(g); d != nil && g.home != nil {
		c.Attestor = d
	}
	return c
}

// attend sees a generation to its end: its last process gone, or told to end.
func (s *apps) attend(ctx context.Context, g *Generation, serving <-chan error, shut func()) {
	a := s.agent
	if g.Unit != "" {
		s.attendUnit(ctx, g, serving, shut)
		return
	}
	go func() {
		defer close(g.exited)
		g.status, g.err = g.process.Wait()
	}()
	go func() {
		defer close(g.lastGone)
		if g.Cgroup == "" {
			<-g.exited
		}
		<-g.home.Empty(context.Background())
	}()
	select {
	case <-g.lastGone:
	case <-ctx.Done():
		s.terminate(g)
	case err := <-serving: // what was created together ends together
		if a.leaves() {
			return
		}
		a.config.Log.Error("an app's endpoint ended by itself; the app ends with it", "app", g.App, "generation", g.Generation, "err", err)
		s.terminate(g)
	}
	within(g.lastGone, dying)
	shut()
	if err := <-serving; err != nil {
		a.config.Log.Warn("closing an app's endpoint", "app", g.App, "generation", g.Generation, "err", err)
	}
	<-g.exited
	s.takeAway(g)
	if err := s.record(context.WithoutCancel(ctx), "end-app", g, map[string]string{"status": strconv.Itoa(g.status)}); err != nil {
		a.config.Log.Warn("recording the end of an app", "app", g.App, "generation", g.Generation, "err", err)
	}
	s.remove(g)
}

// record writes down what becomes of a generation.
func (s *apps) record(ctx context.Context, action string, g *Generation, detail map[string]string) error {
	a := s.agent
	if detail == nil {
		detail = map[string]string{}
	}
	detail["generation"] = strconv.Itoa(g.Generation)
	if g.Unit != "" {
		detail["unit"] = g.Unit
	}
	return a.audit.Record(ctx, audit.Event{
		Time: a.config.Now(), Action: action, Allowed: true, Target: string(g.App), Name: g.App.Name(),
		Host: string(a.machine.Machine), Assurance: g.Assurance, Detail: detail,
	})
}

// dying is how long a killed process may take to be gone before its endpoint is shut.
const dying = time.Second

// terminate asks the processes of g to end, and kills what is left after the grace.
func (s *apps) terminate(g *Generation) {
	a := s.agent
	if err := g.home.Signal(syscall.SIGTERM); err != nil {
		a.config.Log.Warn("asking an app to end", "app", g.App, "generation", g.Generation, "err", err)
	}
	late := time.NewTimer(a.config.Grace)
	defer late.Stop()
	select {
	case <-g.lastGone:
		return
	case <-g.rushed:
	case <-late.C:
	}
	if err := g.home.Kill(); err != nil {
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
