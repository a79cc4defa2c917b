package opener

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"innate/agent/launch"
)

// A Worker is the program of the other half.
type Worker struct {
	Args   []string // how to start it; its standard input is then its end, for Connect
	Env    []string
	UID    uint32
	Groups []uint32 // its own first
	Output *os.File // what it says
}

const (
	firstBackoff   = 10 * time.Millisecond // before a worker that ended by itself is started again; doubled each time
	longestBackoff = 10 * time.Second
	longLife       = 10 * time.Second // a worker that lived so long is not in a loop of failing
	stuck          = 20 * time.Second // a worker that said nothing for so long is, unless a service manager has another patience
	looks          = 4                // in that time
	leaving        = 15 * time.Second // within which a worker is to leave
	ending         = time.Minute      // within which it is to end all apps
)

// What Run returns when it was asked to make way for another run.
var (
	ErrRestart = errors.New("a restart was asked for")                        // what is held is to be handed over (Exec)
	ErrLeft    = errors.New("what is held was left with the service manager") // ... and the next run is started by it
)

// Signals of Run.
const (
	Restart = syscall.SIGHUP
	Leave   = syscall.SIGUSR1
)

// Open is New, and takes up what an earlier run held: that which has become this
// one by exec (Exec), or whose files a service manager kept.
func Open(c Config) (*Local, error) {
	l, err := New(c)
	if err != nil {
		return nil, err
	}
	if err := ownFolder(c.Held); err != nil {
		return nil, err
	}
	l.manager = findManager(l.config.Log)
	files, err := handedOver(c.Held)
	if err == nil && len(files) == 0 {
		files, err = l.manager.returned()
	}
	if err != nil {
		return nil, err
	}
	if err := l.restore(files); err != nil {
		l.config.Log.Warn("taking up what was held", "err", err)
	}
	return l, nil
}

// ownFolder makes a folder that is root's alone, or refuses one that is not.
func ownFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if st := info.Sys().(*syscall.Stat_t); !info.IsDir() || info.Mode().Perm()&0o077 != 0 || st.Uid != uint32(os.Getuid()) {
		return fmt.Errorf("%s must be a folder of the agent's own user, with mode 0700", dir)
	}
	return nil
}

// Run starts the worker, and again whenever it ends, until ctx ends: then the
// worker ends all apps, and nothing is left. After Restart or Leave the worker
// leaves, and so does Run with ErrRestart or ErrLeft: everything goes on. A worker
// that ends by itself before it has asked for the socket is not started again, and
// one that is stuck is ended.
func (l *Local) Run(ctx context.Context, w Worker, asked <-chan os.Signal) error {
	// A worker is tied to the life of the thread that starts it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	living, end := context.WithCancel(context.Background())
	defer end()
	go l.live(living)
	backoff := firstBackoff
	for {
		began := time.Now()
		err := l.runOnce(ctx, w, asked)
		l.orphan()
		switch {
		case ctx.Err() != nil:
			return errors.Join(err, l.Close())
		case errors.Is(err, ErrRestart), errors.Is(err, ErrLeft):
			return err
		}
		l.mu.Lock()
		known := l.control != nil
		l.mu.Unlock()
		if !known {
			return errors.Join(fmt.Errorf("the worker did not start: %w", err), l.Close())
		}
		if time.Since(began) > longLife {
			backoff = firstBackoff
		}
		l.config.Log.Error("the worker ended; it is started again, and apps go on meanwhile", "err", err, "in", backoff)
		again := time.NewTimer(backoff)
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		backoff = min(2*backoff, longestBackoff)
	}
}

// runOnce starts a worker and returns when it has ended.
func (l *Local) runOnce(ctx context.Context, w Worker, asked <-chan os.Signal) error {
	here, there, err := newPair()
	if err != nil {
		return err
	}
	to, err := openWire(here)
	if err != nil {
		return errors.Join(err, there.Close())
	}
	defer to.conn.Close()
	p, err := launch.Start(launch.Spec{
		Args: w.Args, Env: w.Env, UID: w.UID, Groups: w.Groups, Stdin: there, Stdout: w.Output, Stderr: w.Output, Stub: l.config.Stub,
	})
	there.Close()
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- l.serve(serving, to) }()
	defer func() {
		stop()
		<-served
	}()
	look := time.NewTicker(l.patience() / looks)
	defer look.Stop()
	l.alive.Store(false)
	for began, silent := false, 0; ; {
		select {
		case <-p.Ended():
			return howItEnded(p)
		case <-ctx.Done():
			l.manager.say("STOPPING=1")
			err := to.send(message{End: true})
			l.waitFor(p, ending)
			return err
		case sig := <-asked:
			why := ErrRestart
			if sig == Leave {
				l.manager.say("STOPPING=1")
				why = ErrLeft
			}
			err := p.SignalFirst(syscall.SIGTERM)
			l.waitFor(p, leaving)
			return errors.Join(why, err)
		case err := <-served: // it hung up, or sent what is no order
			served <- nil
			l.waitFor(p, time.Second)
			return errors.Join(err, howItEnded(p))
		case <-look.C: // looks are counted, not time: a machine that slept has missed some
			if l.alive.Swap(false) {
				began, silent = true, 0
			} else if silent++; began && silent > looks {
				err := p.SignalFirst(syscall.SIGKILL)
				return errors.Join(errors.New("it is stuck and was killed"), err, howItEnded(p))
			}
		}
	}
}

