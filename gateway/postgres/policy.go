package postgres

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"

	"innate"
	"innate/bearer"
	"innate/feed/client"
)

// A policy is what the feed says of the server and of who may log in.
type policy struct {
	mu       sync.RWMutex
	now      view
	next     *view            // the snapshot that is coming in; until it is whole, now goes on deciding
	verifier *bearer.Verifier // for the audiences of now; nil: to be made
}

// A view is the rows as they were at one moment.
type view struct {
	server *client.DatabaseServer                   // nil: there is none, and nobody may log in
	logins map[innate.ObjectID]client.DatabaseLogin // by object id in lower case
	places map[string]client.DatabasePlace          // where certificates may come from, by id
}

func newView() view {
	return view{logins: map[innate.ObjectID]client.DatabaseLogin{}, places: map[string]client.DatabasePlace{}}
}

func newPolicy() *policy {
	return &policy{now: newView()}
}

// apply takes one event. A row that cannot be read is a row that allows nothing.
func (p *policy) apply(ev client.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case ev.Reset:
		next := newView()
		p.next = &next
		return
	case ev.Synced:
		if p.next != nil {
			p.now, p.next, p.verifier = *p.next, nil, nil
		}
		return
	}
	v := &p.now
	if p.next != nil {
		v = p.next
	}
	if ev.Key == "server" {
		v.server, p.verifier = nil, nil
		if s := new(client.DatabaseServer); len(ev.Value) > 0 && json.Unmarshal(ev.Value, s) == nil {
			v.server = s
		}
		return
	}
	if id, ok := strings.CutPrefix(ev.Key, client.DatabasePlaceKey("")); ok {
		delete(v.places, id)
		var row client.DatabasePlace
		if len(ev.Value) > 0 && json.Unmarshal(ev.Value, &row) == nil {
			v.places[id] = row
		}
		return
	}
	id, ok := strings.CutPrefix(ev.Key, "login/")
	if !ok {
		return // a row that a newer control plane tells of
	}
	object := innate.ObjectID(strings.ToLower(id))
	delete(v.logins, object)
	var row client.DatabaseLogin
	if len(ev.Value) > 0 && json.Unmarshal(ev.Value, &row) == nil {
		v.logins[object] = row
	}
}

// verifierFor returns a verifier for the server's audiences, with base's keys;
// nil when there is no server. It is made anew when the row has changed, and
// with it what it remembers: a token that was accepted for an audience that no
// longer is must be looked at again.
func (p *policy) verifierFor(base *bearer.Verifier) *bearer.Verifier {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now.server == nil || len(p.now.server.Audiences) == 0 {
		return nil
	}
	if p.verifier == nil {
		p.verifier = base.For(p.now.server.Audiences...)
	}
	return p.verifier
}

// allows reports whether a principal may log in as a role: byte for byte.
func (p *policy) allows(who innate.ObjectID, role string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.now.server != nil && slices.Contains(p.now.logins[innate.ObjectID(strings.ToLower(string(who)))].Roles, role)
}

// byCertificate reports whether the server takes client certificates, and no tokens.
func (p *policy) byCertificate() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.now.server != nil && p.now.server.Certificate
}

// rows are the lines of pg_ident.conf for who may log in by certificate, in order;
// and the roles that no line can be written for.
func (p *policy) rows() (lines, without []string) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.now.server == nil || !p.now.server.Certificate {
		return nil, nil
	}
	for id, place := range p.now.places {
		for _, role := range p.now.logins[innate.ObjectID(strings.ToLower(string(place.Object)))].Roles {
			if line, ok := row(p.now.server.Resource, id, place.Object, role); ok {
				lines = append(lines, line)
			} else {
				without = append(without, role)
			}
		}
	}
	slices.Sort(lines)
	slices.Sort(without)
	return lines, slices.Compact(without)
}

// holds reports whether an identity's certificates may come from a place.
func (p *policy) holds(place string, who innate.ObjectID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	at, ok := p.now.places[place]
	return ok && at.Object == who
}
