package postgres

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"innate/agent/caller"
	"innate/feed/client"
)

// A record says who is behind a session. PostgreSQL itself cannot tell two
// identities on one role apart (postgres.md §6).
type record struct {
	caller.Process              // the server's process that serves it; zero: it could not be found
	Role           string       `json:"role"`
	Claim          client.Claim `json:"claim"`
	Expires        time.Time    `json:"expires"` // of the token
	Bound          time.Time    `json:"bound"`   // when the log-in was let in

	begun time.Time // of the session that the server lists and the process was found to serve; zero: none yet
}

// sessions are the records, in memory and in a file: a gateway that was started
// again must still be able to end what it let in. The file need not be synced:
// when the machine goes down, so do the sessions.
type sessions struct {
	path string

	mu    sync.Mutex
	file  *os.File
	lines int
	byPID map[int]record
	lost  []record // whose process could not be found
}

// openSessions reads the file, or begins one.
func openSessions(path string) (*sessions, error) {
	s := &sessions{path: path, byPID: map[int]record{}}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		var r record
		if json.Unmarshal(line, &r) != nil {
			continue // torn by a crash: its session is one that nobody let in, and is ended
		}
		s.keep(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.rewrite()
}

func (s *sessions) keep(r record) {
	if r.PID == 0 {
		s.lost = append(s.lost, r)
		return
	}
	s.byPID[r.PID] = r
}

// rewrite writes the file anew, with what is; s.mu is held.
func (s *sessions) rewrite() error {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	enc := json.NewEncoder(w)
	for _, r := range s.byPID {
		enc.Encode(r)
	}
	for _, r := range s.lost {
		enc.Encode(r)
	}
	w.Flush()
	if err := replace(s.path, b.Bytes(), 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.lines = f, len(s.byPID)+len(s.lost)
	return nil
}

// add records a session that is about to begin.
func (s *sessions) add(r record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.Write(append(line, '\n')); err != nil {
		return err
	}
	s.lines++
	s.keep(r)
	return nil
}

// forget drops the record of a session that did not begin after all.
func (s *sessions) forget(r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.PID != 0 && s.byPID[r.PID].Process == r.Process {
		delete(s.byPID, r.PID)
	}
}

// of returns the record of a session that the server lists. A pid passes to
// others, a process's start does not; to look at it takes most of what a sweep of
// many sessions would, and once is enough: the server gives no two sessions of one
// pid the same beginning.
func (s *sessions) of(b backend) (record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.byPID[b.pid]
	if !ok || r.Role != b.role {
		return r, false
	}
	if !r.begun.Equal(b.begun) {
		if !r.Lives() {
			return r, false
		}
		r.begun = b.begun
		s.byPID[b.pid] = r
	}
	return r, true
}

// unplaced returns the records on a role whose process could not be found.
func (s *sessions) unplaced(role string) (all []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.lost {
		if r.Role == role {
			all = append(all, r)
		}
	}
	return all
}

// each calls fn with every record that names a process.
func (s *sessions) all() (all []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.byPID {
		all = append(all, r)
	}
	return all
}

// tidy forgets the sessions whose process has ended, and those unplaced on roles
// that serve no session. begun is when what the server lists began, by pid.
func (s *sessions) tidy(begun map[int]time.Time, roles map[string]bool, before time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for pid, r := range s.byPID {
		if at, ok := begun[pid]; (!ok || !at.Equal(r.begun)) && !r.Lives() {
			delete(s.byPID, pid)
		}
	}
	var kept []record
	for _, r := range s.lost {
		if roles[r.Role] || r.Bound.After(before) {
			kept = append(kept, r)
		}
	}
	s.lost = kept
	if s.lines < 2*(len(s.byPID)+len(s.lost))+64 {
		return nil
	}
	return s.rewrite()
}

func (s *sessions) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Close()
}
