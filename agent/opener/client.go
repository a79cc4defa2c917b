package opener

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"innate"
	"innate/agent/caller"
)

// What a worker holds of what was opened for it. Each method is one order.

// ReadFacts asks what an opener found out.
func ReadFacts(by Opener) (Facts, error) {
	a, _, err := by.Do(context.Background(), Order{Op: "facts"})
	if err != nil {
		return Facts{}, err
	}
	if a.Facts == nil {
		return Facts{}, errors.New("the opener did not say what it found out")
	}
	return *a.Facts, nil
}

// Root reports whether the opener can start programs under other uids.
func (f Facts) Root() bool { return f.UID == 0 }

// ProbeSearch says why Held cannot stand in where the kernel names no cgroup of a socket.
func ProbeSearch(by Opener) error {
	_, _, err := by.Do(context.Background(), Order{Op: "search"})
	return err
}

// Control is the agent's socket.
func Control(by Opener) (*net.UnixListener, error) {
	_, files, err := by.Do(context.Background(), Order{Op: "control"})
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return nil, errors.New("the opener sent no socket")
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("what the opener sent is no unix socket")
	}
	return u, nil
}

// Alive tells the opener that the worker serves, and returns when it wants to hear that again.
func Alive(by Opener) (within time.Duration, err error) {
	a, _, err := by.Do(context.Background(), Order{Op: "alive"})
	if err == nil && a.Within <= 0 {
		err = errors.New("the opener did not say when it wants to hear again")
	}
	return a.Within, err
}

// Lends says why apps may not run under a user of the host.
func Lends(by Opener, user string) error {
	_, _, err := by.Do(context.Background(), Order{Op: "lends", User: user})
	return err
}

// TPM is the host's, open.
func TPM(by Opener) (*os.File, error) {
	_, files, err := by.Do(context.Background(), Order{Op: "tpm"})
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		closeAll(files)
		return nil, errors.New("the opener sent no TPM")
	}
	return files[0], nil
}

// A Home is where one generation lives and is heard.
type Home struct {
	Told
	Listener *net.TCPListener // of its endpoint

	by Opener
}

// A Want is what a home is to be.
type Want struct {
	App     innate.ResourceID
	Number  int      // of the generation
	Isolate bool     // in a network namespace of its own
	User    string   // of the host, under whom its programs run; empty: the app's own uid
	Service *Service // its programs are this unit's; nil: they are started in the home
}

// Make makes the home of a generation.
func Make(ctx context.Context, by Opener, w Want) (*Home, error) {
	a, files, err := by.Do(ctx, Order{Op: "make", App: w.App, Number: w.Number, Isolate: w.Isolate, User: w.User, Service: w.Service})
	if err != nil {
		return nil, err
	}
	if a.Home == nil {
		closeAll(files)
		return nil, errors.New("the opener did not say what it made")
	}
	h := &Home{Told: *a.Home, by: by}
	if h.Listener, err = listener(files); err != nil {
		return nil, errors.Join(err, h.Remove())
	}
	return h, nil
}

// listener makes one of the file that came, and closes the file.
func listener(files []*os.File) (*net.TCPListener, error) {
	defer closeAll(files)
	if len(files) != 1 {
		return nil, errors.New("the opener sent no listener")
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return nil, err
	}
	t, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, errors.New("what the opener sent is no TCP listener")
	}
	return t, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

func (h *Home) do(ctx context.Context, o Order, files ...*os.File) (Answer, []*os.File, error) {
	o.Home = h.ID
	return h.by.Do(ctx, o, files...)
}

// tell is do without an answer.
func (h *Home) tell(o Order) error {
	_, _, err := h.do(context.Background(), o)
	return err
}

// Folder makes one of the folders, empty.
func (h *Home) Folder(kind string) (*Folder, error) {
	a, _, err := h.do(context.Background(), Order{Op: "folder", Folder: kind})
	return &Folder{At: a.Path, home: h, kind: kind}, err
}

// A Folder has files that the app may read and nobody but the opener write.
type Folder struct {
	At string // where the app sees it

	home *Home
	kind string
}

// Write puts a file in the place of the old one, whole; changed says whether there is a difference.
func (f *Folder) Write(name string, content []byte) (changed bool, err error) {
	a, _, err := f.home.do(context.Background(), Order{Op: "write", Folder: f.kind, Name: name, Content: content})
	return a.Changed, err
}

// Remove takes a file away; it may be gone.
func (f *Folder) Remove(name string) error {
	return f.home.tell(Order{Op: "unlink", Folder: f.kind, Name: name})
}

// Diag opens what sees the callers in the home's own network namespace.
func (h *Home) Diag() (*caller.Diag, error) {
	_, files, err := h.do(context.Background(), Order{Op: "diag"})
	if err != nil {
		return nil, err
	}
	return caller.DiagOf(files)
}

// Held is caller.HeldIn for the home's cgroup.
func (h *Home) Held(f caller.Facts) error { return h.tell(Order{Op: "held", Caller: &f}) }

// Dial connects to a port of the home, where a program of it is to serve.
func (h *Home) Dial(ctx context.Context, port int) (*net.TCPConn, error) {
	_, files, err := h.do(ctx, Order{Op: "dial", Port: port})
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	if len(files) != 1 {
		return nil, errors.New("the opener sent no connection")
	}
	c, err := net.FileConn(files[0])
	if err != nil {
		return nil, err
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, errors.New("what the opener sent is no TCP connection")
	}
	return t, nil
}

// FreePort finds a port of the home that nobody has.
func (h *Home) FreePort() (int, error) {
	a, _, err := h.do(context.Background(), Order{Op: "port"})
	return a.Port, err
}

