package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"innate"
)

const (
	journalsDir = "logs"   // in Config.Runtime
	mostJournal = 4 << 20  // bytes of one file; an app has two
	mostLine    = 16 << 10 // bytes; a longer line is kept in pieces
	drain       = time.Second
)

// journals are what the apps that run detached have written.
type journals struct {
	dir string
	now func() time.Time
	log *slog.Logger

	mu sync.Mutex
	by map[string]*journal // by app key
}

// of returns an app's journal; it goes on where an earlier agent's ended.
func (s *journals) of(app innate.ResourceID) (*journal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j := s.by[app.Key()]; j != nil {
		return j, nil
	}
	j := &journal{dir: filepath.Join(s.dir, directoryName(app)), now: s.now, log: s.log.With("app", app), more: make(chan struct{})}
	if err := j.open(); err != nil {
		return nil, fmt.Errorf("opening the log of %s: %w", app.Name(), err)
	}
	s.by[app.Key()] = j
	return j, nil
}

// forget removes what an app wrote that is no longer placed here.
func (s *journals) forget(app innate.ResourceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.by, app.Key())
	if err := os.RemoveAll(filepath.Join(s.dir, directoryName(app))); err != nil {
		s.log.Warn("removing the log of an app", "app", app, "err", err)
	}
}

// A journal is what one app has written: two files with consecutive numbers as
// names, of which the newer one grows. Files: 0600, lines of text, each with its
// time, its generation and what the program said.
type journal struct {
	dir string
	now func() time.Time
	log *slog.Logger

	mu     sync.Mutex
	number int // of the newer file
	file   *os.File
	size   int64
	lost   bool          // a line could not be written; said once
	more   chan struct{} // closed at the next line
}

func (j *journal) path(number int) string { return filepath.Join(j.dir, strconv.Itoa(number)) }

func (j *journal) open() error {
	if err := os.MkdirAll(j.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return err
	}
	j.number = 1
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			j.number = max(j.number, n)
		}
	}
	return j.turn()
}

// turn opens the file of the current number, and removes the one before last.
func (j *journal) turn() error {
	f, err := os.OpenFile(j.path(j.number), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	if j.file != nil {
		j.file.Close()
	}
	j.file, j.size = f, st.Size()
	if err := os.Remove(j.path(j.number - 2)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// follow keeps what a generation writes until it is over. It never makes the
// program wait for a disk that is full.
func (j *journal) follow(from *os.File, g *Generation, leaving <-chan struct{}) {
	defer from.Close()
	read := make(chan struct{})
	defer close(read)
	go func() {
		select {
		case <-leaving: // the next agent reads on
			from.SetReadDeadline(time.Now())
		case <-g.over: // whoever still holds the pipe is no process of it
			from.SetReadDeadline(time.Now().Add(drain))
		case <-read:
		}
	}()
	for in := bufio.NewReaderSize(from, mostLine); ; {
		line, err := in.ReadSlice('\n')
		if len(line) > 0 {
			j.write(g.Generation, string(line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// write adds a line. Control characters are made harmless: who reads a log on a
// terminal must not be at the mercy of the app.
func (j *journal) write(generation int, line string) {
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, strings.TrimRight(line, "\r\n"))
	j.mu.Lock()
	defer j.mu.Unlock()
	text := fmt.Sprintf("%s g%d %s\n", j.now().UTC().Format("2006-01-02T15:04:05.000Z"), generation, line)
	var err error
	if j.size+int64(len(text)) > mostJournal {
		j.number++
		err = j.turn()
	}
	var n int
	if err == nil {
		n, err = j.file.WriteString(text)
		j.size += int64(n)
	}
	if err != nil && !j.lost {
		j.log.Error("writing the log of an app: lines are lost", "err", err)
	}
	j.lost = err != nil
	close(j.more)
	j.more = make(chan struct{})
}

// state returns the number of the newer file, and a channel closed at the next line.
func (j *journal) state() (number int, more <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.number, j.more
}

// A journalReader reads a journal from its older file on.
type journalReader struct {
	of     *journal
	number int
	file   *os.File
}

// read returns what comes next; at the end more is closed when there may be more.
func (r *journalReader) read(b []byte) (n int, more <-chan struct{}, err error) {
	for {
		newest, moved := r.of.state()
		if r.file == nil {
			r.number = max(r.number, newest-1)
			if r.file, err = os.Open(r.of.path(r.number)); errors.Is(err, fs.ErrNotExist) && r.number < newest {
				r.file = nil
				r.number++
				continue
			}
			if err != nil {
				return 0, nil, err
			}
		}
		n, err = r.file.Read(b)
		switch {
		case n > 0:
			return n, nil, nil
		case err != nil && !errors.Is(err, io.EOF):
			return 0, nil, err
		case r.number == newest:
			return 0, moved, nil
		}
		r.close() // it grows no more
		r.number++
	}
}

func (r *journalReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}
