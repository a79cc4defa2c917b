package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"innate"
	"innate/audit"
	"innate/feed/client"
)

// A Restart says when a program that has ended is started again.
type Restart string

// When it is.
const (
	RestartNo        Restart = "no"
	RestartOnFailure Restart = "on-failure" // it ended with another exit code than 0
	RestartAlways    Restart = "always"
)

const (
	firstPause   = 100 * time.Millisecond // before a program is started again; doubled each time
	longestPause = time.Minute
	longRun      = 10 * time.Second // a program that ran so long is not in a loop of failing
)

// An Instance is a program that is kept running as an app: one generation after
// the other, and two beside each other while it is rotated.
type Instance struct {
	App innate.ResourceID
	ID  string // random; who has it and started the instance may come back to it

	apps    *apps
	by      uint32 // uid of who started it
	program program
	restart Restart
	check   []string      // command that says whether a generation is well; empty: the app's path, if it has one
	journal *journal      // nil: the program writes to files of its own
	close   func()        // gives the program's files back
	orders  chan rotation // what to do with it next
	end     context.CancelFunc
	leave   atomic.Bool   // let it end: it is not started again
	exited  chan struct{} // closed when it is not started again
	status  int           // of the last first process; read after exited
	err     error         // why there is no status; read after exited
	over    chan struct{} // closed when everything of it is gone

	// Of one that was taken up from an earlier agent.
	note      *instanceNote
	former    []*Generation // beside the one that serves
	meeting   sync.Once
	back      chan struct{} // closed when its client is back; nil: it runs detached
	client    chan struct{} // closed when the client has heard all
	heard     func()        // closes client
	agentEnds <-chan struct{}
	lasting   context.Context // ends with it

	// Of the goroutine that supervises.
	ending    sync.WaitGroup // generations that another has followed
	notBefore time.Time      // for the next rotation by age

	mu  sync.Mutex
	now *Generation // the one that serves; never nil once Start has returned
}

func (i *Instance) current() *Generation {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.now
}

func (i *Instance) turn(to *Generation) {
	to.serving.Store(true)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now = to
	i.write(instanceNote{Home: to.home.ID})
}

// Started says where it runs now.
func (i *Instance) Started() Started { return i.current().Started }

// Wait waits until the program has ended and is not started again, and returns
// its exit code as a shell counts it. What it started may live on.
func (i *Instance) Wait() (int, error) {
	<-i.exited
	return i.status, i.err
}

// Over is closed when the last process is gone and the endpoint with it.
func (i *Instance) Over() <-chan struct{} { return i.over }

// End ends it for good, its last generation with the grace. It does not wait.
func (i *Instance) End() { i.end() }

// Kill is End without a grace.
func (i *Instance) Kill() {
	i.current().rush()
	i.end()
}

// Start runs a program as an app that is placed on this host, for a local user
// (uid) who may: root, the uids that the app lists and, in development, the
// agent's own. It takes the files of r over. Signals and OnStart of r are not
// looked at.
func (a *Agent) Start(ctx context.Context, r RunRequest, by uint32) (_ *Instance, err error) {
	files := []*os.File{r.Stdin, r.Stdout, r.Stderr}
	giveBack := sync.OnceFunc(func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	})
	defer func() {
		if err != nil {
			giveBack()
		}
	}()
	p, err := a.runnable(ctx, r.App)
	if err != nil {
		return nil, err
	}
	if err := r.check(a.host().facts.Root()); err != nil {
		return nil, err
	}
	ev := a.appEvent("run-app", p, by)
	ev.Assurance, ev.Detail["program"] = a.host().proofOf(r.Isolate), filepath.Base(r.Args[0])
	refused := a.mayRun(p, by)
	if refused == nil {
		refused = a.suffices(p, ev.Assurance)
	}
	if r.User != "" {
		ev.Detail["user"] = r.User
		if refused == nil {
			refused = a.lendsUser(r.User, by, ev.Assurance)
		}
	}
	if err := a.decide(ctx, ev, refused); err != nil {
		return nil, err
	}
	i := &Instance{
		App: p.Resource, ID: innate.NewGUID(), apps: a.apps, by: by, restart: r.Restart, check: r.Check, close: giveBack,
		program: program{
			args: r.Args, dir: r.Dir, env: r.Env, stdin: r.Stdin, stdout: r.Stdout, stderr: r.Stderr,
			shape: shapeOf(p, r), isolate: r.Isolate, user: r.User,
		},
		orders: make(chan rotation), exited: make(chan struct{}), over: make(chan struct{}),
	}
	if r.Detach {
		if i.journal, err = a.journals.of(p.Resource); err != nil {
			return nil, err
		}
	}
	lasting, err := a.apps.keep(i)
	if err != nil {
		return nil, err
	}
	g, err := i.start(lasting)
	if err != nil {
		a.apps.left(i)
		return nil, err
	}
	i.turn(g)
	go i.supervise(lasting, false)
	return i, nil
}

func (r RunRequest) check(root bool) error {
	switch {
	case len(r.Args) == 0:
		return errors.New("nothing to start: no program was given")
	case !slices.Contains([]Restart{"", RestartNo, RestartOnFailure, RestartAlways}, r.Restart):
		return fmt.Errorf("restart %q: want no, on-failure or always", r.Restart)
	case r.Isolate && !root:
		return errors.New("a network namespace of its own: only an agent that is root can make one")
	}
	return nil
}

