// Package feed is what changed: it serves a prefix of the store as a stream of
// events, snapshot first, and keeps the rows that say what is revoked.
//
// It leaves to its caller who may hear which prefix, and to feed/client the
// other end of the wire. A row that is served must be JSON, and every word of
// it is for the reader's eyes.
package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"innate/feed/client"
	"innate/store"
)

const (
	// Beat is how often a quiet feed says that it is still there.
	Beat = 5 * time.Second

	writeLimit = 15 * time.Second // a reader that takes nothing for so long has gone
	batch      = 64 << 10         // bytes that are gathered before they are written
)

// A Range is rows that a reader hears: those under Prefix, whose keys begin with As for the reader.
type Range struct{ Prefix, As string }

// Serve streams the rows under prefix, with prefix cut from their keys, and those of the ranges beside it, from
// ?from=REVISION or, without it or when that history is gone, a Reset and a snapshot first. It ends with the
// request's context.
func Serve(w http.ResponseWriter, r *http.Request, db *store.DB, prefix string, beside ...Range) {
	from := uint64(0)
	if v := r.URL.Query().Get("from"); v != "" {
		var err error
		if from, err = strconv.ParseUint(v, 10, 64); err != nil {
			http.Error(w, fmt.Sprintf("from=%q: want the revision of the last event that was heard", v), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", client.ContentType)
	w.Header().Set("Cache-Control", "no-store")
	s := &stream{db: db, ranges: append([]Range{{Prefix: prefix}}, beside...), w: w, out: http.NewResponseController(w)}
	if err := s.run(r.Context(), store.Revision(from)); err != nil && r.Context().Err() == nil {
		slog.Warn("feed ended; its reader will connect again", "prefix", prefix, "reader", r.RemoteAddr, "err", err)
	}
}

// A stream is one reader's. It has its own goroutine and its own place in the
// history, so that a slow reader delays nobody else.
type stream struct {
	db     *store.DB
	ranges []Range
	w      http.ResponseWriter
	out    *http.ResponseController
	lines  bytes.Buffer // gathered, not yet written

	done  store.Revision // all up to here has been sent
	whole store.Revision // what was true when the reader came
	said  bool           // Synced has been sent
}

func (s *stream) run(ctx context.Context, from store.Revision) error {
	if err := s.db.Sync(ctx); err != nil {
		return err
	}
	whole, err := s.newest(ctx)
	if err != nil {
		return err
	}
	s.done, s.whole = from, whole
	// A reader that is ahead of us has heard another history: a store that was restored.
	if from == 0 || from > s.whole {
		if err := s.snapshot(ctx); err != nil {
			return err
		}
	}
	for {
		err := s.follow(ctx)
		if !errors.Is(err, store.ErrCompacted) {
			return err
		}
		if err := s.snapshot(ctx); err != nil {
			return err
		}
	}
}

// snapshot sends every row, and nothing that happened meanwhile.
func (s *stream) snapshot(ctx context.Context) error {
	return s.db.View(ctx, func(r store.Reader) error {
		if err := s.put(client.Event{Reset: true}); err != nil {
			return err
		}
		for _, rows := range s.ranges {
			for key, value := range r.Scan(rows.Prefix, "") {
				if err := s.row(0, rows.told(key), value); err != nil {
					return err
				}
			}
		}
		s.done, s.said = r.Revision(), true
		if err := s.put(client.Event{Revision: uint64(s.done), Synced: true}); err != nil {
			return err
		}
		return s.flush()
	})
}

// follow sends what is committed after s.done, and beats.
func (s *stream) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	commits := make(chan store.Commit, 64)
	var ended error // why commits was closed
	go func() {
		defer close(commits)
		for commit, err := range s.db.Watch(ctx, s.done) {
			if err != nil {
				ended = err
				return
			}
			select {
			case commits <- commit:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range commits { // until the watch has stopped
		}
	}()

	beat := time.NewTicker(Beat)
	defer beat.Stop()
	due := s.done // what a beat vouches for: all that was true at the one before
	for {
		if err := s.sync(); err != nil {
			return err
		}
		if len(commits) == 0 {
			if err := s.flush(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case commit, ok := <-commits:
			if !ok {
				return ended
			}
			if err := s.commit(commit); err != nil {
				return err
			}
		case <-beat.C:
			if s.said && s.done >= due {
				if err := s.put(client.Event{Revision: uint64(s.done), Beat: true}); err != nil {
					return err
				}
			}
			var err error
			if due, err = s.newest(ctx); err != nil {
				return err
			}
		}
	}
}

// newest is the revision that this process has seen.
func (s *stream) newest(ctx context.Context) (rev store.Revision, err error) {
	err = s.db.View(ctx, func(r store.Reader) error { rev = r.Revision(); return nil })
	return rev, err
}

// sync says, once, that what was true when the reader came has been sent.
func (s *stream) sync() error {
	if s.said || s.done < s.whole {
		return nil
	}
	s.said = true
	return s.put(client.Event{Revision: uint64(s.done), Synced: true})
}

// told is key as the reader knows it.
func (r Range) told(key string) string { return r.As + strings.TrimPrefix(key, r.Prefix) }

// commit sends what a transaction changed of the ranges. Its revision
// stands on the last row only: a reader cut off before that hears it all again.
func (s *stream) commit(c store.Commit) error {
	var ours []store.Change
	for _, ch := range c.Changes {
		for _, rows := range s.ranges {
			if strings.HasPrefix(ch.Key, rows.Prefix) {
				ours = append(ours, store.Change{Key: rows.told(ch.Key), Value: ch.Value})
			}
		}
	}
	for i, ch := range ours {
		at := s.done
		if i == len(ours)-1 {
			at = c.Revision
		}
		if err := s.row(at, ch.Key, ch.Value); err != nil {
			return err
		}
	}
	s.done = c.Revision
	return nil
}

func (s *stream) row(at store.Revision, key string, value []byte) error {
	return s.put(client.Event{Revision: uint64(at), Key: key, Value: value})
}

func (s *stream) put(ev client.Event) error {
	line, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("event of %s: %w", ev.Key, err)
	}
	s.lines.Write(line)
	s.lines.WriteByte('\n')
	if s.lines.Len() < batch {
		return nil
	}
	return s.flush()
}

func (s *stream) flush() error {
	if s.lines.Len() == 0 {
		return nil
	}
	if err := s.deadline(time.Now().Add(writeLimit)); err != nil {
		return err
	}
	if _, err := s.w.Write(s.lines.Bytes()); err != nil {
		return err
	}
	s.lines.Reset()
	if err := s.out.Flush(); err != nil {
		return err
	}
	return s.deadline(time.Time{}) // HTTP/2 ends an idle stream whose deadline passes
}

func (s *stream) deadline(at time.Time) error {
	err := s.out.SetWriteDeadline(at)
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
