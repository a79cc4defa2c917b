package endpoint

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"innate"
)

// Grade turns an error of the source of tokens into the refusal that an SDK
// reads rightly (managed-identity-endpoints §1.3–1.5): 400 is for good, 403 for
// a caller who may not, 410, 429 and 503 for a while, 500 is our fault. 404
// never: SDKs would ask again for more than a minute.
func Grade(err error) innate.Refusal {
	var r *innate.Refusal
	switch {
	case errors.As(err, &r):
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		r = &innate.Refusal{Status: http.StatusServiceUnavailable, Text: "the request ended before there was a token: try again", Cause: err}
	default:
		return innate.Refusal{Status: http.StatusInternalServerError, OAuth: "unknown",
			Text: "the agent could not get a token; its log says why", Cause: err}
	}
	g := *r
	switch {
	case r.Status == http.StatusMethodNotAllowed, r.Status == http.StatusGone:
	case r.Status == http.StatusForbidden && r.Code == 0: // decided here; the token service's has a code
		g.OAuth = "access_denied"
	case r.Status == http.StatusTooManyRequests:
		g.OAuth = "too_many_requests"
		g.RetryAfter = wait(r.RetryAfter, 1*time.Second, 20*time.Second) // Go gives up above 25 s
	case r.Status == http.StatusRequestTimeout, r.Status > http.StatusInternalServerError:
		g.Status, g.OAuth = http.StatusServiceUnavailable, "temporarily_unavailable"
		g.RetryAfter = wait(r.RetryAfter, 2*time.Second, 5*time.Second)
	case r.Status == http.StatusInternalServerError:
		g.OAuth = "unknown"
	default:
		g.Status = http.StatusBadRequest
	}
	if g.OAuth == "" {
		g.OAuth = "invalid_request"
	}
	return g
}

func wait(asked, least, most time.Duration) time.Duration {
	if asked == 0 {
		return least
	}
	return min(max(asked, time.Second), most)
}

// Headers sets what every refusal has: JSON, no caching, an end to the connection.
func Headers(h http.Header, r innate.Refusal) {
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close")
	if r.Status == http.StatusMethodNotAllowed && h.Get("Allow") == "" {
		h.Set("Allow", http.MethodGet)
	}
	if r.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int((r.RetryAfter+time.Second-1)/time.Second)))
	}
}

// Valid refuses a token that no longer is one: no endpoint ever answers 200 with it.
func Valid(t innate.Token, now time.Time) error {
	if t.Value == "" || !now.Before(t.Expires) {
		return &innate.Refusal{Status: http.StatusServiceUnavailable, Text: "no valid token is at hand: try again"}
	}
	return nil
}
