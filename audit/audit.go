// Package audit is what was decided: append to a local file, read it back, and
// tell whoever carries lines elsewhere how far it has come (Place).
//
// It owns the file: a line of JSON an event, in the order in which they were
// appended, each durable before anyone is told so, and each chained to the one
// before so that a changed, missing or moved line shows. It leaves to others
// what is worth recording, and carrying the lines elsewhere (audit/ship): the chain
// alone cannot tell that the newest lines were cut off or the whole file written anew.
//
// Give no answer that an event decides before Record, or the wait that Append
// returned, has returned nil.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"innate"
	"innate/jsonobject"
)

// An Event is one decision or change. Secrets, tokens and keys never stand in one.
type Event struct {
	Time        time.Time        `json:"time"`             // when empty, that of Append
	Action      string           `json:"action"`           // what was asked: an ARM or data action, or issue-token, join-host …
	Allowed     bool             `json:"allowed"`          // what was decided
	Target      string           `json:"target,omitempty"` // resource id, scope or audience
	Principal   innate.ObjectID  `json:"principal,omitempty"`
	Name        string           `json:"name,omitempty"` // of the principal, for people
	Client      innate.ClientID  `json:"client,omitempty"`
	Hosting     string           `json:"hosting,omitempty"` // the VM or app that asked
	Host        string           `json:"host,omitempty"`    // the machine it ran on
	Assurance   innate.Assurance `json:"assurance,omitempty"`
	Token       string           `json:"token,omitempty"` // uti
	Why         string           `json:"why,omitempty"`   // the rule that decided
	Trace       string           `json:"trace,omitempty"`
	Correlation string           `json:"correlation,omitempty"`
	Address     string           `json:"address,omitempty"` // of the peer
	// From is who recorded the event and sent it here: the machine of an agent's certificate, or the PostgreSQL
	// server of a gateway's right. The rest is what that one says. Empty: this server did.
	From   string            `json:"from,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`
}

// maxEvent is the length in bytes of the longest event as JSON.
const maxEvent = maxLine - chainLen

// append adds ev to b as one line of JSON, without the line feed: what
// encoding/json makes of it, with the characters of HTML as they are, since the
// log is for people's eyes. With an error b is as it was. It keeps nothing of ev,
// an error's copy of its action aside: the caller's map can stay on its stack.
func (ev *Event) append(b []byte) ([]byte, error) {
	if ev.Action == "" {
		return b, errors.New("an audit event must name its action")
	}
	at := ev.Time
	if at.IsZero() {
		at = time.Now()
	}
	begin := len(b)
	b, err := at.UTC().AppendText(append(jsonobject.Name(append(b, '{'), "time"), '"'))
	if err != nil {
		return b[:begin], fmt.Errorf("audit event %s: %w", strings.Clone(ev.Action), err)
	}
	b = jsonobject.String(append(b, '"'), "action", ev.Action)
	b = strconv.AppendBool(jsonobject.Name(b, "allowed"), ev.Allowed)
	b = jsonobject.Present(b, "target", ev.Target)
	b = jsonobject.Present(b, "principal", ev.Principal)
	b = jsonobject.Present(b, "name", ev.Name)
	b = jsonobject.Present(b, "client", ev.Client)
	b = jsonobject.Present(b, "hosting", ev.Hosting)
	b = jsonobject.Present(b, "host", ev.Host)
	if ev.Assurance != innate.Unproved {
		b = jsonobject.String(b, "assurance", ev.Assurance.String())
	}
	b = jsonobject.Present(b, "token", ev.Token)
	b = jsonobject.Present(b, "why", ev.Why)
	b = jsonobject.Present(b, "trace", ev.Trace)
	b = jsonobject.Present(b, "correlation", ev.Correlation)
	b = jsonobject.Present(b, "address", ev.Address)
	b = jsonobject.Present(b, "from", ev.From)
	b = append(ev.appendDetail(b), '}')
	if size := len(b) - begin; size > maxEvent {
		return b[:begin], fmt.Errorf("audit event %s: it has %d bytes, the most is %d", strings.Clone(ev.Action), size, maxEvent)
	}
	return b, nil
}

// appendDetail adds the details in the order of their names.
func (ev *Event) appendDetail(b []byte) []byte {
	if len(ev.Detail) == 0 {
		return b
	}
	b = append(jsonobject.Name(b, "detail"), '{')
	var few [8]string // so that the names of most events take no memory
	names := slices.AppendSeq(few[:0], maps.Keys(ev.Detail))
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(jsonobject.Quote(b, name), ':')
		b = jsonobject.Quote(b, ev.Detail[name])
	}
	return append(b, '}')
}

func decode(b []byte) (ev Event, err error) {
	if err := json.Unmarshal(b, &ev); err != nil {
		return Event{}, fmt.Errorf("audit event: %w", err)
	}
	return ev, nil
}
