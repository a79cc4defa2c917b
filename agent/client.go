package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/opener"
)

// A RunRequest is a program to run as an app.
type RunRequest struct {
	App                   string           // name or id of an app placed on the host, or id of the machine itself
	Endpoint              appservice.Shape // where the program looks for its identity; empty: App Service's, and on the machine Arc's
	Args                  []string
	Dir                   string
	Env                   []string         // the app's settings and the variables of its endpoint come on top
	Stdin, Stdout, Stderr *os.File         // nil: /dev/null
	Signals               <-chan os.Signal // passed on to the program; may be nil
	OnStart               func(Started)    // called once, before Run returns; may be nil
	Restart               Restart          // empty means no
	Detach                bool             // run on without the client: what it writes is kept by the agent (see Logs)
	Isolate               bool             // in a network namespace of its own, with nothing but loopback in it
	Check                 []string         // command that ends with 0 when a generation is well; empty: the app's path, if it has one
	User                  string           // name or uid of a user of the host to run it under, for root; empty: the app's own uid
}

// Run asks the agent at socket to run a program as an app, and returns the
// program's exit code as a shell counts it. The program ends when this process
// does. One that runs detached goes on, and Run returns once it has started.
func Run(socket string, r RunRequest) (int, error) {
	q := request{
		Op: "run", App: r.App, Endpoint: r.Endpoint, Args: r.Args, Dir: r.Dir, Env: r.Env,
		Restart: r.Restart, Detach: r.Detach, Isolate: r.Isolate, Check: r.Check, User: r.User,
	}
	l, err := dial(socket)
	if err != nil {
		return 0, err
	}
	defer func() { l.close() }()
	if r.Detach {
		err = l.send(q)
	} else {
		err = l.sendWith(q, r.Stdin, r.Stdout, r.Stderr)
	}
	if err != nil {
		return 0, fmt.Errorf("asking the agent: %w", err)
	}
	first, err := l.report()
	if err != nil {
		return 0, err
	}
	if first.Started == nil {
		return 0, errors.New("the agent did not say what it started")
	}
	if r.OnStart != nil {
		r.OnStart(*first.Started)
	}
	if r.Detach {
		return 0, nil
	}
	status, err := l.exit(r.Signals)
	for errors.Is(err, errHungUp) && first.Instance != "" {
		again, lost := rejoin(socket, first.Instance)
		if lost != nil {
			return 0, lost
		}
		l.close()
		l = again
		status, err = l.exit(r.Signals)
	}
	return status, err
}

// returning is how long a client waits for an agent that hung up to come back.
const returning = 15 * time.Second

// rejoin goes on with an instance after the agent hung up.
func rejoin(socket, instance string) (*line, error) {
	late := time.Now().Add(returning)
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		l, err := dial(socket)
		if err == nil {
			if err = l.send(request{Op: "rejoin", Instance: instance}); err == nil {
				if _, err = l.report(); err == nil {
					return l, nil
				}
			}
			l.close()
		}
		var gone *net.OpError
		if !errors.Is(err, errHungUp) && !errors.As(err, &gone) && !errors.Is(err, errNoAgent) || time.Now().After(late) {
			return nil, err
		}
		time.Sleep(pause)
	}
}

// errHungUp means that the agent ended before it had answered.
var errHungUp = errors.New("the agent ended, or hung up")

// errNoAgent means that nobody answers on the socket.
var errNoAgent = errors.New("no agent answers")

// A ConsoleRequest is a program to run beside a running app.
type ConsoleRequest struct {
	App                   string // name or id of an app that runs on the host
	Generation            int    // 0 means the oldest
	Args                  []string
	Stdin, Stdout, Stderr *os.File         // nil: /dev/null
	Signals               <-chan os.Signal // passed on to the program; may be nil
}

// Exec asks the agent at socket to run a program in a running app's
// surroundings, and returns its exit code as a shell counts it. The program ends
// when this process or the app does.
func Exec(socket string, r ConsoleRequest) (int, error) {
	l, err := dial(socket)
	if err != nil {
		return 0, err
	}
	defer l.close()
	q := request{Op: "exec", App: r.App, Generation: r.Generation, Args: r.Args}
	if err := l.sendWith(q, r.Stdin, r.Stdout, r.Stderr); err != nil {
		return 0, fmt.Errorf("asking the agent: %w", err)
	}
	return l.exit(r.Signals)
}

// sendWith sends a request with the files of a program; nil is /dev/null.
func (l *line) sendWith(q request, in, out, diagnostics *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	return l.send(q, cmp.Or(in, null), cmp.Or(out, null), cmp.Or(diagnostics, null))
}

// exit passes signals on until the program has ended, and returns its exit code.
func (l *line) exit(signals <-chan os.Signal) (int, error) {
	ended := make(chan struct{})
	defer close(ended)
	go l.signals(signals, ended)
	last, err := l.report()
	if err != nil {
		return 0, err
	}
	if last.Exit == nil {
		return 0, errors.New("the agent did not say how the program ended")
	}
	return *last.Exit, nil
}

// signals passes signals on until ended.
func (l *line) signals(signals <-chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			if n, ok := s.(syscall.Signal); ok && l.send(note{int(n)}) != nil {
				return // the agent is gone: Run hears so too
			}
		case <-ended:
			return
		}
	}
}

// End asks the agent at socket to end what runs of an app, and returns when it
// is over. Generation 0 means all; with now they are killed at once.
func End(socket, app string, generation int, now bool) error {
	_, err := ask(socket, request{Op: "end", App: app, Generation: generation, Now: now})
	return err
}

