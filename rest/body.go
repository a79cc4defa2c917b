package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode/utf8"
)

const (
	maxBody  = 1 << 20 // bytes of a request
	maxDepth = 64      // of nested JSON
)

// Read decodes a JSON body of at most 1 MiB into v: 400 InvalidRequestContent
// for bad JSON, duplicate members, nesting over 64 or trailing data. Two
// readers of a body with a duplicate member may see different things; nobody
// here gets to see either.
func Read(r *http.Request, v any) error { return ReadUpTo(r, v, maxBody) }

// ReadUpTo is Read for a body of up to limit bytes.
func ReadUpTo(r *http.Request, v any, limit int64) error {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, limit))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return err
		}
		return badBody(fmt.Errorf("the request body ended early: %w", err))
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return badBody(errors.New("the request has no body: send a JSON object"))
	}
	if !utf8.Valid(body) {
		return badBody(errors.New("the request body is not UTF-8"))
	}
	if err := strict(body); err != nil {
		return badBody(err)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return badBody(mismatch(err))
	}
	return nil
}

func badBody(err error) *Error {
	return &Error{Status: http.StatusBadRequest, Code: "InvalidRequestContent", Message: err.Error(), Cause: err}
}

// mismatch says in JSON's words, not in Go's, which member has the wrong type.
func mismatch(err error) error {
	var typed *json.UnmarshalTypeError
	if !errors.As(err, &typed) {
		return err
	}
	at := typed.Field
	if at == "" {
		at = "the request body"
	}
	return fmt.Errorf("%s may not be a JSON %s", at, typed.Value)
}

// strict checks what encoding/json lets pass.
func strict(body []byte) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if err := strictValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the request body goes on after its JSON value")
	}
	return nil
}

func strictValue(dec *json.Decoder, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return notJSON(err)
	}
	open, nests := tok.(json.Delim)
	if !nests {
		return nil
	}
	if depth == maxDepth {
		return fmt.Errorf("the request body nests deeper than %d", maxDepth)
	}
	seen := map[string]bool{}
	for dec.More() {
		if open == '{' {
			name, err := dec.Token()
			if err != nil {
				return notJSON(err)
			}
			if seen[name.(string)] {
				return fmt.Errorf("member %q stands twice in one object of the request body", clip(name.(string)))
			}
			seen[name.(string)] = true
		}
		if err := strictValue(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil { // the closing delimiter
		return notJSON(err)
	}
	return nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the request body is not JSON: it ends too early")
	}
	return fmt.Errorf("the request body is not JSON: %s", strings.TrimPrefix(err.Error(), "json: "))
}

// clip shortens outside input for an error message.
func clip(s string) string {
	if len(s) > 120 {
		return s[:120] + "…"
	}
	return s
}
