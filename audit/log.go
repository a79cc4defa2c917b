package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// maxPending is how many bytes of events may wait for the disk before further
// ones are refused.
const maxPending = 64 << 20

// journalSuffix makes the path of a log that of its journal.
const journalSuffix = ".journal"

// keptLines is how many bytes of memory the writer keeps between batches.
const keptLines = 1 << 20

var (
	errClosed  = errors.New("the audit log is closed")
	errTooSlow = errors.New("the audit log's disk does not keep up: the event is not recorded")
)

// A Log is an append-only file of events, group-committed: one goroutine writes
// whatever has gathered while it was writing, syncs once and answers all. What
// they wait for is a journal beside the file; the file is synced behind it.
type Log struct {
	wake  chan struct{} // there is something to write, or it is time to end
	ended chan struct{} // closed when the writer has returned

	mu      sync.Mutex
	pending *batch
	closed  bool
	durable int64         // bytes of file that are, see Durable
	more    chan struct{} // closed when durable grows; nil: nobody asked

	// The writer's own.
	file     *os.File
	journal  *journal
	lull     *lull
	last     Link       // of the last durable line
	end      int64      // where the next line begins
	torn     bool       // a write failed: something may stand after end
	syncing  chan error // has the outcome of a sync of file; nil: none is under way
	doubtful bool       // a sync of file failed: what the journal has may be missing in it
	lines    []byte     // of the batch in hand; its memory serves the next one
	spare    batch      // its memory serves a later one
}

// A batch is events that become durable together, or not at all.
type batch struct {
	events []byte        // one after the other, each as JSON
	ends   []int         // where in events each ends
	done   chan struct{} // closed when err is set
	err    error
}

// newBatch makes an empty batch out of one that has been written.
func newBatch(old batch) *batch {
	return &batch{events: old.events[:0], ends: old.ends[:0], done: make(chan struct{})}
}

// Open opens the log at path, making it when absent, and starts the goroutine
// that writes, which Close ends. What a crash left of an unfinished line, which
// nobody was told was recorded, is cut off. The file must have one writer: a
// second Open, in this process or another, is refused. Whoever moves the file
// away, to begin a new one, moves its journal (path.journal) too.
func Open(path string) (*Log, error) {
	l, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the audit log %s: %w", path, err)
	}
	go l.writeAll()
	return l, nil
}

func open(path string) (l *Log, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.New("another process is writing it: stop it first")
	} else if err != nil {
		return nil, fmt.Errorf("locking it: %w", err)
	}
	j, err := openJournal(path + journalSuffix)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			j.close()
		}
	}()
	quiet, err := newLull()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			quiet.close()
		}
	}()
	l = &Log{file: f, journal: j, lull: quiet, wake: make(chan struct{}, 1), ended: make(chan struct{}), pending: newBatch(batch{})}
	if err := l.restore(); err != nil {
		return nil, err
	}
	l.durable = l.end
	return l, syncDir(filepath.Dir(path))
}

// resume finds the end of the last whole line and its link, and cuts off what
// stands after it. It touches nothing in a file that is no audit log.
func (l *Log) resume() error {
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	// Enough for a whole line and a torn one after it.
	tail := make([]byte, min(size, 2*int64(maxLine)))
	if _, err := l.file.ReadAt(tail, size-int64(len(tail))); err != nil {
		return err
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	torn := tail[whole:]
	l.end = size - int64(len(torn))
	if whole > 0 {
		last := tail[:whole-1]
		if _, l.last, err = parseLine(last[bytes.LastIndexByte(last, '\n')+1:]); err != nil {
			return fmt.Errorf("the line that ends at byte %d: %w: move the file away to begin a new one", l.end, err)
		}
	} else if l.end > 0 || len(torn) > 0 && torn[0] != '{' {
		return errors.New("it is no audit log: move the file away to begin a new one")
	}
	return l.cut()
}

// Record returns when ev is durable. Without it there is no answer.
func (l *Log) Record(ctx context.Context, ev Event) error { return l.Append(ev)(ctx) }

// Append begins to record ev; the function it returns waits until ev is
// durable. For work that can go on meanwhile, such as a signature. Events are
// written in the order of their Appends. When ctx ends first, ev may or may not
// be recorded.
func (l *Log) Append(ev Event) (wait func(context.Context) error) {
	b, err := l.enqueue(&ev)
	if err != nil {
		return func(context.Context) error { return err }
	}
	return func(ctx context.Context) error {
		select {
		case <-b.done:
			return b.err
		case <-ctx.Done():
			return fmt.Errorf("recording in the audit log: %w", ctx.Err())
		}
	}
}

// enqueue adds an event to the batch that is written next.
func (l *Log) enqueue(ev *Event) (b *batch, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b = l.pending
	switch {
	case l.closed:
		return nil, errClosed
	case len(b.events) > maxPending:
		return nil, errTooSlow
	}
	if b.events, err = ev.append(b.events); err != nil {
		return nil, err
	}
	b.ends = append(b.ends, len(b.events))
	if len(b.ends) == 1 {
		l.wake <- struct{}{}
	}
	return b, nil
}

// Close writes what is pending and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.wake)
	<-l.ended
	// A child that is just being forked has our descriptors until it becomes its own
	// program, and with them the lock: the next Open need not wait for that.
	unlock := unix.Flock(int(l.file.Fd()), unix.LOCK_UN)
	return errors.Join(l.endSync(), unlock, l.file.Close(), l.journal.close(), l.lull.close())
}