// Rotate asks the agent at socket to put new generations of an app in the place
// of those that run, and returns when the old ones are over. Generation 0 means
// all; with now the old ones are killed, without a grace.
func Rotate(socket, app string, generation int, now bool) error {
	_, err := ask(socket, request{Op: "rotate", App: app, Generation: generation, Now: now})
	return err
}

// ReadRunning asks the agent at socket what runs of the apps that the caller may run.
func ReadRunning(socket string) ([]Running, error) {
	r, err := ask(socket, request{Op: "ps"})
	return r.Running, err
}

// ReadVariables asks the agent at socket for the environment of a running app
// (generation 0: the oldest), each NAME=VALUE, with secrets masked.
func ReadVariables(socket, app string, generation int) ([]string, error) {
	r, err := ask(socket, request{Op: "env", App: app, Generation: generation})
	return r.Env, err
}

// Logs asks the agent at socket for what an app wrote while it ran detached, and
// with follow for what it writes from now on, until ctx ends.
func Logs(ctx context.Context, socket, app string, follow bool, to io.Writer) error {
	l, err := dial(socket)
	if err != nil {
		return err
	}
	defer l.close()
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	if err := l.send(request{Op: "logs", App: app, Follow: follow}); err != nil {
		return fmt.Errorf("asking the agent: %w", err)
	}
	for {
		r, err := l.report()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil || r.Done:
			return err
		}
		if _, err := to.Write(r.Text); err != nil {
			return err
		}
	}
}

// Attach asks the agent at socket to serve the metadata service to a VM at a place.
func Attach(socket, vm string, at Place) error {
	var files []*os.File
	if at.NetNS != "" {
		ns, err := os.Open(at.NetNS)
		if err != nil {
			return fmt.Errorf("opening the VM's network namespace: %w", err)
		}
		defer ns.Close()
		files = append(files, ns)
		if at.NetNS, err = filepath.Abs(at.NetNS); err != nil {
			return err
		}
	}
	_, err := ask(socket, request{Op: "attach", VM: vm, Place: &at}, files...)
	return err
}

// Detach is the inverse of Attach.
func Detach(socket, vm string) error {
	_, err := ask(socket, request{Op: "detach", VM: vm})
	return err
}

// AttachUnit asks the agent at socket whether a unit may be an app, for a drop-in to say so.
func AttachUnit(socket, app, unit string) (Attachment, error) {
	r, err := ask(socket, request{Op: "attach-unit", App: app, Unit: unit})
	if err != nil {
		return Attachment{}, err
	}
	if r.Attachment == nil {
		return Attachment{}, errors.New("the agent did not say what the unit is")
	}
	return *r.Attachment, nil
}

// DetachUnit asks the agent at socket to close the endpoints of a unit, or of a
// template's instances, that was an app.
func DetachUnit(socket string, app innate.ResourceID, unit string) error {
	_, err := ask(socket, request{Op: "detach-unit", App: string(app), Unit: unit})
	return err
}

// A UnitStart is a unit that its service manager is about to start.
type UnitStart struct {
	App        string // name or id
	Service    opener.Service
	Invocation string   // the manager's id of this start, for the record
	Env        []string // what the unit has by itself
}

// StartUnit asks the agent at socket for a generation, and returns the variables
// that the unit is to have beside its own. An agent that starts, too, is waited for.
func StartUnit(socket string, u UnitStart) ([]string, error) {
	q := request{Op: "start-unit", App: u.App, Service: &u.Service, Invocation: u.Invocation, Env: u.Env}
	late := time.Now().Add(returning)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		r, err := ask(socket, q)
		if !errors.Is(err, errNoAgent) && !errors.Is(err, errHungUp) || time.Now().After(late) {
			return r.Env, err
		}
		time.Sleep(pause)
	}
}

// ReadStatus asks the agent at socket what it is, holds and runs.
func ReadStatus(socket string) (Status, error) {
	r, err := ask(socket, request{Op: "status"})
	if err != nil {
		return Status{}, err
	}
	if r.Status == nil {
		return Status{}, errors.New("the agent did not tell its status")
	}
	return *r.Status, nil
}

// ask sends a request and returns its only answer. It asks an agent that comes back
// again, if asking twice does no harm.
func ask(socket string, q request, files ...*os.File) (r report, err error) {
	for range 3 {
		if r, err = askOnce(socket, q, files...); !errors.Is(err, errHungUp) || q.Op == "rotate" || q.Op == "attach" {
			break
		}
	}
	return r, err
}

func askOnce(socket string, q request, files ...*os.File) (report, error) {
	l, err := dial(socket)
	if err != nil {
		return report{}, err
	}
	defer l.close()
	if err := l.send(q, files...); err != nil {
		return report{}, fmt.Errorf("asking the agent: %w", err)
	}
	return l.report()
}

// dial connects to an agent, or says what to do about a socket that does not answer.
func dial(socket string) (*line, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	switch {
	case err == nil:
		return &line{conn: c}, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w at %s: start 'innate dev' or 'innate agent', or name its socket with --agent or INNATE_AGENT_SOCKET", errNoAgent, socket)
	}
	return nil, fmt.Errorf("asking the agent at %s: %w", socket, err)
}

// report reads the agent's next answer; one that says no is an error.
func (l *line) report() (r report, err error) {
	if err := l.receive(&r); err != nil {
		return r, fmt.Errorf("%w: %w", errHungUp, err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}
