package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/launch"
	"innate/agent/opener"
)

// Where the opener is a process of its own, apps outlive the agent: it writes down
// with the opener what each generation and each instance is, and the next agent
// goes on with them. What it cannot read, or does not find whole, it ends.

const (
	// finishing bounds the wait for requests that are being answered when the agent leaves.
	finishing = 5 * time.Second
	// rejoining is how long a program waits for the client that its agent lost.
	rejoining = 30 * time.Second
)

// leaves reports whether what runs is left to a next agent.
func (a *Agent) leaves() bool {
	select {
	case <-a.leaving:
		return true
	default:
		return false
	}
}

// finish answers the requests that were read, and accepts no more.
func (a *Agent) finish() {
	ctx, cancel := context.WithTimeout(context.Background(), finishing)
	defer cancel()
	var all sync.WaitGroup
	leave := func(who string, of innate.ResourceID, end func(context.Context) error) {
		all.Go(func() {
			if err := end(ctx); err != nil {
				a.config.Log.Warn("leaving before all requests were answered", who, of, "err", err)
			}
		})
	}
	a.apps.mu.Lock()
	for g := range a.apps.all {
		if !g.starting() {
			leave("app", g.App, g.endpoint.Leave)
		}
	}
	a.apps.mu.Unlock()
	a.metadata.mu.Lock()
	for _, at := range a.metadata.attached {
		leave("vm", at.vm, at.http.Finish)
	}
	a.metadata.mu.Unlock()
	all.Wait()
	a.apps.reading.Wait()
	select {
	case <-a.quiet: // who asks on the socket was answered
	case <-ctx.Done():
	}
}

// met notes that the client of an instance is back; done is called when it has heard all.
func (i *Instance) met() (done func()) {
	i.meeting.Do(func() { close(i.back) })
	return i.heard
}

// instance finds one by its id.
func (s *apps) instance(id string) *Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if i.ID == id {
			return i
		}
	}
	return nil
}

// takeUp goes on with what an earlier agent left with the opener.
func (a *Agent) takeUp(ctx context.Context) error {
	if a.local != nil {
		return nil
	}
	left, err := opener.ReadLeft(a.opener)
	if err != nil {
		return err
	}
	instances := map[string]*Instance{}
	for _, id := range left.Kept {
		i, err := a.readInstance(id)
		if err != nil {
			a.config.Log.Error("an app's program is not known any more; it is ended", "err", err)
			opener.Forget(a.opener, id)
			continue
		}
		i.lasting, i.end = context.WithCancel(ctx)
		i.agentEnds = ctx.Done()
		instances[id] = i
	}
	for _, id := range left.Homes {
		if err := a.takeUpHome(ctx, id, instances); err != nil {
			a.config.Log.Error("an app cannot be taken up", "generation", id, "err", err)
		}
	}
	for _, i := range instances {
		a.goOn(i)
	}
	for _, f := range left.Spots {
		a.metadata.running.Go(func() { a.takeUpSpot(ctx, f) })
	}
	return nil
}

// takeUpSpot goes on with the metadata service of a VM, once it is known whether
// the VM is placed here.
func (a *Agent) takeUpSpot(ctx context.Context, f opener.Found) {
	vm := innate.ResourceID(f.Note)
	for known := false; !known; {
		moved := a.placed.next()
		if _, known = a.placed.get(vm); known {
			break
		}
		select {
		case <-a.ready:
			known = true
		case <-moved:
		case <-ctx.Done():
			return
		case <-a.leaving:
			return
		}
	}
	if err := a.metadata.attach(vm, f.Again(a.opener)); err != nil {
		a.config.Log.Error("a VM cannot be taken up", "vm", vm, "err", err)
	}
}

// readInstance reads what an earlier agent wrote down of an instance.
func (a *Agent) readInstance(id string) (*Instance, error) {
	b, files, err := opener.ReadKept(a.opener, id)
	if err != nil {
		return nil, err
	}
	giveBack := sync.OnceFunc(func() {
		for _, f := range files {
			f.Close()
		}
	})
	var n instanceNote
	if err := json.Unmarshal(b, &n); err != nil || n.App == "" || len(n.Args) == 0 {
		giveBack()
		return nil, errors.Join(err, fmt.Errorf("instance %s is not written down whole", id))
	}
	i := &Instance{
		App: n.App, ID: id, apps: a.apps, by: n.By, restart: n.Restart, check: n.Check, close: giveBack,
		program: program{args: n.Args, dir: n.Dir, env: n.Env, shape: n.Shape, isolate: n.Isolate, user: n.User},
		orders:  make(chan rotation), exited: make(chan struct{}), over: make(chan struct{}), note: &n,
	}
	if n.Detach {
		if i.journal, err = a.journals.of(n.App); err != nil {
			return nil, err
		}
		return i, nil
	}
	i.client, i.back = make(chan struct{}), make(chan struct{})
	i.heard = sync.OnceFunc(func() { close(i.client) })
	if len(files) == 3 {
		i.program.stdin, i.program.stdout, i.program.stderr = files[0], files[1], files[2]
	} else if !n.Ended {
		i.restart = RestartNo // it has no files to run with
	}
	return i, nil
}

