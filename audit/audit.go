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
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"innate"
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
	// From is the machine whose agent recorded the event and sent it here, as its
	// certificate says; the rest is what that machine says. Empty: this server did.
	From   string            `json:"from,omitempty"`
	Detail map[string]string `json:"detail,omitempty"`
}

// maxEvent is the length in bytes of the longest event as JSON.
const maxEvent = maxLine - chainLen

// encode is ev as one line of JSON, without the line feed.
func (ev Event) encode() ([]byte, error) {
	if ev.Action == "" {
		return nil, errors.New("an audit event must name its action")
	}
	if ev.Time.IsZero() {
		ev.Time = time.Now()
	}
	ev.Time = ev.Time.UTC()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // for people's eyes: the log is not HTML
	if err := enc.Encode(ev); err != nil {
		return nil, fmt.Errorf("audit event %s: %w", ev.Action, err)
	}
	if b.Len() > maxEvent {
		return nil, fmt.Errorf("audit event %s: it has %d bytes, the most is %d", ev.Action, b.Len(), maxEvent)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func decode(b []byte) (ev Event, err error) {
	if err := json.Unmarshal(b, &ev); err != nil {
		return Event{}, fmt.Errorf("audit event: %w", err)
	}
	return ev, nil
}