// patience is how long a worker may say nothing, and so may we.
func (l *Local) patience() time.Duration {
	if l.manager != nil && l.manager.patience > 0 {
		return l.manager.patience
	}
	return stuck
}

// hearAlive hears that the worker serves.
func (l *Local) hearAlive(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	l.alive.Store(true)
	l.served.Do(func() { l.manager.say("READY=1") })
	return Answer{Within: l.patience() / looks}, nil, nil
}

// live tells the service manager that we live, as long as orders can be carried out.
func (l *Local) live(ctx context.Context) {
	if l.manager == nil || l.manager.patience == 0 {
		return
	}
	again := time.NewTicker(l.manager.patience / looks)
	defer again.Stop()
	for {
		l.taking.Lock()
		l.mu.Lock()
		l.mu.Unlock()
		l.taking.Unlock()
		l.manager.say("WATCHDOG=1")
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// waitFor waits for a worker to end, and kills it when that takes too long.
func (l *Local) waitFor(p *launch.Process, d time.Duration) {
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-p.Ended():
		return
	case <-late.C:
	}
	l.config.Log.Error("the worker does not end; it is killed", "after", d)
	if err := p.SignalFirst(syscall.SIGKILL); err == nil {
		<-p.Ended()
	}
}

func howItEnded(p *launch.Process) error {
	status, err := p.Wait()
	if err != nil {
		return err
	}
	return fmt.Errorf("it ended with exit code %d", status)
}

// filesFile, in Config.Held, says which descriptor is which over an exec.
const filesFile = "files.json"

// heldVariable is set to our pid over an exec.
const heldVariable = "INNATE_HELD_BY"

// Exec becomes another program, mostly a newer one of our own, which takes up
// what is held. It returns only when it cannot.
func (l *Local) Exec(args, env []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	numbers := map[string]int{}
	defer func() { // it did not work: nobody else is to have them
		for _, fd := range numbers {
			unix.Close(fd)
		}
	}()
	for n, f := range l.held() {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		var fd int
		ctl := raw.Control(func(from uintptr) { fd, err = unix.FcntlInt(from, unix.F_DUPFD, 3) })
		if err := errors.Join(ctl, err); err != nil {
			return err
		}
		numbers[n] = fd
	}
	b, err := json.Marshal(numbers)
	if err == nil {
		err = os.WriteFile(filepath.Join(l.config.Held, filesFile), b, 0o600)
	}
	if err != nil {
		return err
	}
	return unix.Exec(path, args, append(env, heldVariable+"="+strconv.Itoa(os.Getpid())))
}

// handedOver are the files that came over an exec.
func handedOver(held string) (map[string]*os.File, error) {
	files := map[string]*os.File{}
	path := filepath.Join(held, filesFile)
	b, err := os.ReadFile(path)
	defer os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) || os.Getenv(heldVariable) != strconv.Itoa(os.Getpid()) {
		return files, nil
	}
	numbers := map[string]int{}
	if err == nil {
		err = json.Unmarshal(b, &numbers)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was handed over: %w", err)
	}
	for n, fd := range numbers {
		unix.CloseOnExec(fd)
		files[n] = os.NewFile(uintptr(fd), n)
	}
	return files, os.Unsetenv(heldVariable)
}

// HandOver gives the state that joining wrote as root to the worker, once: the
// host's key is then the worker's alone.
func HandOver(dir, records string, uid uint32, log *slog.Logger) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid == uid {
		return nil // from here on root changes nothing there: the worker could have put anything in the way
	} else if !info.IsDir() || st.Uid != uint32(os.Getuid()) || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is of uid %d with mode %04o, and the host's key is to be there: want root's, 0700", dir, st.Uid, info.Mode().Perm())
	}
	if err := os.Rename(filepath.Join(dir, uidsFile), filepath.Join(records, uidsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			err = os.Lchown(path, int(uid), int(uid))
		}
		return err
	})
	if err == nil {
		err = os.Chown(dir, int(uid), int(uid)) // last: what it says is then so
	}
	if err != nil {
		return fmt.Errorf("giving the host's state to the worker: %w", err)
	}
	log.Info("the host's state is the worker's from here on", "dir", dir, "uid", uid)
	return nil
}

// WorkerFolder makes the worker's own folder in Config.Runtime.
func (l *Local) WorkerFolder(uid uint32) (string, error) {
	dir := filepath.Join(l.config.Runtime, "worker")
	err := errors.Join(os.MkdirAll(l.config.Runtime, 0o711), os.Chmod(l.config.Runtime, 0o711))
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err != nil {
		return "", err
	}
	return dir, os.Lchown(dir, int(uid), int(uid))
}