// appEvent is what is recorded of what a local user asks for with an app.
func (a *Agent) appEvent(action string, p *client.Placement, by uint32) audit.Event {
	return audit.Event{
		Time: a.config.Now(), Action: action, Target: string(p.Resource), Name: p.Name, Host: string(a.machine.Machine),
		Detail: map[string]string{"uid": strconv.Itoa(int(by))},
	}
}

// decide records a decision and returns it: refused says why it is no, nil that it is yes.
func (a *Agent) decide(ctx context.Context, ev audit.Event, refused error) error {
	if ev.Allowed = refused == nil; !ev.Allowed {
		ev.Why = refused.Error()
	}
	if err := a.audit.Record(ctx, ev); err != nil {
		return fmt.Errorf("recording the decision: %w", err)
	}
	return refused
}

// mayRun refuses who may not run as an app: running as it is being it (design §5).
func (a *Agent) mayRun(p *client.Placement, by uint32) error {
	if a.rules(by) || slices.Contains(p.RunAs, by) {
		return nil
	}
	return &innate.Refusal{
		Status: http.StatusForbidden, OAuth: "access_denied",
		Text: fmt.Sprintf("uid %d may not run as %s: root may, and the uids in the app's properties.runAs, which has %v", by, p.Name, p.RunAs),
	}
}

// rules reports whether a local user may do everything with every app.
func (a *Agent) rules(by uint32) bool { return by == 0 || a.config.Dev && by == uint32(os.Getuid()) }

// start starts a generation under the placement as it is now.
func (i *Instance) start(ctx context.Context) (*Generation, error) {
	a := i.apps.agent
	p, ok := a.placed.get(i.App)
	if !ok {
		return nil, fmt.Errorf("%s was taken off this host", i.App.Name())
	}
	r := i.program
	r.serves = len(i.check) == 0 && p.HealthCheck != ""
	var told *os.File
	if i.journal != nil {
		var err error
		if told, r.stdout, err = os.Pipe(); err != nil {
			return nil, err
		}
		defer r.stdout.Close()
		r.stderr = r.stdout
	}
	r.told, r.instance = told, i.ID
	g, _, err := i.apps.start(ctx, p, r)
	switch {
	case told == nil:
	case err != nil:
		told.Close()
	default:
		i.tell(told, g)
	}
	return g, err
}

// tell has the journal read what g writes.
func (i *Instance) tell(told *os.File, g *Generation) {
	i.apps.reading.Go(func() { i.journal.follow(told, g, i.apps.agent.leaving) })
}

// supervise keeps the program running until it has ended, is told to, or the
// app is taken off this host. With lost its generation is over already, and it is
// started again.
func (i *Instance) supervise(ctx context.Context, lost bool) {
	defer i.apps.left(i)
	defer close(i.over)
	pause := firstPause
	if lost {
		pause = i.resume(ctx, i.current(), pause)
	}
	for {
		g := i.current()
		moved := i.apps.agent.placed.next()
		old := time.NewTimer(i.due(g))
		select {
		case <-g.exited:
			old.Stop()
		case q := <-i.orders:
			old.Stop()
			q.done <- i.rotate(ctx, q.now)
			continue
		case <-old.C:
			i.age(ctx)
			continue
		case <-moved: // it may be allowed to get older, or less old
			old.Stop()
			continue
		}
		if i.apps.agent.leaves() {
			return
		}
		if ctx.Err() != nil || i.leave.Load() || !i.again(g) {
			i.status, i.err = g.status, g.err
			i.write(instanceNote{Home: g.home.ID, Ended: true, Status: i.status, Why: text(i.err)})
			i.close()
			close(i.exited)
			<-g.over
			i.ending.Wait()
			return
		}
		i.retire(g) // what its first process left behind
		if i.apps.agent.config.Now().Sub(g.Created) > longRun {
			pause = firstPause
		}
		pause = i.resume(ctx, g, pause)
	}
}

// again reports whether a program that ended so is to be started again.
func (i *Instance) again(g *Generation) bool {
	return i.restart == RestartAlways || i.restart == RestartOnFailure && (g.status != 0 || g.err != nil)
}

// resume starts the program again after a pause, and again when it does not
// start, until ctx ends; it returns the next pause. A rotation that is asked for
// meanwhile is a start at once.
func (i *Instance) resume(ctx context.Context, g *Generation, pause time.Duration) time.Duration {
	log := i.apps.agent.config.Log.With("app", i.App, "generation", g.Generation)
	log.Warn("an app ended; it is started again", "status", g.status, "in", pause)
	for {
		wait := time.NewTimer(pause - rand.N(pause/10))
		var asked chan<- rotated
		select {
		case <-wait.C:
		case q := <-i.orders:
			asked = q.done
		case <-ctx.Done():
		}
		wait.Stop()
		if ctx.Err() != nil {
			return pause
		}
		pause = min(2*pause, longestPause)
		next, err := i.start(ctx)
		if err == nil {
			i.turn(next)
		} else {
			log.Error("starting an app again", "err", err, "again in", pause)
		}
		if asked != nil {
			asked <- rotated{err: err}
		}
		if err == nil {
			return pause
		}
	}
}
