package opener

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
)

// Told is what a worker is told of the home of one generation.
type Told struct {
	ID       string `json:"id"`
	UID      uint32 `json:"uid"`
	Cgroup   string `json:"cgroup,omitempty"`   // directory; empty: none may be made
	CgroupID uint64 `json:"cgroupId,omitempty"` // a directory made again under the same name has another
	Isolated bool   `json:"isolated,omitempty"` // in a network namespace of its own

	Service *Service `json:"service,omitempty"` // nil: its programs are started by us
}

// A home is where one generation lives and is heard.
type home struct {
	Told
	local    *Local
	groups   []uint32        // of the uid, its own first
	cgroup   *launch.Cgroup  // nil: none may be made
	unit     *launch.Watched // of Service, instead of cgroup
	ns       *os.File        // nil: our own network namespace
	listener *os.File        // of the endpoint

	mu        sync.Mutex
	over      bool
	first     *launch.Process         // nil: not started yet
	dir       string                  // where that was started
	processes map[int]*launch.Process // by pid, until somebody has heard how they ended
	folders   map[string]bool
	kept      *kept // the worker's note; nil: none yet
}

// inHome finds the home that an order is about.
func inHome(do func(*home, context.Context, Order, []*os.File) (Answer, []*os.File, error)) func(*Local, context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	return func(l *Local, ctx context.Context, o Order, files []*os.File) (Answer, []*os.File, error) {
		l.mu.Lock()
		h := l.homes[o.Home]
		l.mu.Unlock()
		if h == nil {
			return Answer{}, nil, fmt.Errorf("%s: there is no home %.80q", o.Op, o.Home)
		}
		return do(h, ctx, o, files)
	}
}

// appName is what the name of an app may look like in a path.
var appName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// directoryName tells apps of one name in several groups apart.
func directoryName(app innate.ResourceID) (string, error) {
	if !appName.MatchString(app.Name()) {
		return "", fmt.Errorf("the app's name %.150q: a directory cannot be called so", app.Name())
	}
	sum := sha256.Sum256([]byte(app.Key()))
	return app.Name() + "-" + hex.EncodeToString(sum[:4]), nil
}

// make makes the home of an app's generation. Isolated, it has a network
// namespace of its own with nothing in it but loopback.
func (l *Local) make(_ context.Context, o Order, _ []*os.File) (_ Answer, _ []*os.File, err error) {
	name, err := directoryName(o.App)
	if err != nil {
		return Answer{}, nil, err
	}
	if o.Number < 1 {
		return Answer{}, nil, fmt.Errorf("generation %d: want 1 or more", o.Number)
	}
	if o.Service != nil && (o.Isolate || o.User != "") {
		return Answer{}, nil, errors.New("a unit's user and network are its service manager's to give")
	}
	if o.Isolate && !l.root {
		return Answer{}, nil, errors.New("a network namespace of its own: only an agent that is root can make one")
	}
	under, err := l.accountOf(o)
	if err != nil {
		return Answer{}, nil, err
	}
	h := &home{local: l, groups: under.groups, processes: map[int]*launch.Process{}, folders: map[string]bool{}}
	h.ID, h.UID, h.Isolated, h.Service = name+"/g"+strconv.Itoa(o.Number), under.uid, o.Isolate, o.Service
	if err := l.enter(h); err != nil {
		return Answer{}, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.raze(h))
		}
	}()
	if o.Service != nil {
		err = h.adopt()
	} else if cgroups := l.ground().cgroups; cgroups != nil {
		if h.cgroup, err = cgroups.Make(h.ID); err == nil {
			h.Cgroup, h.CgroupID = h.cgroup.Path(), h.cgroup.ID
		}
	}
	if err != nil {
		return Answer{}, nil, err
	}
	if o.Isolate {
		if h.ns, err = launch.NewNamespace(); err != nil {
			return Answer{}, nil, err
		}
	}
	if err := h.inside(h.openEndpoint); err != nil {
		return Answer{}, nil, fmt.Errorf("opening the app's endpoint: %w", err)
	}
	l2, err := duplicate(h.listener, h.ID)
	return Answer{Home: &h.Told}, []*os.File{l2}, err
}

