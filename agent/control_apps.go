package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"
)

const (
	// lingering is how long the end of a run is held back for the end of what its
	// first process left behind: mostly nothing, and then it is over with it.
	lingering = time.Second
	logPiece  = 32 << 10 // bytes of a log in one message
	// logPatience is how long a reader of a log may pause.
	logPatience = 10 * time.Minute
)

// tend answers what is asked of apps that run.
func (a *Agent) tend(ctx context.Context, q request, by uint32) (report, error) {
	switch q.Op {
	case "ps":
		return report{Running: a.running(by)}, nil
	case "env":
		env, err := a.Variables(ctx, q.App, q.Generation, by)
		return report{Env: env}, err
	case "rotate":
		return report{Done: true}, a.rotateApp(ctx, q, by)
	}
	return report{Done: true}, a.endApp(ctx, q, by)
}

// running lists the generations of the apps that a local user may run or look into.
func (a *Agent) running(by uint32) []Running {
	return slices.DeleteFunc(a.apps.list(), func(r Running) bool {
		p, ok := a.placed.get(r.App)
		return !trusted(by) && (!ok || a.mayRun(p, by) != nil && !slices.Contains(p.ConsoleFor, by))
	})
}

// endApp ends instances of an app and waits until they are over.
func (a *Agent) endApp(ctx context.Context, q request, by uint32) error {
	found, err := a.instancesFor(ctx, "stop-app", q, by)
	if err != nil {
		return err
	}
	for _, i := range found {
		if q.Now {
			i.Kill()
		}
		i.End()
	}
	for _, i := range found {
		select {
		case <-i.Over():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// rotateApp rotates instances of an app, one after the other: never are all of them new at once.
func (a *Agent) rotateApp(ctx context.Context, q request, by uint32) error {
	found, err := a.instancesFor(ctx, "rotate-app", q, by)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range found {
		errs = append(errs, i.Rotate(ctx, q.Now))
	}
	return errors.Join(errs...)
}

// instancesFor finds what q is about, for a local user who may run as the app, and records that it was asked for.
func (a *Agent) instancesFor(ctx context.Context, action string, q request, by uint32) ([]*Instance, error) {
	p, err := a.runnable(ctx, q.App)
	if err != nil {
		return nil, err
	}
	if err := a.decide(ctx, a.appEvent(action, p, by), a.mayRun(p, by)); err != nil {
		return nil, err
	}
	found := a.apps.instances(p.Resource, q.Generation)
	if len(found) == 0 {
		return nil, a.apps.noGeneration(p, q.Generation)
	}
	return found, nil
}

// stdio takes the three files that came with a request.
func (a *Agent) stdio(l *line, op string) (in, out, diagnostics *os.File, err error) {
	if len(l.files) != 3 {
		return nil, nil, nil, fmt.Errorf("%s wants three open files, standard input, output and error: %d came", op, len(l.files))
	}
	f := l.files
	l.files = nil
	return f[0], f[1], f[2], nil
}

// serveRun starts an app with the client's files as its own, passes signals on,
// and tells how it ended. It ends the app when the client hangs up. One that is
// to run detached is only started.
func (a *Agent) serveRun(ctx context.Context, l *line, q request, by uint32) {
	r := RunRequest{
		App: q.App, Endpoint: q.Endpoint, Args: q.Args, Dir: q.Dir, Env: q.Env, Restart: q.Restart, Detach: q.Detach, Isolate: q.Isolate, Check: q.Check,
		User: q.User,
	}
	if !q.Detach {
		var err error
		if r.Stdin, r.Stdout, r.Stderr, err = a.stdio(l, "run"); err != nil {
			a.answer(l, report{}, err)
			return
		}
	}
	i, err := a.Start(ctx, r, by)
	if err != nil {
		a.answer(l, report{}, err)
		return
	}
	started := i.Started()
	a.answer(l, report{Started: &started, Instance: i.ID}, nil)
	if !q.Detach {
		a.see(l, i)
	}
}

// see passes signals on to an instance and tells how it ended.
func (a *Agent) see(l *line, i *Instance) {
	if !a.accompany(l, i.exited, i.signal, i.End) {
		return
	}
	status, err := i.Wait()
	within(i.Over(), lingering)
	a.answer(l, report{Exit: &status}, err)
}

// serveRejoin goes on with a client whose line was cut when an agent ended.
func (a *Agent) serveRejoin(l *line, q request, by uint32) {
	i := a.apps.instance(q.Instance)
	if i == nil || i.by != by {
		a.answer(l, report{}, errors.New("the agent ended, and what ran could not be kept, or has ended by now"))
		return
	}
	done := i.met()
	defer done()
	started := i.Started()
	a.answer(l, report{Started: &started, Instance: i.ID}, nil)
	a.see(l, i)
}

// signal passes a signal to the program. After one by which somebody ends it, it
// is not started again.
func (i *Instance) signal(sig syscall.Signal) error {
	switch sig {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM:
		i.leave.Store(true)
	}
	return i.current().process.Signal(sig)
}

// serveConsole does the same for a program beside a running app.
func (a *Agent) serveConsole(ctx context.Context, l *line, q request, by uint32) {
	r := ConsoleRequest{App: q.App, Generation: q.Generation, Args: q.Args}
	var err error
	if r.Stdin, r.Stdout, r.Stderr, err = a.stdio(l, "exec"); err != nil {
		a.answer(l, report{}, err)
		return
	}
	c, err := a.Console(ctx, r, by)
	for _, f := range []*os.File{r.Stdin, r.Stdout, r.Stderr} { // the program has its own
		f.Close()
	}
	if err != nil {
		a.answer(l, report{}, err)
		return
	}
	exited := make(chan struct{})
	var status int
	go func() {
		defer close(exited)
		status, err = c.Wait()
	}()
	if !a.accompany(l, exited, func(sig syscall.Signal) error { return c.process.Signal(sig) }, func() { c.end(exited) }) {
		return
	}
	a.answer(l, report{Exit: &status}, err)
}

// accompany passes on what the client sends until the program has exited, and
// reports whether it has: the agent may leave before. When the client hangs up
// before, it ends the program and does not wait.
func (a *Agent) accompany(l *line, exited <-chan struct{}, signal func(syscall.Signal) error, end func()) bool {
	l.conn.SetReadDeadline(time.Time{})
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for {
			var n note
			if err := l.receive(&n); err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
					a.config.Log.Debug("hearing the client of a run", "err", err)
				}
				break
			}
			if err := signal(syscall.Signal(n.Signal)); err != nil && !errors.Is(err, os.ErrProcessDone) {
				a.config.Log.Debug("passing a signal on", "signal", n.Signal, "err", err)
			}
		}
		select {
		case <-exited: // told, or about to be
		case <-a.leaving:
		default:
			end()
		}
	}()
	select {
	case <-exited:
	case <-a.leaving:
	}
	l.conn.SetReadDeadline(time.Now())
	<-heard
	return !a.leaves()
}

