package rest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	firstHead = 4 << 10   // bytes set aside for the head of a request
	maxHead   = 128 << 10 // bytes of a head that are waited for; http.Server refuses less
)

// lines reads a stream of HTTP/1.1 requests and percent-encodes the raw spaces
// in the targets of their request lines.
//
// To know where a request begins it follows the framing of the one before. A
// stream in which two readers could disagree about that is how requests are
// smuggled, so lines believes only plain heads (requestHead says which); at the
// first one that is not, it stops repairing for the life of the connection and
// passes every byte as it came. It refuses nothing: that is the server's part.
type lines struct {
	src     io.Reader
	in      []byte // read and not yet given out
	memory  []byte // where in begins, again and again
	scanned int    // how much of in is known to hold no end of a head
	ready   int    // how much of in may be given out: a head, or all when through
	body    int64  // bytes of the present request's body still to come after ready
	through bool   // repairing has stopped
	err     error  // of src, to be told when in is given out
}

// Read gives out whole heads, bodies as they come, and nothing of a head
// that has not ended yet, unless src has.
func (l *lines) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for l.ready == 0 && l.body == 0 && !l.through && !l.head() {
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
	if l.through {
		l.ready = len(l.in)
	}
	if l.ready > 0 {
		n := copy(p, l.in[:l.ready])
		l.take(n)
		l.ready -= n
		return n, nil
	}
	return l.readBody(p)
}

// readBody gives out what follows a head, or everything when repairing has stopped.
func (l *lines) readBody(p []byte) (int, error) {
	limit := int64(math.MaxInt64)
	if !l.through {
		limit = l.body
	}
	p = p[:min(int64(len(p)), limit)]
	var n int
	var err error
	if len(l.in) > 0 {
		n = copy(p, l.in)
		l.take(n)
	} else if err = l.err; err != nil {
		l.err = nil
	} else {
		n, err = l.src.Read(p)
	}
	if !l.through {
		l.body -= int64(n)
	}
	return n, err
}

// take drops n bytes that were given out, and the memory of a long head.
func (l *lines) take(n int) {
	l.in = l.in[n:]
	if len(l.in) == 0 {
		l.in = nil
	}
}

// fill reads more of a head. An error comes after the bytes that came with it;
// one that is not the end, such as a deadline, may be followed by more.
func (l *lines) fill() error {
	if err := l.err; err != nil {
		l.err = nil
		if len(l.in) > 0 && errors.Is(err, io.EOF) {
			l.through, l.err = true, err // half a head: the server may judge it
			return nil
		}
		return err
	}
	if len(l.in) == 0 {
		if l.memory == nil {
			l.memory = make([]byte, 0, firstHead)
		}
		l.in = l.memory
	}
	l.in = slices.Grow(l.in, firstHead)
	n, err := l.src.Read(l.in[len(l.in) : len(l.in)+firstHead])
	l.in, l.err = l.in[:len(l.in)+n], err
	return nil
}

// head looks for a complete head at the beginning of in and reports whether
// there is something to give out.
func (l *lines) head() bool {
	const empty = "\r\n\r\n"
	from := max(0, l.scanned-len(empty))
	end := bytes.Index(l.in[from:], []byte(empty))
	if end < 0 {
		l.through = len(l.in) > maxHead || bareNewline(l.in[from:])
		l.scanned = len(l.in)
		return l.through
	}
	end += from + len(empty)
	l.scanned = 0
	line, body, ok := requestHead(l.in[:end])
	if !ok {
		l.through = true
		return true
	}
	l.ready, l.body = end, body
	if line != nil {
		raw := bytes.IndexByte(l.in, '\r')
		l.in = append(line, l.in[raw:]...)
		l.ready += len(line) - raw
	}
	return true
}

// bareNewline reports whether a line of b ends without a carriage return. It
// leaves the first byte, whose predecessor it does not see, to the caller.
func bareNewline(b []byte) bool {
	for i := 1; i < len(b); i++ {
		if b[i] == '\n' && b[i-1] != '\r' {
			return true
		}
	}
	return false
}

// requestHead reads a head up to and with its empty line. It returns the
// request line without its end when that had to be repaired, else nil, and the
// length of the body; ok is false for everything but a plain head: METHOD
// /target HTTP/1.x, header lines that end in CRLF with a token before the colon,
// no folding, at most one Content-Length, no Transfer-Encoding and no Upgrade.
func requestHead(head []byte) (line []byte, body int64, ok bool) {
	if bytes.IndexByte(head, 0) >= 0 {
		return nil, 0, false
	}
	first, headers, ok := cutLine(head)
	if !ok {
		return nil, 0, false
	}
	if line, ok = repairLine(first); !ok {
		return nil, 0, false
	}
	sized := false
	for {
		var header []byte
		if header, headers, ok = cutLine(headers); !ok {
			return nil, 0, false
		}
		if len(header) == 0 {
			return line, body, true
		}
		name, value, colon := bytes.Cut(header, []byte(":"))
		if !colon || !isToken(name) {
			return nil, 0, false
		}
		switch {
		case bytes.EqualFold(name, []byte("transfer-encoding")), bytes.EqualFold(name, []byte("upgrade")):
			return nil, 0, false
		case bytes.EqualFold(name, []byte("content-length")):
			if body, ok = contentLength(string(value)); !ok || sized {
				return nil, 0, false
			}
			sized = true
		}
	}
}

// cutLine takes the first line off b; ok is false when none ends in CRLF and
// has no other CR or LF.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	line, rest, ok = bytes.Cut(b, []byte("\n"))
	end := len(line) - 1
	if !ok || bytes.IndexByte(line, '\r') != end || end < 0 {
		return nil, nil, false
	}
	return line[:end], rest, true
}

// repairLine percent-encodes the spaces between the method and the final
// HTTP/1.x. Of a line with nothing to repair it returns nil.
func repairLine(line []byte) (repaired []byte, ok bool) {
	space := []byte(" ")
	method, rest, _ := bytes.Cut(line, space)
	last := bytes.LastIndexByte(rest, ' ')
	if !isToken(method) || last < 1 || rest[0] != '/' {
		return nil, false
	}
	target, version := rest[:last], rest[last+1:]
	if string(version) != "HTTP/1.1" && string(version) != "HTTP/1.0" {
		return nil, false
	}
	for _, c := range target {
		if c < ' ' || c == 0x7f {
			return nil, false
		}
	}
	if !bytes.Contains(target, space) {
		return nil, true
	}
	return slices.Concat(method, space, bytes.ReplaceAll(target, space, []byte("%20")), space, version), true
}

// contentLength accepts digits alone, few enough for any reader's integers.
func contentLength(value string) (int64, bool) {
	value = strings.Trim(value, " \t")
	if value == "" || len(value) > 18 || strings.Trim(value, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(value, 10, 64)
	return n, err == nil
}

// isToken reports whether b is an RFC 9110 §5.6.2 token.
func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte[c] {
			return false
		}
	}
	return len(b) > 0
}

// tokenByte says of each byte whether a token may have it.
var tokenByte = func() (may [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		may[c] = true
	}
	return may
}()
