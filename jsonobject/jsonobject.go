// Package jsonobject writes JSON objects whose shape is known when the program is
// written, member after member into one buffer.
//
// It is for the few that are written with every token: a token's claims, its
// audit record and the answers with it, the token service's and the agent's.
// encoding/json takes several times as long for them and makes garbage besides.
// Everything else is encoding/json's, reading above all. What is written here is,
// byte for byte, what its Encoder writes with SetEscapeHTML(false). Hold each
// object to what it is to be by a test: a struct with the tags, or the text.
//
// An object begins with '{', which the caller appends, and ends with '}'.
package jsonobject

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"strings"
)

// Name begins a member of the object that b ends in: the value is appended next.
// name needs no escaping.
func Name(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// String adds a member that is a string.
func String[S ~string](b []byte, name string, value S) []byte { return Quote(Name(b, name), value) }

// Present adds a member that is a string, unless it is empty: omitempty.
func Present[S ~string](b []byte, name string, value S) []byte {
	if value == "" {
		return b
	}
	return String(b, name, value)
}

// Number adds a member that is an integer.
func Number(b []byte, name string, value int64) []byte {
	return strconv.AppendInt(Name(b, name), value, 10)
}

// Digits adds a member that is an integer in a string: many clients of Azure want theirs so.
func Digits(b []byte, name string, value int64) []byte {
	b = append(Name(b, name), '"')
	return append(strconv.AppendInt(b, value, 10), '"')
}

// Quote adds s as a string of JSON.
func Quote[S ~string](b []byte, s S) []byte {
	begin := len(b)
	b = append(append(b, '"'), s...)
	if !plain(b[begin+1:]) {
		return escape(b[:begin], string(s))
	}
	return append(b, '"')
}

// plain reports whether a string of JSON may have b as it is: printable ASCII
// but for the quote and the backslash. It looks at eight bytes at a time.
func plain(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		if (w|(w+each)|below(w, ' ')|below(w^each*'"', 1)|below(w^each*'\\', 1))&(each*0x80) != 0 { // w+each: 0x7f becomes 0x80
			return false
		}
	}
	for _, c := range b {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

const each = 0x0101010101010101 // times a byte: that byte eight times

// below has the top bit set of a byte of w that is less than n, if there is one;
// bytes above it may be marked that are not. n is at most 128.
func below(w, n uint64) uint64 { return (w - each*n) &^ w }

// escape is Quote of what cannot stand in a string as it is, or is not ASCII.
func escape(b []byte, s string) []byte {
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	enc.Encode(strings.Clone(s)) // never fails for a string; of a clone, or s could not stay on its caller's stack
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}
