package rest

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"innate"
)

// Headers by which both sides name a request (control-plane T9), as net/http spells them.
const (
	clientRequestID  = "X-Ms-Client-Request-Id"
	requestID        = "X-Ms-Request-Id"
	correlationID    = "X-Ms-Correlation-Request-Id"
	maxClientRequest = 256 // characters of a client's own id that we repeat
)

// requestKey is the context key of RequestID.
type requestKey struct{}

// RequestID is the id that Tidy gave the request, for the audit record.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestKey{}).(string)
	return id
}

// Tidy wraps a handler: it collapses doubled slashes in the path in place (never
// a redirect), echoes x-ms-client-request-id, adds x-ms-request-id and
// x-ms-correlation-request-id and Cache-Control: no-cache, refuses bodies over 1 MiB.
func Tidy(next http.Handler) http.Handler { return TidyUpTo(maxBody, next) }

// TidyUpTo is Tidy for a surface that takes bodies of up to limit bytes; Read
// still takes no more than 1 MiB.
func TidyUpTo(limit int64, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := innate.NewGUID()
		h := w.Header()
		h[requestID] = []string{id}
		h[correlationID] = []string{correlation(r, id)}
		h["Cache-Control"] = noCache
		if own := r.Header.Get(clientRequestID); own != "" && len(own) <= maxClientRequest {
			h.Set(clientRequestID, own)
		}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, id))
		r.URL = collapse(r.URL)
		if r.ContentLength > limit {
			h.Set("Connection", "close") // what follows is not read
			WriteError(w, r, &http.MaxBytesError{Limit: limit})
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		next.ServeHTTP(w, r)
	})
}

// noCache is shared by all answers: do not modify.
var noCache = []string{"no-cache"}

// correlation is the caller's correlation id when it is a GUID, or else own.
func correlation(r *http.Request, own string) string {
	if theirs := r.Header.Get(correlationID); theirs != "" {
		if id, err := innate.ParseGUID(theirs); err == nil {
			return id
		}
	}
	return own
}

func collapse(u *url.URL) *url.URL {
	if !strings.Contains(u.Path, "//") {
		return u
	}
	tidy := *u
	tidy.Path, tidy.RawPath = single(u.Path), single(u.RawPath)
	return &tidy
}

// single replaces each run of slashes by one.
func single(path string) string {
	var b strings.Builder
	for i := range len(path) {
		if path[i] != '/' || i == 0 || path[i-1] != '/' {
			b.WriteByte(path[i])
		}
	}
	return b.String()
}
