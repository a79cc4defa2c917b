package server

import (
	"context"
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
// them, to the log. A crash between the two steps repeats an event, never loses one.
func (s *Server) drain(ctx context.Context) error {
	var from store.Revision
	for {
		rev, err := s.drainOnce(ctx)
		if err != nil && ctx.Err() == nil {
			s.config.Log.Error("draining the audit outbox", "err", err)
		}
		from = max(from, rev)
		if err := s.untilLeft(ctx, from); err != nil {
			if ctx.Err() != nil {
				_, err := s.drainOnce(context.WithoutCancel(ctx)) // what came meanwhile
				return err
			}
			if !errors.Is(err, store.ErrCompacted) {
				return err
			}
		}
	}
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

func (s *Server) drainOnce(ctx context.Context) (rev store.Revision, err error) {
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
	_, err = s.db.Update(ctx, func(tx store.Tx) error {
		for _, k := range keys {
			tx.Delete(k)
		}
		return nil
	})
	return rev, err
}

// mostEvents bounds one answer of GET /audit.
const mostEvents = 1000

// serveAudit answers GET /audit?action=&principal=&target=&trace=&correlation=&refused=true&last=N: the
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
			is(ev.Trace, q.Get("trace")) && is(ev.Correlation, q.Get("correlation")) &&
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
