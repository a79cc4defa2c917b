package hosts

import (
	"context"
	"net/http"

	"innate/feed"
	"innate/feed/client"
	"innate/rest"
)

// A stream is one host's feed while it is being served.
type stream struct {
	thumbprint string
	end        context.CancelFunc
}

// serveFeed tells a host of its rows for as long as its certificate is good.
func (h *Hosts) serveFeed(w http.ResponseWriter, r *http.Request) {
	p, err := h.peer(r, 0)
	if err != nil {
		rest.WriteError(w, r, err)
		return
	}
	ctx, end := context.WithTimeout(r.Context(), p.notAfter.Sub(h.config.Now()))
	defer end()
	// Enlisted first and checked then: an eviction in between finds it.
	defer h.enlist(p, &stream{p.thumbprint, end})()
	m, err := h.caller(ctx, p)
	if err != nil {
		rest.WriteError(w, r, h.refused(r, byHost(r, p.machine, "read-feed"), err))
		return
	}
	h.saw(p)
	feed.Serve(w, r.WithContext(ctx), h.config.DB, told(m.Machine), feed.Range{
		Prefix: feed.RevokedPrefix + string(client.RevokedKey) + "/", As: "revoked/" + string(client.RevokedKey) + "/",
	})
	h.saw(p)
}

// enlist makes s one of the streams that cut may end, until the function that
// it returns is called.
func (h *Hosts) enlist(p peer, s *stream) (leave func()) {
	key := p.machine.Key()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.feeds[key] == nil {
		h.feeds[key] = map[*stream]bool{}
	}
	h.feeds[key][s] = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if delete(h.feeds[key], s); len(h.feeds[key]) == 0 {
			delete(h.feeds, key)
		}
	}
}

// cut ends the feeds of a machine whose certificate is no longer the one on
// record: evicted, deleted, joined again. The store calls it for every change of
// a member's row, whichever server made it.
func (h *Hosts) cut(key string, m *member) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.feeds[key] {
		if m != nil {
			if _, held := m.held(s.thumbprint); held {
				continue
			}
		}
		s.end()
	}
}
