// Package rest is the dialect of Azure's REST: the error envelope, api-version,
// paging, $filter, tidy paths and the repair of request lines.
//
// It owns how things are said on ARM, Graph and Key Vault and leaves what is
// said to the nouns that serve them. Handlers must never look at the raw query
// or answer with a redirect: clients percent-encode keys, double slashes and
// follow nothing (control-plane T4, T5).
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"
)

// An Error is an answer in the envelope that ARM, Graph and Key Vault clients
// read (control-plane T8). Cause never leaves our log.
type Error struct {
	Status  int
	Code    string
	Message string
	Inner   string // innererror.code, such as ForbiddenByRbac
	Target  string
	// RetryAfter is when to ask again, if that is known: clients do (control-plane T11).
	RetryAfter time.Duration
	Cause      error
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }
func (e *Error) Unwrap() error { return e.Cause }

// Errorf makes an Error without a cause.
func Errorf(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// envelope is an Error on the wire.
type envelope struct {
	Error struct {
		Code    string     `json:"code"`
		Message string     `json:"message"`
		Target  string     `json:"target,omitempty"`
		Inner   *innerCode `json:"innererror,omitempty"`
	} `json:"error"`
}

type innerCode struct {
	Code string `json:"code"`
}

// Write answers v as JSON; a nil v is an answer without a body.
func Write(w http.ResponseWriter, status int, v any) {
	if v == nil {
		w.WriteHeader(status)
		return
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false) // a nextLink stays readable
	if err := enc.Encode(v); err != nil {
		slog.Error("writing an answer as JSON", "err", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	WriteBody(w, status, body.Bytes())
}

// WriteBody answers a body that is JSON already.
func WriteBody(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	w.Write(body) // an error here is a client that left
}

// jsonType is shared by all answers: do not modify.
var jsonType = []string{"application/json; charset=utf-8"}

// WriteError answers err: an *Error as it says, an *http.MaxBytesError as 413,
// anything else as 500 with its cause in the log and not in the answer.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(r, err)
	gone := r.Context().Err() != nil && errors.Is(err, context.Canceled) // who hangs up is no fault of ours
	if e.Status >= http.StatusInternalServerError && !gone {
		slog.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path,
			"request", RequestID(r.Context()), "code", e.Code, "err", err, "cause", e.Cause)
	}
	var body envelope
	body.Error.Code, body.Error.Message, body.Error.Target = e.Code, e.Message, e.Target
	if e.Inner != "" {
		body.Error.Inner = &innerCode{e.Inner}
	}
	w.Header().Set("x-ms-error-code", e.Code) // the Go SDK looks here first
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	Write(w, e.Status, body)
}

func asError(r *http.Request, err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Error{
			Status: http.StatusRequestEntityTooLarge, Code: "RequestEntityTooLarge",
			Message: fmt.Sprintf("the request body is larger than %d bytes", tooLarge.Limit), Cause: err,
		}
	}
	return &Error{
		Status: http.StatusInternalServerError, Code: "InternalServerError",
		Message: "the server could not answer; its log says why under request id " + RequestID(r.Context()), Cause: err,
	}
}
