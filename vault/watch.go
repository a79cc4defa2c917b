package vault

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"innate"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

const (
	usualWait   = 30 * time.Second // when a request does not say
	longestWait = 60 * time.Second // proxies give up on what is silent for longer
	mostChanges = 100              // in an answer; those of one transaction are not parted

	maxWaiting     = 10_000 // requests at a time
	maxWaitingEach = 500    // of one identity: its programs may be many
)

// A watch is the query of GET /changes and GET /changes/{name}.
type watch struct {
	since store.Revision // 0 asks where the vault is now
	wait  time.Duration
}

func watchOf(r *http.Request) (watch, error) {
	w := watch{wait: usualWait}
	q := r.URL.Query()
	if v := q.Get("since"); v != "" {
		since, err := strconv.ParseUint(v, 10, 63)
		if err != nil || since == 0 {
			return w, bad("since", "since is no revision: want the revision of the last answer, or no since to begin")
		}
		w.since = store.Revision(since)
	}
	if v := q.Get("wait"); v != "" {
		wait, err := strconv.ParseUint(v, 10, 16)
		w.wait = time.Duration(wait) * time.Second
		if err != nil || w.wait > longestWait {
			return w, bad("wait", "wait is not as long as may be waited: want 0 to %d seconds", longestWait/time.Second)
		}
	}
	return w, nil
}

// A heard is the answer: what changed after since, oldest first, and the
// revision to ask from next. Names and versions only, never a value.
type heard struct {
	Revision store.Revision `json:"revision"`
	Changes  []heardChange  `json:"changes"`
}

type heardChange struct {
	Revision store.Revision `json:"revision"`
	Change   string         `json:"change"` // set, updated, deleted, recovered or purged
	Name     string         `json:"name"`
	Version  string         `json:"version,omitempty"` // that it was about; none when purged
}

// serveChanges answers when there is something to tell, at the latest when the
// wait is over. Its own of Azure's API: there, one polls.
func (s *Service) serveChanges(r *http.Request, u use) (any, error) {
	w, err := watchOf(r)
	if err != nil {
		return nil, err
	}
	return s.watch(r.Context(), u, w)
}

// watch waits for what changes after w.since. Who may read the metadata may
// hear of it; that is decided before the wait, and again after it.
func (s *Service) watch(ctx context.Context, u use, w watch) (heard, error) {
	if _, err := s.allow(ctx, u, readMetadata); err != nil {
		return heard{}, err
	}
	if err := s.config.DB.Sync(ctx); err != nil {
		return heard{}, err
	}
	if w.since > 0 && w.wait > 0 {
		if err := s.await(ctx, u, w); err != nil {
			return heard{}, err
		}
	}
	answer := heard{Revision: w.since, Changes: []heardChange{}}
	err := s.read(ctx, u, readMetadata, func(r store.Reader, v vaultRow, _ *audit.Event) error {
		if w.since == 0 {
			answer.Revision = r.Revision()
			return nil
		}
		l := s.history.after(v.GUID, strings.ToLower(u.secret), w.since, mostChanges)
		if l.gone || w.since > r.Revision() {
			return historyGone(w.since)
		}
		answer = heard{Revision: l.through, Changes: make([]heardChange, 0, len(l.found))}
		for _, one := range l.found {
			name, err := nameAt(r, one.at)
			if err != nil {
				return err
			}
			answer.Changes = append(answer.Changes, heardChange{one.revision, one.kind, name, one.version})
		}
		return nil
	})
	return answer, err
}

// await returns when there may be something to tell.
func (s *Service) await(ctx context.Context, u use, w watch) error {
	var guid string
	var newest store.Revision
	if err := s.config.DB.View(ctx, func(r store.Reader) error {
		v, err := s.vaultIn(r, u.vault)
		guid, newest = v.GUID, r.Revision()
		return err
	}); err != nil {
		return err
	}
	if w.since > newest {
		return nil // there is nothing to wait for, as will be said
	}
	if !s.waiting.enter(u.who.Object) {
		return rest.Errorf(http.StatusTooManyRequests, "TooManyRequests",
			"too many requests wait for changes here: ask with wait=0, or let fewer programs wait (%d of one identity)", maxWaitingEach)
	}
	defer s.waiting.leave(u.who.Object)
	late := time.NewTimer(w.wait)
	defer late.Stop()
	for {
		l := s.history.after(guid, strings.ToLower(u.secret), w.since, 1)
		if l.gone || len(l.found) > 0 || l.more == nil {
			return s.stillGood(ctx, u)
		}
		select {
		case <-l.more:
		case <-late.C:
			return s.stillGood(ctx, u)
		case <-ctx.Done():
			// No fault of the server, which would be logged; SDKs ask again after a 408.
			return rest.Errorf(http.StatusRequestTimeout, "RequestTimeout", "the wait was cut short, for the server stops or the caller has gone: ask again")
		}
	}
}

// stillGood refuses one whose token was revoked during the wait: it was checked
// when the wait began.
func (s *Service) stillGood(ctx context.Context, u use) error {
	if s.config.Revoked == nil {
		return nil
	}
	why, revoked := s.config.Revoked(u.who)
	if !revoked {
		return nil
	}
	ev, err := s.allow(ctx, u, readMetadata)
	if err != nil {
		return err
	}
	ev.Allowed, ev.Why = false, "its token was revoked while it waited: "+why
	if err := s.record(ctx, ev, nil); err != nil {
		return err
	}
	return rest.Errorf(http.StatusForbidden, "Forbidden", "the access token was revoked while this request waited (%s): get another", why)
}

// nameAt is a secret's name in the case of its first writer; of one that was
// purged only the lower case is known.
func nameAt(r store.Reader, at place) (string, error) {
	row, ok, err := secrets.Get(r, at.key())
	if err != nil || ok {
		return row.Name, err
	}
	gone, ok, err := deleted.Get(r, at.key())
	if err != nil || ok {
		return gone.Name, err
	}
	return at.name, nil
}

func historyGone(since store.Revision) error {
	return rest.Errorf(http.StatusGone, "HistoryGone",
		"what changed after revision %d is not known here: ask for /changes without since, read what you need anew, and go on from that revision", since)
}

// A waitingRoom has a seat for every request that waits.
type waitingRoom struct {
	mu    sync.Mutex
	all   int
	those map[innate.ObjectID]int
}

// enter reports whether there was a seat.
func (w *waitingRoom) enter(who innate.ObjectID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= maxWaiting || w.those[who] >= maxWaitingEach {
		return false
	}
	w.all++
	w.those[who]++
	return true
}

func (w *waitingRoom) leave(who innate.ObjectID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.those[who]--; w.those[who] == 0 {
		delete(w.those, who)
	}
}
