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
	if raw := bytes.IndexByte(l.in, '\r'); line != string(l.in[:raw]) {
		l.in = append([]byte(line), l.in[raw:]...)
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
// repaired request line, without its end, and the length of the body; ok is
// false for everything but a plain head: METHOD /target HTTP/1.x, header lines
// that end in CRLF with a token before the colon, no folding, at most one
// Content-Length, no Transfer-Encoding and no Upgrade.
func requestHead(head []byte) (line string, body int64, ok bool) {
	if bareNewline(head) || bytes.IndexByte(head, 0) >= 0 {
		return "", 0, false
	}
	first, headers, _ := strings.Cut(strings.TrimSuffix(string(head), "\r\n\r\n"), "\r\n")
	line, ok = repairLine(first)
	if !ok {
		return "", 0, false
	}
	sized := false
	for headers != "" {
		var header string
		header, headers, _ = strings.Cut(headers, "\r\n")
		name, value, colon := strings.Cut(header, ":")
		if !colon || !isToken(name) || strings.Contains(value, "\r") {
			return "", 0, false
		}
		switch {
		case strings.EqualFold(name, "transfer-encoding"), strings.EqualFold(name, "upgrade"):
			return "", 0, false
		case strings.EqualFold(name, "content-length"):
			if body, ok = contentLength(value); !ok || sized {
				return "", 0, false
			}
			sized = true
		}
	}
	return line, body, true
}

// repairLine percent-encodes the spaces between the method and the final
// HTTP/1.x. A line with nothing to repair comes back as it is.
func repairLine(line string) (string, bool) {
	method, rest, _ := strings.Cut(line, " ")
	last := strings.LastIndexByte(rest, ' ')
	if !isToken(method) || last < 1 || rest[0] != '/' {
		return "", false
	}
	target, version := rest[:last], rest[last+1:]
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return "", false
	}
	for i := range len(target) {
		if c := target[i]; c < ' ' || c == 0x7f {
			return "", false
		}
	}
	if !strings.Contains(target, " ") {
		return line, true
	}
	return method + " " + strings.ReplaceAll(target, " ", "%20") + " " + version, true
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

// isToken reports whether s is an RFC 9110 §5.6.2 token.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
