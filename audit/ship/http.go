package ship

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"innate/audit"
)

// ContentType is what lines are posted as.
const ContentType = "application/x-ndjson"

// An Answer is what a server says to a Request.
type Answer struct {
	At audit.Place `json:"at"`
}

// values are the query of a request.
func (r Request) values() url.Values {
	q := url.Values{"at": {r.At.String()}}
	if r.Instead != (audit.Place{}) {
		q.Set("instead", r.Instead.String())
	}
	return q
}

// ReadRequest reads what a Sender posts; its error is the sender's to read.
func ReadRequest(w http.ResponseWriter, r *http.Request) (q Request, err error) {
	query := r.URL.Query()
	if q.At, err = audit.ParsePlace(query.Get("at")); err != nil {
		return q, fmt.Errorf("at: %w", err)
	}
	if q.Instead, err = audit.ParsePlace(query.Get("instead")); err != nil {
		return q, fmt.Errorf("instead: %w", err)
	}
	q.Lines, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return q, fmt.Errorf("more than %d bytes of lines: send them in pieces", MaxBody)
	}
	return q, err
}
