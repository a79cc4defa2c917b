package rest

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"
)

var (
	dottedVersion = regexp.MustCompile(`^7\.[0-9]{1,3}(-preview(\.[0-9]{1,3})?)?$`) // Key Vault: 7.4, 7.6-preview.2
	versionSuffix = regexp.MustCompile(`^(-[A-Za-z0-9]{1,32}){0,3}$`)
)

// Version checks api-version: 400 MissingApiVersionParameter when absent, 400
// InvalidApiVersionParameter unless YYYY-MM-DD(-suffix)?, or 7.x where dotted is
// true. Every later version is accepted: a closed list breaks with each release
// of a client (control-plane T7, client-facts 6).
func Version(r *http.Request, dotted bool) (string, error) {
	values := r.URL.Query()["api-version"]
	if len(values) == 0 || values[0] == "" {
		return "", Errorf(http.StatusBadRequest, "MissingApiVersionParameter",
			"the query has no api-version: add one, such as ?api-version=2024-11-01")
	}
	v := values[0]
	if len(values) > 1 || !isVersion(v, dotted) {
		return "", Errorf(http.StatusBadRequest, "InvalidApiVersionParameter",
			"api-version %q: want one date, such as 2024-11-01 or 2024-11-01-preview", clip(v))
	}
	return v, nil
}

func isVersion(v string, dotted bool) bool {
	if dotted && dottedVersion.MatchString(v) {
		return true
	}
	const date = "2006-01-02"
	if len(v) < len(date) || !versionSuffix.MatchString(v[len(date):]) {
		return false
	}
	_, err := time.Parse(date, v[:len(date)])
	return err == nil
}

// A Page is one page of a list: it keeps nextLink absolute and on the host that was called.
type Page struct {
	Size int    // most items
	From string // where to go on; empty at the first
}

const (
	skipToken   = "$skiptoken"
	maxResults  = "maxresults" // Key Vault
	top         = "$top"       // Graph
	maxSkipSize = 8 << 10
)

// PageOf reads $skiptoken and maxresults or $top; size is the default and the
// most. More than size is refused as maxresults and means size as $top: Graph's
// clients ask for 999 by habit, and a page may always be shorter than asked.
func PageOf(r *http.Request, size int) (Page, error) {
	q := r.URL.Query()
	p := Page{Size: size}
	if v, ok := one(q, maxResults); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > size {
			return Page{}, badQuery(maxResults, v, "a number from 1 to "+strconv.Itoa(size))
		}
		p.Size = n
	}
	if v, ok := one(q, top); ok {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return Page{}, badQuery(top, v, "a number from 1")
		}
		p.Size = min(p.Size, n)
	}
	if v, ok := one(q, skipToken); ok {
		from, err := base64.RawURLEncoding.Strict().DecodeString(v)
		if err != nil || len(from) == 0 || len(from) > maxSkipSize {
			return Page{}, badQuery(skipToken, v, "the value from a nextLink")
		}
		p.From = string(from)
	}
	return p, nil
}

// one is the first value of a key. A repeated key is harmless here: every value
// only chooses what the caller may read anyway.
func one(q url.Values, key string) (string, bool) {
	v, ok := q[key]
	if !ok {
		return "", false
	}
	return v[0], true
}

func badQuery(key, value, want string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Code: "InvalidQueryParameterValue", Target: key,
		Message: key + "=" + clip(value) + ": want " + want,
	}
}

// Next is the absolute link to the page that begins at from, or "" when from is.
// It keeps the rest of the query, api-version above all: clients add nothing.
func (p Page) Next(r *http.Request, from string) string {
	if from == "" {
		return ""
	}
	q := r.URL.Query()
	q.Set(skipToken, base64.RawURLEncoding.EncodeToString([]byte(from)))
	u := url.URL{Scheme: "https", Host: r.Host, Path: r.URL.Path, RawQuery: q.Encode()}
	if r.TLS == nil {
		u.Scheme = "http" // the administrators' socket
	}
	return u.String()
}