// takeUpHome goes on with a generation, or ends it.
func (a *Agent) takeUpHome(ctx context.Context, id string, instances map[string]*Instance) error {
	left, err := opener.TakeUp(a.opener, id)
	if err != nil {
		return err
	}
	var n generationNote
	err = json.Unmarshal(left.Note, &n)
	i := instances[n.Instance]
	whole := err == nil && n.Cgroup == left.Cgroup && n.CgroupID == left.CgroupID && n.UID == left.UID
	if left.Service != nil {
		whole = whole && n.Unit == left.Service.Unit
	} else {
		whole = whole && i != nil && left.First != nil
	}
	if !whole {
		for _, f := range left.Files {
			f.Close()
		}
		return errors.Join(errors.New("it was just starting, or is not written down whole"), endLeft(left))
	}
	g := newGeneration(n.App, n.Generation, n.Created)
	g.birth, g.share, g.home, g.process = n.birth, n.Share, left.Home, left.First
	if i != nil {
		ctx = i.lasting // it ends with its program
	}
	if err := a.apps.again(ctx, g, n, left); err != nil {
		return errors.Join(err, endLeft(left))
	}
	if i == nil {
		return nil
	}
	if len(left.Files) == 1 && i.journal != nil {
		i.tell(left.Files[0], g)
	}
	if i.note.Home == id {
		i.now = g
	} else {
		i.former = append(i.former, g)
	}
	return nil
}

// endLeft ends what cannot be taken up. Of a unit only the endpoint is ours to end.
func endLeft(left *opener.Again) error {
	if left.Service != nil {
		return errors.Join(fmt.Errorf("it has no identity until 'systemctl restart %s'", left.Service.Unit), left.Home.Remove())
	}
	return errors.Join(left.Kill(), left.Home.Remove())
}

// again serves a generation that runs.
func (s *apps) again(ctx context.Context, g *Generation, n generationNote, left *opener.Again) (err error) {
	if g.Isolated {
		if g.diag, err = g.home.Diag(); err != nil {
			return err
		}
	}
	c := s.endpointConfig(g, left.Listener)
	c.Kept = &n.Kept
	if f := left.Made(opener.Challenges); f != nil {
		c.Challenges = f
	}
	e, err := appservice.New(c)
	if err != nil {
		return err
	}
	s.mu.Lock()
	ctx, g.end = context.WithCancel(ctx)
	s.numbers[g.App.Key()] = max(s.numbers[g.App.Key()], g.Generation)
	s.all[g] = true
	s.running.Add(1)
	s.mu.Unlock()
	g.serving.Store(true)
	serving, shut := g.serve(ctx, e)
	close(g.begun)
	if f := left.Made(opener.Secrets); f != nil && n.Secrets != nil {
		g.secrets = n.Secrets.again(s.agent, g, f)
		g.secrets.follow(ctx, g)
	}
	if f := left.Made(opener.Logins); f != nil {
		g.logins = newLogins(s.agent, g)
		g.logins.files = f
		g.logins.takeUp(ctx)
	}
	go s.attend(ctx, g, serving, shut)
	return nil
}

// goOn supervises an instance from here on.
func (a *Agent) goOn(i *Instance) {
	s := a.apps
	s.mu.Lock()
	s.kept[i] = true
	s.running.Add(1)
	s.numbers[i.App.Key()] = max(s.numbers[i.App.Key()], i.note.number())
	s.mu.Unlock()
	for _, g := range i.former { // another has followed it, or was to: which one serves is written down
		if g.Generation > i.note.number() {
			g.Kill()
			continue
		}
		i.retire(g)
	}
	lost := i.now == nil
	if lost {
		i.now = lostGeneration(i)
	}
	if i.client != nil {
		go i.await(i.lasting)
	}
	again := i.restart == RestartAlways || i.restart == RestartOnFailure
	if i.note.Ended || lost && !again {
		go i.conclude(lost)
		return
	}
	go i.supervise(i.lasting, lost)
}

// lostGeneration stands for one that is over.
func lostGeneration(i *Instance) *Generation {
	g := newGeneration(i.App, i.note.number(), i.apps.agent.config.Now().UTC())
	g.home = opener.Lost(i.note.Home)
	g.status, g.err = i.note.Status, launch.ErrUnknownStatus
	close(g.begun)
	close(g.exited)
	close(g.lastGone)
	close(g.over)
	return g
}

// number is that of the generation that served.
func (n *instanceNote) number() (number int) {
	at := slices.Index([]byte(n.Home), '/')
	fmt.Sscanf(n.Home[at+1:], "g%d", &number)
	return number
}

// conclude tells the client of an instance that is not started again how it ended.
func (i *Instance) conclude(lost bool) {
	defer i.apps.left(i)
	defer close(i.over)
	i.status = i.note.Status
	switch {
	case i.note.Why != "":
		i.err = errors.New(i.note.Why)
	case lost && !i.note.Ended:
		i.err = errors.New("the agent ended, and what ran could not be kept")
	}
	i.close()
	close(i.exited)
	<-i.now.over
	i.ending.Wait()
}

// await ends a program whose client does not come back.
func (i *Instance) await(ctx context.Context) {
	late := time.NewTimer(rejoining)
	defer late.Stop()
	select {
	case <-i.back:
	case <-i.exited:
	case <-ctx.Done():
	case <-late.C:
		i.apps.agent.config.Log.Warn("nobody came back for a program that was run; it is ended", "app", i.App)
		i.End()
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