// enter puts a new home on the list.
func (l *Local) enter(h *home) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.homes[h.ID] != nil:
		return fmt.Errorf("generation %s is there already", h.ID)
	case len(l.homes) >= mostHomes:
		return fmt.Errorf("%d generations are there already: end some", mostHomes)
	}
	for _, other := range l.homes {
		if h.Service != nil && other.Service != nil && h.variables() == other.variables() && h.Service.Unit != other.Service.Unit {
			return fmt.Errorf("%s and %s differ in backslashes alone, and systemd would read the variables of both from one file", h.Service.Unit, other.Service.Unit)
		}
	}
	l.homes[h.ID] = h
	return nil
}

// openEndpoint opens the port of the endpoint, in the thread's namespace. In one
// of its own nobody outside can so much as connect (host-attestation §3).
func (h *home) openEndpoint() error {
	if h.ns != nil {
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	h.listener, err = duplicate(l, h.ID)
	return err
}

func loopbackUp() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// inside calls fn in the home's network namespace. Sockets stay where they were made.
func (h *home) inside(fn func() error) error {
	if h.ns == nil {
		return fn()
	}
	return caller.InNamespace(h.ns, fn)
}

// dialing bounds a connection to a program.
const dialing = 5 * time.Second

// dial connects to a port of the home, where a program of it is to serve.
func (h *home) dial(ctx context.Context, o Order, _ []*os.File) (_ Answer, files []*os.File, err error) {
	if o.Port < 1 || o.Port > 65535 {
		return Answer{}, nil, fmt.Errorf("port %d: want 1 to 65535", o.Port)
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(dialing)
	}
	err = h.inside(func() error {
		// One address, so that the dial stays on this thread, and not the
		// context's: waiting for that takes another.
		d := net.Dialer{Deadline: deadline}
		d.SetMultipathTCP(false) // as caller.Listen
		c, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", o.Port))
		if err != nil {
			return err
		}
		defer c.Close()
		f, err := duplicate(c.(*net.TCPConn), "connection")
		files = []*os.File{f}
		return err
	})
	return Answer{}, files, err
}

// freePort finds a port of the home that nobody has.
func (h *home) freePort(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	var port int
	err := h.inside(func() error {
		l, err := caller.Listen("127.0.0.1:0")
		if err != nil {
			return err
		}
		port = l.Addr().(*net.TCPAddr).Port
		return l.Close()
	})
	return Answer{Port: port}, nil, err
}

// diag opens netlink sockets that see the sockets of the home's namespace.
func (h *home) diag(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	var files []*os.File
	err := h.inside(func() (err error) {
		files, err = caller.DiagFiles()
		return err
	})
	return Answer{}, files, err
}

// held searches for who holds a caller's socket, where the kernel names no cgroup.
func (h *home) held(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	if h.Cgroup == "" || o.Caller == nil || o.Caller.UID != h.UID {
		return Answer{}, nil, caller.ErrUnknownCgroup
	}
	return Answer{}, nil, caller.HeldIn(h.Cgroup, *o.Caller)
}

// signal sends a signal to every process of the home, or to one that was started.
func (h *home) signal(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	if o.Signal < 1 || o.Signal > 64 {
		return Answer{}, nil, fmt.Errorf("signal %d: there is none", o.Signal)
	}
	if h.unit != nil {
		return Answer{}, nil, errManagers
	}
	if o.To == toAll && h.cgroup != nil {
		return Answer{}, nil, h.cgroup.Signal(o.Signal)
	}
	h.mu.Lock()
	p := h.processes[o.PID]
	if o.To == toAll {
		p = h.first
	}
	h.mu.Unlock()
	switch {
	case p == nil:
		return Answer{}, nil, os.ErrProcessDone
	case o.To == toProcess:
		return Answer{}, nil, p.SignalFirst(o.Signal)
	}
	err := p.Signal(o.Signal)
	if o.To == toAll && errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	return Answer{}, nil, err
}

// Whom a signal is for.
const (
	toAll     = "all"
	toGroup   = "group"
	toProcess = "process"
)

// kill ends every process of the home.
func (h *home) kill(ctx context.Context, _ Order, _ []*os.File) (Answer, []*os.File, error) {
	if h.cgroup == nil { // a unit's is never ours to kill
		return h.signal(ctx, Order{Signal: syscall.SIGKILL, To: toAll}, nil)
	}
	err := h.cgroup.Kill()
	if err != nil {
		err = errors.Join(err, h.cgroup.Signal(syscall.SIGKILL)) // Linux before 5.14
	}
	return Answer{}, nil, err
}

// members counts the processes; without a cgroup that is not known.
func (h *home) members(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	var pids []int
	var err error
	switch {
	case h.unit != nil:
		pids, err = h.unit.Members()
	case h.cgroup != nil:
		pids, err = h.cgroup.Members()
	}
	return Answer{Count: len(pids)}, nil, err
}

// empty waits until the last process has ended: the kernel says so of a cgroup;
// without one, the first process's end must do. A unit has ended when its cgroup is
// taken away.
func (h *home) empty(ctx context.Context, _ Order, _ []*os.File) (Answer, []*os.File, error) {
	if h.unit != nil {
		return Answer{}, nil, h.unit.Gone(ctx, &h.local.removals)
	}
	if h.cgroup == nil {
		h.mu.Lock()
		p := h.first
		h.mu.Unlock()
		if p == nil {
			return Answer{}, nil, nil
		}
		select {
		case <-p.Ended():
			return Answer{}, nil, nil
		case <-ctx.Done():
			return Answer{}, nil, ctx.Err()
		}
	}
	empty, err := h.cgroup.Empty()
	if err != nil {
		return Answer{}, nil, err
	}
	select {
	case <-empty:
		return Answer{}, nil, nil
	case <-ctx.Done():
		return Answer{}, nil, ctx.Err()
	}
}

// remove takes a home away, when its processes are gone.
func (l *Local) remove(_ context.Context, o Order, _ []*os.File) (Answer, []*os.File, error) {
	l.mu.Lock()
	h := l.homes[o.Home]
	l.mu.Unlock()
	if h == nil {
		return Answer{}, nil, fmt.Errorf("there is no home %.80q", o.Home)
	}
	return Answer{}, nil, l.raze(h)
}

func (l *Local) raze(h *home) error {
	err := h.close()
	if h.cgroup != nil {
		err = errors.Join(err, h.cgroup.Remove())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.homes[h.ID] == h {
		delete(l.homes, h.ID)
		err = errors.Join(err, l.unsave(homeRecords, h.ID))
	}
	return err
}

// close closes what a home holds open and removes its files. Its processes are gone, or killed.
func (h *home) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	h.kept.close()
	h.kept = nil
	var errs []error
	if h.listener != nil {
		errs = append(errs, h.listener.Close())
		h.listener = nil
	}
	if h.ns != nil {
		errs = append(errs, h.ns.Close())
		h.ns = nil
	}
	for kind := range h.folders {
		if err := os.RemoveAll(h.folder(kind)); err != nil {
			errs = append(errs, fmt.Errorf("removing the app's %s: %w", kind, err))
		}
	}
	if h.Service != nil {
		if err := os.Remove(h.variables()); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// folder is a directory of the home's.
func (h *home) folder(kind string) string {
	return filepath.Join(h.local.config.Runtime, kind, strings.ReplaceAll(h.ID, "/", "-"))
}
