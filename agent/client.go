package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"innate/agent/appservice"
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
}

// Run asks the agent at socket to run a program as an app, and returns the
// program's exit code as a shell counts it. The program ends when this process does.
func Run(socket string, r RunRequest) (int, error) {
	l, err := dial(socket)
	if err != nil {
		return 0, err
	}
	defer l.close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	q := request{Op: "run", App: r.App, Endpoint: r.Endpoint, Args: r.Args, Dir: r.Dir, Env: r.Env}
	if err := l.send(q, cmp.Or(r.Stdin, null), cmp.Or(r.Stdout, null), cmp.Or(r.Stderr, null)); err != nil {
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
	ended := make(chan struct{})
	defer close(ended)
	go l.signals(r.Signals, ended)
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

// End asks the agent at socket to end a generation of an app, and returns when
// it is over; generation 0 means the oldest.
func End(socket, app string, generation int) error {
	_, err := ask(socket, request{Op: "end", App: app, Generation: generation})
	return err
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

// ask sends a request and returns its only answer.
func ask(socket string, q request, files ...*os.File) (report, error) {
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
		return nil, fmt.Errorf("no agent answers at %s: start 'innate dev' or 'innate agent', or name its socket with --agent or INNATE_AGENT_SOCKET", socket)
	}
	return nil, fmt.Errorf("asking the agent at %s: %w", socket, err)
}

// report reads the agent's next answer; one that says no is an error.
func (l *line) report() (r report, err error) {
	if err := l.receive(&r); err != nil {
		return r, fmt.Errorf("the agent ended, or hung up: %w", err)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}
