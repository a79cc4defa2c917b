package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// A Link is a line's value of the chain.
//
// A line is the event's JSON object with one more member, the last, and a line feed:
//
//	{"time":…,"action":…,…,"chain":"<64 lower-case hex digits>"}
//
// The digits are SHA-256 over the 32 bytes of the link of the line before (32
// zero bytes for the first line) followed by the bytes of the event's object as
// it stands without that member: the line up to `,"chain":"`, and `}`.
type Link [sha256.Size]byte

const (
	chainKey = `,"chain":"`
	chainEnd = `"}`
	// chainLen is how many bytes at the end of a line, line feed aside, are not the event's.
	chainLen = len(chainKey) + 2*sha256.Size + len(chainEnd)
	// maxLine is the length in bytes of the longest line, its line feed included: what one request may carry.
	maxLine = 1 << 20
)

// follow is the link of the line that holds event and comes after prev.
func (prev Link) follow(event []byte) (next Link) {
	h := sha256.New()
	h.Write(prev[:])
	h.Write(event)
	h.Sum(next[:0])
	return next
}

// appendLine adds event's line to b.
func appendLine(b, event []byte, l Link) []byte {
	b = append(b, event[:len(event)-1]...) // without its closing brace
	b = append(b, chainKey...)
	b = hex.AppendEncode(b, l[:])
	return append(b, chainEnd+"\n"...)
}

// parseLine takes a line without its line feed apart.
func parseLine(line []byte) (event []byte, l Link, err error) {
	cut := len(line) - chainLen
	if cut < 1 || !bytes.HasPrefix(line[cut:], []byte(chainKey)) || !bytes.HasSuffix(line, []byte(chainEnd)) {
		return nil, l, errors.New("it is no line of an audit log")
	}
	digits := line[cut+len(chainKey) : len(line)-len(chainEnd)]
	if _, err := hex.Decode(l[:], digits); err != nil || bytes.ContainsAny(digits, "ABCDEF") {
		return nil, l, errors.New("its chain value is not 64 lower-case hex digits")
	}
	return append(line[:cut:cut], '}'), l, nil
}

// Read yields the events of the file at path from the oldest; the error of the
// last pair, if any, says where the chain is broken. A last line without a line
// feed is still being written, or was when its writer died, and is left out.
func Read(path string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Event{}, fmt.Errorf("reading the audit log: %w", err))
			return
		}
		defer f.Close()
		var prev Link
		for ln, err := range lines(f) {
			var ev Event
			if err == nil {
				ev, prev, err = verify(ln.text, prev)
			}
			if err != nil {
				yield(Event{}, fmt.Errorf("reading the audit log %s, line %d: %w", path, ln.number, err))
				return
			}
			if !yield(ev, nil) {
				return
			}
		}
	}
}

func verify(line []byte, prev Link) (Event, Link, error) {
	event, l, err := parseLine(line)
	if err != nil {
		return Event{}, l, err
	}
	if prev.follow(event) != l {
		return Event{}, l, errors.New("the chain is broken: this line, or one that stood before it, was changed or removed")
	}
	ev, err := decode(event)
	return ev, l, err
}

var errLongLine = fmt.Errorf("it is longer than %d bytes", maxLine)

// A line is one of a file; its text, without the line feed, lasts until the next one.
type line struct {
	number int // the first is 1
	text   []byte
}

// lines yields the complete lines of r.
func lines(r io.Reader) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		in := bufio.NewReaderSize(r, maxLine)
		for n := 1; ; n++ {
			text, err := in.ReadSlice('\n')
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.Is(err, bufio.ErrBufferFull):
				err = errLongLine
			}
			if err != nil {
				yield(line{number: n}, err)
				return
			}
			if !yield(line{n, text[:len(text)-1]}, nil) {
				return
			}
		}
	}
}
