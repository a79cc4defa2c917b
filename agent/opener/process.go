package opener

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"innate/agent/launch"
)

// hangingUp is how long a program that was hung up on may take to end.
const hangingUp = 5 * time.Second

// mostBeside bounds the programs beside a generation's first process.
const mostBeside = 64

// start starts a program in the home: its first process, or one beside that.
func (h *home) start(_ context.Context, o Order, files []*os.File) (Answer, []*os.File, error) {
	if o.Program == nil || len(o.Program.Args) == 0 {
		return Answer{}, nil, errors.New("nothing to start: no program was given")
	}
	spec, err := h.spec(*o.Program, files)
	if err != nil {
		return Answer{}, nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.over:
		return Answer{}, nil, errOver
	case h.unit != nil:
		return Answer{}, nil, errManagers
	case h.first == nil && o.Program.Beside:
		return Answer{}, nil, errors.New("there is nothing yet to run beside")
	case h.first != nil && !o.Program.Beside:
		return Answer{}, nil, errors.New("a generation has one first process")
	case len(h.processes) >= mostBeside:
		return Answer{}, nil, fmt.Errorf("%d programs run beside this generation already", mostBeside)
	}
	if o.Program.Beside {
		spec.Dir = h.dir
		if spec.Env, err = h.first.Environ(); err != nil {
			return Answer{}, nil, err
		}
	}
	p, err := launch.Start(spec)
	if err != nil {
		return Answer{}, nil, err
	}
	if h.first == nil {
		h.first, h.dir = p, spec.Dir
	}
	h.processes[p.PID] = p
	return Answer{PID: p.PID}, nil, nil
}

// spec is where the processes of the home belong, whatever they run.
func (h *home) spec(p Program, files []*os.File) (launch.Spec, error) {
	c := h.local.config
	spec := launch.Spec{Args: p.Args, Dir: p.Dir, Env: p.Env, Cgroup: h.cgroup, UID: h.UID, Groups: h.groups, NetNS: h.ns, Stub: c.Stub}
	for i, to := range []**os.File{&spec.Stdin, &spec.Stdout, &spec.Stderr} {
		if !p.Files[i] {
			continue
		}
		if len(files) == 0 {
			return spec, errors.New("fewer files came than the program is to have")
		}
		*to, files = files[0], files[1:]
	}
	if h.local.ground().facts.NoMounts == "" {
		spec.Hosts, spec.Hide = c.Hosts, c.Hide
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, kind := range slices.Sorted(maps.Keys(h.folders)) {
		if dir, at := h.folder(kind), h.seenAt(kind); at != dir {
			spec.Show = append(spec.Show, launch.Shown{Dir: dir, At: at})
		}
	}
	return spec, nil
}

// process is one that was started in the home.
func (h *home) process(pid int) (*launch.Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.processes[pid]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("generation %s has no process %d", h.ID, pid)
}

// wait waits until a process has ended.
func (h *home) wait(ctx context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	p, err := h.process(o.PID)
	if err != nil {
		return Answer{}, nil, err
	}
	select {
	case <-p.Ended():
	case <-ctx.Done():
		return Answer{}, nil, ctx.Err()
	}
	h.mu.Lock()
	if p != h.first {
		delete(h.processes, o.PID)
	}
	h.mu.Unlock()
	status, err := p.Wait()
	return Answer{Status: status}, nil, err
}

// hangUp ends what runs beside the first process, within a grace.
func (h *home) hangUp() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for pid, p := range h.processes {
		if p == h.first {
			continue
		}
		delete(h.processes, pid)
		if err := p.Signal(syscall.SIGHUP); !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, err)
		}
		time.AfterFunc(hangingUp, func() { p.Signal(syscall.SIGKILL) })
	}
	return errors.Join(errs...)
}

// environ reads the environment of the first process.
func (h *home) environ(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	h.mu.Lock()
	p := h.first
	h.mu.Unlock()
	if p == nil {
		return Answer{}, nil, os.ErrProcessDone
	}
	env, err := p.Environ()
	return Answer{Env: env}, nil, err
}
