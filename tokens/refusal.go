package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"innate"
	"innate/rest"
)

// refusal makes a "no" with the AADSTS number that people look up
// (managed-identity-endpoints §4.6). The text has no full stop at its end.
func refusal(status int, oauth string, code int, format string, args ...any) *innate.Refusal {
	return &innate.Refusal{Status: status, OAuth: oauth, Code: code, Text: fmt.Sprintf(format, args...)}
}

// invalid refuses a request that is no token request.
func invalid(format string, args ...any) *innate.Refusal {
	return refusal(http.StatusBadRequest, "invalid_request", 9002313, format, args...)
}

// missing refuses a request without a field.
func missing(field, want string) *innate.Refusal {
	return refusal(http.StatusBadRequest, "invalid_request", 900144,
		"The request body must contain the following parameter: '%s'; want %s", field, want)
}

// unknownTenant refuses a path that is not our tenant's.
func (s *Service) unknownTenant(name string) *innate.Refusal {
	return refusal(http.StatusBadRequest, "invalid_request", 90002,
		"Tenant %s not found. This service has one tenant, %s", shown(name), s.config.Tenant)
}

// unproved refuses a client whose credential does not hold.
func unproved(code int, format string, args ...any) *innate.Refusal {
	return refusal(http.StatusUnauthorized, "invalid_client", code, format, args...)
}

// unavailable is the answer when we cannot decide, or cannot record what we decided.
func unavailable(cause error) *innate.Refusal {
	return &innate.Refusal{
		Status: http.StatusServiceUnavailable, OAuth: "temporarily_unavailable", Code: 90033,
		Text: "The token service cannot answer at this moment: try again", RetryAfter: time.Second, Cause: cause,
	}
}

// asRefusal is err as its caller may read it.
func asRefusal(err error) *innate.Refusal {
	var no *innate.Refusal
	if errors.As(err, &no) {
		return no
	}
	return unavailable(err)
}

// shown is outside input as it may stand in a text.
func shown(s string) string { return "'" + printable(s) + "'" }

// printable is s made short and of the characters that RFC 6749 §5.2 allows in
// an error_description.
func printable(s string) string {
	const most = 200
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' || c == '\'' {
			return '?'
		}
		return c
	}, s)
}

// errorBody is a refusal on the wire, as Entra writes it.
type errorBody struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
	Codes       []int  `json:"error_codes"`
	Timestamp   string `json:"timestamp"`
	Trace       string `json:"trace_id"`
	Correlation string `json:"correlation_id"`
	URI         string `json:"error_uri,omitempty"`
}

// recordRefusal records err, also when the request did not come as far as saying
// who it is of, so that the ids in every answer lead to a record. Of those
// throttled, the first alone.
func (s *Service) recordRefusal(ctx context.Context, q *request, err error) error {
	if over := (*excess)(nil); errors.As(err, &over) {
		return s.recordExcess(ctx, q, over)
	}
	return s.config.Audit.Record(ctx, q.refused(asRefusal(err)))
}

// refuse answers err at the token endpoint, and records it first.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, q *request, err error) {
	no := asRefusal(err)
	if err := s.recordRefusal(r.Context(), q, err); err != nil {
		no = unavailable(errors.Join(fmt.Errorf("recording a refusal: %w", err), no.Cause))
	}
	s.answerNo(w, r, q, no)
}

// answerNo writes a refusal, and nothing in the audit log: documents that
// anybody may read are not decided on.
func (s *Service) answerNo(w http.ResponseWriter, r *http.Request, q *request, no *innate.Refusal) {
	if no.Status >= http.StatusInternalServerError {
		s.config.Log.ErrorContext(r.Context(), "token request failed", "trace", q.trace, "cause", no.Cause)
	}
	stamp := q.now.UTC().Format("2006-01-02 15:04:05Z")
	body := errorBody{
		Error: no.OAuth, Codes: []int{}, Timestamp: stamp, Trace: q.trace, Correlation: q.correlation,
		Description: fmt.Sprintf("%s. Trace ID: %s Correlation ID: %s Timestamp: %s", no.Error(), q.trace, q.correlation, stamp),
	}
	if no.Code != 0 {
		body.Codes, body.URI = []int{no.Code}, s.config.Login+"/error?code="+strconv.Itoa(no.Code)
	}
	if no.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(no.RetryAfter.Seconds())))
	}
	if no.Status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	if no.Status == http.StatusUnauthorized && q.basic { // RFC 6749 §5.2
		w.Header().Set("WWW-Authenticate", `Basic realm="`+string(s.config.Tenant)+`"`)
	}
	q.writeHeader(w)
	rest.Write(w, no.Status, body)
}