// serveLogs sends what an app has written while it ran detached, and with
// follow what it writes until the client hangs up or is too slow.
func (a *Agent) serveLogs(ctx context.Context, l *line, q request, by uint32) {
	r, err := a.readLog(ctx, q.App, by)
	if err != nil {
		a.answer(l, report{}, err)
		return
	}
	defer r.close()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() }) // a reader who pauses does not hold us up
	defer stop()
	gone := make(chan struct{})
	l.conn.SetReadDeadline(time.Time{})
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		var n note
		for l.receive(&n) == nil {
		}
		close(gone)
	}()
	defer func() {
		l.conn.SetReadDeadline(time.Now())
		<-heard
	}()
	b := make([]byte, logPiece)
	for {
		n, more, err := r.read(b)
		switch {
		case err != nil:
			a.answer(l, report{}, fmt.Errorf("reading the log: %w", err))
			return
		case n > 0:
			l.conn.SetWriteDeadline(time.Now().Add(logPatience))
			if l.send(report{Text: b[:n]}) != nil {
				return
			}
			continue
		case !q.Follow:
			a.answer(l, report{Done: true}, nil)
			return
		}
		select {
		case <-more:
		case <-gone:
			return
		case <-a.leaving:
			return
		case <-ctx.Done():
			return
		}
	}
}

// readLog opens an app's log for a local user who may run it or look into it.
func (a *Agent) readLog(ctx context.Context, app string, by uint32) (*journalReader, error) {
	p, err := a.runnable(ctx, app)
	if err != nil {
		return nil, err
	}
	refused := a.mayRun(p, by)
	if slices.Contains(p.ConsoleFor, by) {
		refused = nil
	}
	if err := a.decide(ctx, a.appEvent("read-app-log", p, by), refused); err != nil {
		return nil, err
	}
	j, err := a.journals.of(p.Resource)
	if err != nil {
		return nil, err
	}
	return &journalReader{of: j}, nil
}
