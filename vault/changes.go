package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"innate/store"
)

const (
	remembered = 10_000 // changes of all vaults that can be asked for, and up to as many more
	lookBack   = 10_000 // commits that are read when the server starts, so that a restart goes unnoticed

	followPause = time.Second // after a failure to follow the store
)

// What can happen to a secret.
const (
	wasSet       = "set" // a new version, or a backup restored
	wasUpdated   = "updated"
	wasDeleted   = "deleted"
	wasRecovered = "recovered"
	wasPurged    = "purged"
)

// A change is what a transaction did to one secret. It has no value.
type change struct {
	revision store.Revision
	at       place
	kind     string
	version  string // empty when purged
}

// A history is what happened lately in every vault, in the order of the store,
// and those who wait for more.
type history struct {
	mu      sync.Mutex
	changes []change
	before  store.Revision           // every change after this one is in changes
	through store.Revision           // and every commit up to this one has been heard
	news    map[string]chan struct{} // by vault (GUID), where somebody waits: closed at its next change
	ended   bool                     // nothing will be heard any more
}

func newHistory() *history { return &history{news: map[string]chan struct{}{}} }

// begin forgets everything: what comes next is the commit after from.
func (h *history) begin(from store.Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes, h.before, h.through = nil, from, from
	h.wakeAll()
}

// end wakes everybody: nothing more will be heard.
func (h *history) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.wakeAll()
}

func (h *history) wakeAll() {
	for vault := range h.news {
		h.wake(vault)
	}
}

// wake is called with mu held.
func (h *history) wake(vault string) {
	if news, ok := h.news[vault]; ok {
		close(news)
		delete(h.news, vault)
	}
}

// add hears a commit, and wakes those who wait for a vault that is in it.
func (h *history) add(c store.Commit) error {
	found, err := changesIn(c)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes, h.through = append(h.changes, found...), c.Revision
	if extra := len(h.changes) - remembered; extra >= remembered {
		for extra < len(h.changes) && h.changes[extra].revision == h.changes[extra-1].revision {
			extra++ // a commit is forgotten whole
		}
		h.before = h.changes[extra-1].revision
		h.changes = slices.Clone(h.changes[extra:])
	}
	for _, one := range found {
		h.wake(one.at.vault)
	}
	return nil
}

// A look is what a history had to say.
type look struct {
	found   []change
	through store.Revision  // nothing is missing up to here
	gone    bool            // some of what was asked for is not kept
	more    <-chan struct{} // closed when there is more; nil when nothing will come
}

// after looks for at most so many changes of a vault after since, of one secret
// or of all, and then some: those of one commit come together.
func (h *history) after(vault, name string, since store.Revision, most int) look {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := look{through: max(since, h.through), gone: since < h.before}
	first := sort.Search(len(h.changes), func(i int) bool { return h.changes[i].revision > since })
	for _, one := range h.changes[first:] {
		if one.at.vault != vault || name != "" && one.at.name != name {
			continue
		}
		if len(l.found) >= most && one.revision != l.found[len(l.found)-1].revision {
			l.through = l.found[len(l.found)-1].revision
			break
		}
		l.found = append(l.found, one)
	}
	if h.ended {
		return l
	}
	if h.news[vault] == nil {
		h.news[vault] = make(chan struct{})
	}
	l.more = h.news[vault]
	return l
}

// changesIn tells what a commit did to secrets. Its rows come in the order of
// their tables, and the first that speaks of a secret says what happened to it.
func changesIn(c store.Commit) (found []change, err error) {
	seen := map[place]int{} // where in found
	for _, row := range c.Changes {
		table, at, version := rowAt(row.Key)
		if table == "" || table == string(versions) && row.Value == nil {
			continue
		}
		if table != string(versions) && row.Value != nil {
			now, err := secrets.Decode(row.Value) // a deleted one has the same members and more
			if err != nil {
				return nil, err
			}
			version = now.Latest
		}
		if i, already := seen[at]; already {
			if table == string(secrets) && row.Value != nil { // it is no longer among the deleted
				found[i].kind, found[i].version = wasRecovered, version
			}
			continue
		}
		seen[at] = len(found)
		found = append(found, change{c.Revision, at, kindOf(table, row.Value == nil), version})
	}
	return found, nil
}

// kindOf is what happened to a secret of which a row was written or is gone.
func kindOf(table string, gone bool) string {
	switch {
	case gone:
		return wasPurged
	case table == string(deleted):
		return wasDeleted
	case table == string(secrets):
		return wasSet
	}
	return wasUpdated
}

// rowAt reads the key of a secret's row: a table, then GUID/name, of a version
// GUID/name/version. The table is empty for any other row.
func rowAt(key string) (table string, at place, version string) {
	for _, table := range []string{string(deleted), string(secrets), string(versions)} {
		if id, ok := strings.CutPrefix(key, table); ok {
			at.vault, id, _ = strings.Cut(id, "/")
			at.name, version, _ = strings.Cut(id, "/")
			return table, at, version
		}
	}
	return "", place{}, ""
}

// Follow hears what changes and tells those who wait for it, until ctx ends;
// then nobody waits any more.
func (s *Service) Follow(ctx context.Context) error {
	defer s.history.end()
	if err := s.followOn(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

func (s *Service) followOn(ctx context.Context) error {
	from, err := s.newest(ctx)
	if err != nil {
		return err
	}
	from -= min(from, lookBack)
	s.history.begin(from)
	for {
		err := s.follow(ctx, from)
		if ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return nil
		}
		if errors.Is(err, store.ErrCompacted) {
			if from, err = s.newest(ctx); err != nil {
				return err
			}
			s.history.begin(from)
			continue
		}
		slog.ErrorContext(ctx, "following the secrets; trying again", "err", err, "in", followPause)
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return nil
		}
		from = s.history.heard()
	}
}

func (s *Service) follow(ctx context.Context, from store.Revision) error {
	for commit, err := range s.config.DB.Watch(ctx, from) {
		if err == nil {
			err = s.history.add(commit)
		}
		if err != nil {
			return fmt.Errorf("after revision %d: %w", from, err)
		}
		from = commit.Revision
	}
	return nil
}

// heard is the newest revision that was heard.
func (h *history) heard() store.Revision {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.through
}

func (s *Service) newest(ctx context.Context) (newest store.Revision, err error) {
	err = s.config.DB.View(ctx, func(r store.Reader) error {
		newest = r.Revision()
		return nil
	})
	return newest, err
}
