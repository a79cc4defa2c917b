// Package ship carries an audit log to the server that gathers them.
//
// It owns both ends of the wire: a Sender follows a log and posts its lines, a
// Cursor is what the server remembers of a log and decides what it takes. Who is
// sending, and what becomes of the events, is the server's.
//
// Each line arrives once, whatever ends or is lost in between, if the server
// writes the events and the Cursor's new place in one transaction: what it has is
// the server's to know alone, and a Sender begins by asking.
//
//	POST {URL}?at=PLACE[&instead=PLACE]     Content-Type: application/x-ndjson
//	LINES
//	→ 200 {"at": PLACE}
//
// LINES are as they stand in the log from the first PLACE on (audit.Place), none
// to ask. The answer is how far the server has come; it has taken the lines if it
// is the place after them. With instead, what the server had of another log, or of
// lines that this log has no longer, is given up for at, if it still is at that place.
package ship

import (
	"fmt"
	"time"

	"innate/audit"
)

const (
	// MaxBody bounds the lines of one request, in bytes: the longest line there is fits.
	MaxBody = 1 << 20
	// maxRecord is the longest line in bytes that is kept as it is.
	maxRecord = 64 << 10

	batch = 64 << 10 // bytes of lines that are sent at once
)

// A Request is one post of a Sender.
type Request struct {
	At      audit.Place
	Instead audit.Place // what the server is to give up for At; the zero Place when it had nothing
	Lines   []byte
}

// Take decides what a server that has come to a place takes of a request: the
// events, and where it has come then. A request that does not go on from there
// is no error, and nothing of it is taken; lines that are damaged are one.
//
// Where a log gives up what was sent before, the first event says so: it is not
// allowed when the lines were cut off or changed, and allowed when a new log begins.
func Take(was audit.Place, r Request, now time.Time) (events []audit.Event, to audit.Place, err error) {
	if r.At != was && r.Instead != was {
		return nil, was, nil
	}
	if events, to, err = audit.Parse(r.Lines, r.At); err != nil {
		return nil, was, err
	}
	rest := r.Lines
	for i, ev := range events {
		length := lineLength(rest)
		if rest = rest[length:]; length > maxRecord {
			events[i] = omitted(ev, length)
		}
	}
	if r.At != was && was != (audit.Place{}) {
		events = append([]audit.Event{givenUp(was, r.At, now)}, events...)
	}
	return events, to, nil
}

// omitted stands for an event that is too long to be kept twice.
func omitted(ev audit.Event, length int) audit.Event {
	return audit.Event{
		Time: ev.Time, Action: ev.Action[:min(len(ev.Action), 200)], Allowed: ev.Allowed,
		Why: fmt.Sprintf("the record has %d bytes, and is only in the log that it came from", length),
	}
}

// givenUp is the record that a log does not go on where it was.
func givenUp(was, at audit.Place, now time.Time) audit.Event {
	ev := audit.Event{
		Time: now, Action: "begin-audit-log", Allowed: true,
		Why:    "a new audit log begins there: what the one before held after what was received is not known here",
		Detail: map[string]string{"received": fmt.Sprint(was.Offset), "log": fmt.Sprintf("%x", was.Log)},
	}
	if was.Log == at.Log {
		ev.Action, ev.Allowed = "continue-audit-log", false
		ev.Why = "its audit log was cut off, or written anew: it has no longer what was received from it"
	}
	return ev
}

func lineLength(lines []byte) int {
	for i, c := range lines {
		if c == '\n' {
			return i + 1
		}
	}
	return len(lines)
}
