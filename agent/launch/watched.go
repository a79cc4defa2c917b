package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Watched is a cgroup that is somebody else's, a service manager's for instance:
// it is looked at and nothing more.
type Watched struct{ cgroup Cgroup }

// Watch finds a cgroup by its path in the hierarchy, such as
// /system.slice/api.service. It may be neither ours nor anything that we are in.
func Watch(path string) (*Watched, error) {
	below := strings.TrimPrefix(path, "/")
	if !filepath.IsLocal(below) || below == "." || below != filepath.Clean(below) {
		return nil, fmt.Errorf("cgroup %.200q: want its path in the hierarchy, such as /system.slice/api.service", path)
	}
	top, err := Hierarchy()
	if err != nil {
		return nil, err
	}
	own, err := OwnDirectory()
	if err != nil {
		return nil, err
	}
	w := &Watched{Cgroup{path: filepath.Join(top, below)}}
	if within(own, w.cgroup.path) || own != top && within(w.cgroup.path, own) {
		return nil, fmt.Errorf("cgroup %s is the agent's own, or has the agent in it", path)
	}
	w.cgroup.ID, err = inode(w.cgroup.path)
	return w, err
}

// within reports whether dir is of or below it.
func within(dir, of string) bool { return dir == of || strings.HasPrefix(dir, of+"/") }

// ID is as a Cgroup's.
func (w *Watched) ID() uint64 { return w.cgroup.ID }

// Path is the directory.
func (w *Watched) Path() string { return w.cgroup.path }

// Members lists the processes in it.
func (w *Watched) Members() ([]int, error) { return w.cgroup.Members() }

// Still reports whether the directory is there, and not one that was made again
// under the same name.
func (w *Watched) Still() bool {
	id, err := inode(w.cgroup.path)
	return err == nil && id == w.cgroup.ID
}

// Holds reports whether a cgroup with that ID is below the directory of another.
func Holds(dir string, id uint64) bool {
	found := false
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case vanished(err):
			return nil
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		}
		if at, err := inode(path); err == nil && at == id {
			found = true
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

// Gone returns when the directory is no more, with nil, or when ctx ends. That it
// is empty says nothing: between two programs that a manager starts there, it is.
func (w *Watched) Gone(ctx context.Context, all *Removals) error {
	for {
		next, err := all.In(filepath.Dir(w.cgroup.path))
		if err != nil {
			return fmt.Errorf("watching cgroup %s: %w", w.cgroup.path, err)
		}
		if !w.Still() {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Removals tell that directories were removed, wherever they are asked to look. They
// share one inotify instance, of which a user has few. The zero value is ready.
type Removals struct {
	mu   sync.Mutex
	file *os.File      // nil: not open
	next chan struct{} // closed at the next event
}

// In looks into dir from now on, if it is there: next is closed when something was
// removed there, or elsewhere.
func (r *Removals) In(dir string) (next <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, err
		}
		r.file, r.next = os.NewFile(uintptr(fd), "inotify"), make(chan struct{})
		go r.listen(r.file)
	}
	raw, err := r.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctl := raw.Control(func(fd uintptr) { _, err = unix.InotifyAddWatch(int(fd), dir, unix.IN_DELETE|unix.IN_ONLYDIR) })
	if err = errors.Join(ctl, err); err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, err
	}
	return r.next, nil
}

// listen tells of events until the file is closed.
func (r *Removals) listen(f *os.File) {
	for events := make([]byte, 4096); ; {
		_, err := f.Read(events)
		r.mu.Lock()
		close(r.next)
		r.next = make(chan struct{})
		if err != nil && r.file == f {
			r.file = nil
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close ends it; whoever waits looks again.
func (r *Removals) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
