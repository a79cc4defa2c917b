package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"innate"
	"innate/access"
	"innate/admin"
	"innate/audit"
	"innate/bearer"
	"innate/rest"
	"innate/store"
)

// readAudit is the right to read the log; Azure's name for its activity log.
var readAudit = access.Control("Microsoft.Insights/eventtypes/values/read")

// drain moves events from the outbox, where the transactions they record left
// them, to the log. A crash between the two steps is seen at the next start.
func (s *Server) drain(ctx context.Context) error {
	var from store.Revision
	if err := s.dropDrained(ctx); err != nil && ctx.Err() == nil {
		s.config.Log.Error("reading which events were drained before: some may be recorded twice", "err", err)
	}
	for {
		rev, err := s.drainOnce(ctx)
		if err != nil && ctx.Err() == nil {
			s.config.Log.Error("draining the audit outbox", "err", err)
		}
		from = max(from, rev)
		if err := s.untilLeft(ctx, from); err != nil {
			if ctx.Err() != nil {
				_, err := s.drainOnce(ctx) // what came meanwhile
				return err
			}
			if !errors.Is(err, store.ErrCompacted) {
				return err
			}
		}
	}
}

// dropDrained removes from the outbox what is in the log already.
func (s *Server) dropDrained(ctx context.Context) error {
	left := map[string][]string{} // keys, by what the event says
	err := s.db.View(ctx, func(r store.Reader) error {
		for k, v := range r.Scan(audit.OutboxPrefix, "") {
			ev, err := audit.Drained(v)
			if err != nil {
				return fmt.Errorf("event %s: %w", k, err)
			}
			left[said(ev)] = append(left[said(ev)], k)
		}
		return nil
	})
	if err != nil || len(left) == 0 {
		return err
	}
	var keys []string
	for ev, err := range audit.Read(filepath.Join(s.config.Dir, auditFile)) {
		if err != nil {
			return err
		}
		if same := left[said(ev)]; len(same) > 0 {
			keys, left[said(ev)] = append(keys, same[0]), same[1:]
		}
	}
	return s.dropOutbox(ctx, keys)
}

// said is all that an event says, as one text.
func said(ev audit.Event) string {
	text, _ := json.Marshal(ev) // of strings, and never fails
	return string(text)
}

func (s *Server) dropOutbox(ctx context.Context, keys []string) error {
	_, err := s.db.Update(ctx, func(tx store.Tx) error {
		for _, k := range keys {
			tx.Delete(k)
		}
		return nil
	})
	return err
}

// untilLeft returns after a commit later than from that left an event.
func (s *Server) untilLeft(ctx context.Context, from store.Revision) error {
	for commit, err := range s.db.Watch(ctx, from) {
		if err != nil {
			return err
		}
		for _, ch := range commit.Changes {
			if ch.Value != nil && strings.HasPrefix(ch.Key, audit.OutboxPrefix) {
				return nil
			}
		}
	}
	return ctx.Err()
}

// drainOnce moves what the outbox holds. It goes on when ctx ends: what is in the
// log and still in the outbox would be recorded again.
func (s *Server) drainOnce(ctx context.Context) (rev store.Revision, err error) {
	ctx = context.WithoutCancel(ctx)
	var keys []string
	var waits []func(context.Context) error
	err = s.db.View(ctx, func(r store.Reader) error {
		rev = r.Revision()
		for k, v := range r.Scan(audit.OutboxPrefix, "") {
			ev, err := audit.Drained(v)
			if err != nil {
				return fmt.Errorf("event %s: %w", k, err)
			}
			keys, waits = append(keys, k), append(waits, s.audit.Append(ev))
		}
		return nil
	})
	if err != nil || len(keys) == 0 {
		return rev, err
	}
	for _, wait := range waits {
		if err := wait(ctx); err != nil {
			return rev, err
		}
	}
	return rev, s.dropOutbox(ctx, keys)
}

// mostEvents bounds one answer of GET /audit.
const mostEvents = 1000

// serveAudit answers GET /audit?action=&principal=&target=&from=&trace=&correlation=&refused=true&last=N: the
// newest events that match, oldest first. An id, trace and correlation, matches
// as a whole and any other word as a part, whatever its case.
func (s *Server) serveAudit(w http.ResponseWriter, r *http.Request) {
	who, _ := bearer.From(r.Context())
	if err := s.access.Require(r.Context(), who, readAudit, innate.Root); err != nil {
		rest.WriteError(w, r, err)
		return
	}
	q := r.URL.Query()
	last := 100
	if v := q.Get("last"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > mostEvents {
			rest.WriteError(w, r, rest.Errorf(http.StatusBadRequest, "InvalidParameter", "last=%q: want a number from 1 to %d", v, mostEvents))
			return
		}
		last = n
	}
	match := func(ev audit.Event) bool {
		return has(ev.Action, q.Get("action")) && has(ev.Target, q.Get("target")) &&
			(has(ev.Name, q.Get("principal")) || has(string(ev.Principal), q.Get("principal"))) &&
			recordedBy(ev, q.Get("from")) && is(ev.Trace, q.Get("trace")) && is(ev.Correlation, q.Get("correlation")) &&
			(q.Get("refused") != "true" || !ev.Allowed)
	}
	events := []audit.Event{}
	for ev, err := range audit.Read(filepath.Join(s.config.Dir, auditFile)) {
		if err != nil {
			rest.WriteError(w, r, rest.Errorf(http.StatusInternalServerError, "AuditLogDamaged", "reading the audit log: %v", err))
			return
		}
		if match(ev) {
			if events = append(events, ev); len(events) >= 2*mostEvents {
				events = append(events[:0], events[len(events)-mostEvents:]...)
			}
		}
	}
	rest.Write(w, http.StatusOK, map[string]any{"value": events[max(0, len(events)-last):]})
}

func has(s, part string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(part)) }

// recordedBy reports whether the agent of such a machine, or the gateway of such
// a PostgreSQL server, recorded an event; for "server" neither did.
func recordedBy(ev audit.Event, from string) bool {
	if from == "server" {
		return ev.From == ""
	}
	return has(ev.From, from)
}

// is reports whether s is the id that was asked for; none was by an empty one.
func is(s, id string) bool { return id == "" || strings.EqualFold(s, id) }

// servePlatform answers GET /platform: what a client must know to ask for the rest.
func (s *Server) servePlatform(w http.ResponseWriter, r *http.Request) {
	rest.Write(w, http.StatusOK, s.Info())
}

// Info says where the platform answers.
func (s *Server) Info() admin.Info {
	e := s.Endpoints
	return admin.Info{
		Tenant: s.Platform.Tenant, Subscription: s.Platform.Subscription, Domain: s.Platform.Domain,
		Login: e.Login, Management: e.Management, Graph: e.Graph, Hosts: s.Hosts, VaultSuffix: e.VaultSuffix,
		Dev: s.Platform.Dev, CA: string(s.Bundle()),
	}
}