// Empty is closed when the last process has ended, a unit's when the unit has, or
// when ctx ends; ask after Start.
func (h *Home) Empty(ctx context.Context) <-chan struct{} {
	empty := make(chan struct{})
	go func() {
		defer close(empty)
		h.do(ctx, Order{Op: "empty"}) // without an opener there is nothing left
	}()
	return empty
}

// Signal sends a signal to every process of the home.
func (h *Home) Signal(sig syscall.Signal) error {
	return h.tell(Order{Op: "signal", Signal: sig, To: toAll})
}

// Kill ends every process of the home.
func (h *Home) Kill() error { return h.tell(Order{Op: "kill"}) }

// Members counts the processes; without a cgroup that is not known.
func (h *Home) Members() int {
	a, _, err := h.do(context.Background(), Order{Op: "members"})
	if err != nil {
		return 0
	}
	return a.Count
}

// Remove takes the home away, when its processes are gone.
func (h *Home) Remove() error {
	if h.Listener != nil {
		h.Listener.Close() // the endpoint has, if there was one
	}
	return h.tell(Order{Op: "remove"})
}

// Start starts a program in the home; files are its standard input, output and
// error, nil is /dev/null.
func (h *Home) Start(p Program, files [3]*os.File) (*Process, error) {
	var send []*os.File
	for i, f := range files {
		if p.Files[i] = f != nil; f != nil {
			send = append(send, f)
		}
	}
	a, _, err := h.do(context.Background(), Order{Op: "start", Program: &p}, send...)
	if err != nil {
		return nil, err
	}
	return &Process{PID: a.PID, home: h}, nil
}

// Environ is the environment that the first process was started with. The error
// is os.ErrProcessDone when it has ended.
func (h *Home) Environ() ([]string, error) {
	a, _, err := h.do(context.Background(), Order{Op: "environ"})
	return a.Env, err
}

// A Process is a program that was started in a home.
type Process struct {
	PID int

	home *Home
}

// Wait waits for the end and returns the exit code as a shell counts it. It is called once.
func (p *Process) Wait() (int, error) {
	a, _, err := p.home.do(context.Background(), Order{Op: "wait", PID: p.PID})
	return a.Status, err
}

// Signal sends a signal to the process and what it started in its process group.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.home.tell(Order{Op: "signal", PID: p.PID, Signal: sig, To: toGroup})
}

// SignalFirst sends a signal to the process alone: what it started may not expect it.
func (p *Process) SignalFirst(sig syscall.Signal) error {
	return p.home.tell(Order{Op: "signal", PID: p.PID, Signal: sig, To: toProcess})
}

// ReadLeft asks what an earlier worker left.
func ReadLeft(by Opener) (Left, error) {
	a, _, err := by.Do(context.Background(), Order{Op: "left"})
	if err == nil && a.Left == nil {
		err = errors.New("the opener did not say what is left")
	}
	if err != nil {
		return Left{}, err
	}
	return *a.Left, nil
}

// Again is a home that an earlier worker left.
type Again struct {
	*Home
	First *Process // nil: nothing was started
	Note  []byte
	Files []*os.File // of the note
	at    map[string]string
}

// TakeUp takes a home up that an earlier worker left.
func TakeUp(by Opener, id string) (*Again, error) {
	h := &Home{Told: Told{ID: id}, by: by}
	a, files, err := h.do(context.Background(), Order{Op: "again"})
	if err != nil {
		return nil, err
	}
	if a.Home == nil || len(files) == 0 {
		closeAll(files)
		return nil, errors.New("the opener did not say what is left there")
	}
	h.Told = *a.Home
	if h.Listener, err = listener(files[:1]); err != nil {
		closeAll(files[1:])
		return nil, err
	}
	g := &Again{Home: h, Note: a.Content, Files: files[1:], at: a.Folders}
	if a.PID != 0 {
		g.First = &Process{PID: a.PID, home: h}
	}
	return g, nil
}

// Made is a folder that the home has; nil when it has none of the kind.
func (g *Again) Made(kind string) *Folder {
	at, made := g.at[kind]
	if !made {
		return nil
	}
	return &Folder{At: at, home: g.Home, kind: kind}
}

// Note keeps a note with the home, and copies of open files.
func (h *Home) Note(note []byte, files ...*os.File) error {
	_, _, err := h.do(context.Background(), Order{Op: "note", Content: note}, files...)
	return err
}

// Keep keeps a record beside the homes, and copies of open files; without any,
// those that are kept under that name stay.
func Keep(by Opener, name string, record []byte, files ...*os.File) error {
	_, _, err := by.Do(context.Background(), Order{Op: "keep", Name: name, Content: record}, files...)
	return err
}

// ReadKept reads a record.
func ReadKept(by Opener, name string) (record []byte, files []*os.File, err error) {
	a, files, err := by.Do(context.Background(), Order{Op: "kept", Name: name})
	return a.Content, files, err
}

// Forget throws a record away.
func Forget(by Opener, name string) error {
	_, _, err := by.Do(context.Background(), Order{Op: "forget", Name: name})
	return err
}

// Again is a spot that an earlier worker left.
func (f Found) Again(by Opener) *Spot { return &Spot{Found: f, by: by} }

// Lost is a home that is not there any more: every order about it is an error.
func Lost(id string) *Home { return &Home{Told: Told{ID: id}, by: lost{}} }

type lost struct{}

func (lost) Do(context.Context, Order, ...*os.File) (Answer, []*os.File, error) {
	return Answer{}, nil, os.ErrProcessDone
}