// writeAll is the writer: batch after batch until Close. On a busy machine it
// lets whoever is ready to run go first: what they record shares the sync, and a
// sync costs the processor as much as several signatures. On an idle one it
// writes at once.
func (l *Log) writeAll() {
	defer close(l.ended)
	for {
		_, open := <-l.wake
		l.lull.wait()
		b := l.take()
		b.err = l.write(b)
		if cap(b.events) <= keptLines {
			l.spare = batch{events: b.events, ends: b.ends}
		}
		close(b.done)
		if !open {
			return
		}
	}
}

func (l *Log) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.pending
	l.pending, l.spare = newBatch(l.spare), batch{}
	return b
}

// write makes b durable, all of it or nothing.
func (l *Log) write(b *batch) error {
	if len(b.ends) == 0 {
		return nil
	}
	if err := l.mend(); err != nil {
		return fmt.Errorf("mending the audit log after a failed write: %w", err)
	}
	lines, last, begin := l.lines[:0], l.last, 0
	for _, end := range b.ends {
		event := b.events[begin:end]
		begin, last = end, last.follow(event)
		lines = appendLine(lines, event, last)
	}
	if cap(lines) <= keptLines {
		l.lines = lines
	}
	l.torn = true
	if _, err := l.file.WriteAt(lines, l.end); err != nil {
		return fmt.Errorf("writing the audit log: %w", err)
	}
	if err := l.sync(lines); err != nil {
		return fmt.Errorf("syncing the audit log: %w", err)
	}
	l.torn, l.last, l.end = false, last, l.end+int64(len(lines))
	l.settled()
	return nil
}

// sync makes lines, the newest, durable: in the journal, or where that cannot be
// in the log itself.
func (l *Log) sync(lines []byte) error {
	if l.journal.failed {
		// It may hold lines that were refused. These, in the log, stand against them.
		if err := l.syncNow(); err != nil {
			return err
		}
		l.journal.begin()
		return nil
	}
	if !l.journal.fits(lines) {
		// The next round takes the place of the one before last, which the log has by now.
		if err := l.endSync(); err != nil {
			return err
		}
		l.beginSync()
		l.journal.turn()
	}
	if !l.journal.fits(lines) {
		return l.endSync()
	}
	if err := l.journal.write(lines, l.end, l.last); err != nil {
		return errors.Join(err, l.syncNow())
	}
	return nil
}

// syncNow makes the log durable as it is.
func (l *Log) syncNow() error {
	err := l.endSync()
	l.beginSync()
	return errors.Join(err, l.endSync())
}

// beginSync begins to sync the log, as far as it is written now.
func (l *Log) beginSync() {
	done := make(chan error, 1)
	l.syncing = done
	go func() { done <- unix.Fdatasync(int(l.file.Fd())) }()
}

// endSync waits for the sync of the log that is under way, if any.
func (l *Log) endSync() error {
	if l.syncing == nil {
		return nil
	}
	err := <-l.syncing
	l.syncing = nil
	if err != nil {
		l.doubtful = true
	}
	return err
}

// mend cuts off what a failed write left, and after a failed sync writes again
// what only the journal is known to have.
func (l *Log) mend() error {
	if l.torn {
		if err := l.file.Truncate(l.end); err != nil {
			return err
		}
		l.torn = false
	}
	if l.doubtful {
		return l.restore()
	}
	return nil
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
