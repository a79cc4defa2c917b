package tokens

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
)

const (
	// maxBody is the most bytes of a form; the largest that SDKs send is an
	// assertion with its certificates, below 16 KiB.
	maxBody = 64 << 10
	// usualBody is that of nearly all.
	usualBody = 4 << 10
	// maxParameters is how many a form may have. Clients send a dozen.
	maxParameters = 64
)

// parameters are those of a form, each of which stands there once.
type parameters []parameter

type parameter struct{ name, value string }

// value is that of the parameter called name; empty when there is none.
func (ps parameters) value(name string) string {
	if i := ps.index(name); i >= 0 {
		return ps[i].value
	}
	return ""
}

func (ps parameters) index(name string) int {
	return slices.IndexFunc(ps, func(p parameter) bool { return p.name == name })
}

// readForm reads the body's form, in which nothing may stand twice: of two
// values, another reader on the way might have checked the other.
func readForm(r *http.Request) (parameters, error) {
	if !isForm(r.Header.Get("Content-Type")) {
		return nil, invalid("The body must have the content type %s", formType)
	}
	text, err := readBody(r)
	if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
		return nil, refusal(http.StatusRequestEntityTooLarge, "invalid_request", 9002313,
			"The body is longer than %d bytes", maxBody)
	}
	if err != nil {
		return nil, invalid("The body could not be read to its end")
	}
	return parseForm(text)
}

// bodies is where bodies are read, again and again.
var bodies = sync.Pool{New: func() any { return new([usualBody]byte) }}

func readBody(r *http.Request) (string, error) {
	limited := http.MaxBytesReader(nil, r.Body, maxBody)
	if r.ContentLength < 0 || r.ContentLength > usualBody {
		body, err := io.ReadAll(limited)
		return string(body), err
	}
	room := bodies.Get().(*[usualBody]byte)
	defer bodies.Put(room)
	body := room[:r.ContentLength]
	if _, err := io.ReadFull(limited, body); err != nil {
		return "", err
	}
	return string(body), nil
}

const formType = "application/x-www-form-urlencoded"

func isForm(contentType string) bool {
	if contentType == formType { // all that clients send
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && kind == formType
}

// parseForm reads what url.ParseQuery does, and refuses what is not well formed.
func parseForm(body string) (parameters, error) {
	const usual = 8 // parameters
	form := make(parameters, 0, usual)
	for pair := range strings.SplitSeq(body, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err1 := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || strings.Contains(pair, ";") { // their text may quote a secret
			return nil, invalid("The body is not a well-formed %s form", formType)
		}
		if form.index(name) >= 0 {
			return nil, invalid("The body has the parameter %s several times: want it once", shown(name))
		}
		if len(form) == maxParameters {
			return nil, invalid("The body has more than %d parameters: a token request needs a dozen at most", maxParameters)
		}
		form = append(form, parameter{name, value})
	}
	return form, nil
}
