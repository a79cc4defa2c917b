package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Place is how far in which log somebody has come who carries its lines
// elsewhere. As text it is log:offset:last, the links in hexadecimal. The zero
// Place, whose text is empty, is in no log.
type Place struct {
	Log    Link  // link of the log's first line, by which it is known
	Offset int64 // in bytes: where the next line begins
	Last   Link  // of the line before; zero at the beginning
}

func (p Place) String() string {
	if p == (Place{}) {
		return ""
	}
	return fmt.Sprintf("%x:%d:%x", p.Log, p.Offset, p.Last)
}

// ParsePlace is the inverse of String.
func ParsePlace(s string) (p Place, err error) {
	if s == "" {
		return p, nil
	}
	parts := strings.Split(s, ":")
	if len(parts) != 3 || len(parts[0]) != hex.EncodedLen(len(p.Log)) || len(parts[2]) != hex.EncodedLen(len(p.Last)) {
		return Place{}, errors.New("a place in an audit log is link:offset:link, the links 64 hexadecimal digits")
	}
	if _, err := hex.Decode(p.Log[:], []byte(parts[0])); err != nil {
		return Place{}, fmt.Errorf("the log of a place: %w", err)
	}
	if _, err := hex.Decode(p.Last[:], []byte(parts[2])); err != nil {
		return Place{}, fmt.Errorf("the last line of a place: %w", err)
	}
	if p.Offset, err = strconv.ParseInt(parts[1], 10, 64); err != nil || p.Offset < 0 {
		return Place{}, errors.New("the offset of a place is not a number of bytes")
	}
	return p, nil
}

// MarshalText writes p as String does.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Place) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePlace(string(b))
	return err
}

// ErrElsewhere is the answer to a place that is not in the log.
var ErrElsewhere = errors.New("that place is not in this audit log: the log was cut off there, or written anew")

// Durable returns how many bytes of the log are durable, and a channel that is
// closed when there are more.
func (l *Log) Durable() (end int64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.durable, l.more
}

// settled notes how far the log is durable; it is the writer's to call.
func (l *Log) settled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = l.end
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// Begin is the place before the first line; the zero Place when there is no line yet.
func (l *Log) Begin() (Place, error) {
	end, _ := l.Durable()
	if end == 0 {
		return Place{}, nil
	}
	line, err := l.lineAt(0, end)
	if err != nil {
		return Place{}, err
	}
	_, first, err := parseLine(line)
	return Place{Log: first}, err
}

// End is the place after the last durable line.
func (l *Log) End() (Place, error) {
	p, err := l.Begin()
	if err != nil || p == (Place{}) {
		return p, err
	}
	p.Offset, _ = l.Durable()
	p.Last, err = l.before(p.Offset)
	return p, err
}

// Lines returns durable lines from a place on, as many as fit in most bytes but
// at least one if there is any, and the place after them. The error is
// ErrElsewhere when the place is not in this log.
func (l *Log) Lines(from Place, most int) (lines []byte, to Place, err error) {
	begin, err := l.Begin()
	if err != nil {
		return nil, from, err
	}
	end, _ := l.Durable()
	if from.Log != begin.Log || from.Offset > end {
		return nil, from, ErrElsewhere
	}
	last, err := l.before(from.Offset)
	if err != nil {
		return nil, from, err
	}
	if last != from.Last {
		return nil, from, ErrElsewhere
	}
	lines = make([]byte, min(end-from.Offset, int64(most)))
	if _, err := l.file.ReadAt(lines, from.Offset); err != nil {
		return nil, from, fmt.Errorf("reading the audit log: %w", err)
	}
	lines = lines[:bytes.LastIndexByte(lines, '\n')+1]
	if len(lines) == 0 && from.Offset < end {
		line, err := l.lineAt(from.Offset, end)
		if err != nil {
			return nil, from, err
		}
		lines = append(line, '\n')
	}
	_, to, err = Parse(lines, from)
	return lines, to, err
}

// lineAt reads the line that begins at from, without its line feed.
func (l *Log) lineAt(from, end int64) ([]byte, error) {
	b := make([]byte, min(end-from, int64(maxLine)))
	if _, err := l.file.ReadAt(b, from); err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	line, _, found := bytes.Cut(b, []byte("\n"))
	if !found {
		return nil, fmt.Errorf("reading the audit log at byte %d: %w", from, errLongLine)
	}
	return line, nil
}

// before is the link of the line that ends at offset, zero at the beginning; of
// what is no end of a line it is ErrElsewhere.
func (l *Log) before(offset int64) (last Link, err error) {
	if offset == 0 {
		return last, nil
	}
	b := make([]byte, min(offset, int64(chainLen)+1))
	if _, err := l.file.ReadAt(b, offset-int64(len(b))); err != nil {
		return last, fmt.Errorf("reading the audit log: %w", err)
	}
	end, found := bytes.CutSuffix(b, []byte("\n"))
	// Of the line its last bytes are enough; one more stands for its event.
	if _, last, err = parseLine(append([]byte("{"), end...)); !found || err != nil {
		return last, ErrElsewhere
	}
	return last, nil
}

// Parse takes lines apart that stand in a log from a place on; each must
// continue the chain, and be whole. At the beginning of a log the first line
// must be the one by which it is known.
func Parse(lines []byte, from Place) (events []Event, to Place, err error) {
	to = from
	for n := 1; len(lines) > 0; n++ {
		line, rest, found := bytes.Cut(lines, []byte("\n"))
		if !found {
			return nil, from, fmt.Errorf("line %d is cut off", n)
		}
		ev, l, err := verify(line, to.Last)
		if err != nil {
			return nil, from, fmt.Errorf("line %d: %w", n, err)
		}
		if to.Offset == 0 && l != to.Log {
			return nil, from, fmt.Errorf("line %d is not the first line of that log", n)
		}
		events = append(events, ev)
		to.Offset, to.Last, lines = to.Offset+int64(len(line))+1, l, rest
	}
	return events, to, nil
}
