// Package jsonobject writes JSON objects whose shape is known when the program is
// written, member after member into one buffer.
//
// It is for the few that are written with every token: a token's claims, its
// answer and its audit record. encoding/json takes several times as long for
// them and makes garbage besides. Everything else is encoding/json's, reading
// above all. What is written here is, byte for byte, what its Encoder writes
// with SetEscapeHTML(false): keep a struct with the tags beside each, and hold
// the two together by a test.
//
// An object begins with '{', which the caller appends, and ends with '}'.
package jsonobject

import (
	"bytes"
	"encoding/json"
	"strconv"
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
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return escape(b, string(s))
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// escape is Quote of what cannot stand in a string as it is, or is not ASCII.
func escape(b []byte, s string) []byte {
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // never fails for a string
	return append(b, bytes.TrimSuffix(quoted.Bytes(), []byte("\n"))...)
}
