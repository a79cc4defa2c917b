// Package endpoint is what the two local endpoints, IMDS and App Service, have
// in common: which requests are let in at all and how many, how their query
// names an identity, how a "no" of the source of tokens is graded, how an answer is
// sent, and how what was answered is recorded.
//
// It leaves to them who is calling, the paths, and what stands in an answer, but for
// what both say in a metadata service's words.
// Close the connection on every refusal: bytes behind a refused request must
// never be read as a second one.
package endpoint

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"innate"
)

// forwarding headers are set by proxies: the request came from somewhere else.
var forwarding = []string{"X-Forwarded-For", "Forwarded", "Via", "X-Real-Ip"}

// Check refuses what a request for something may not be: anything but GET, with
// a body, or not Local.
func Check(r *http.Request, hosts []string) error {
	if r.Method != http.MethodGet {
		return &innate.Refusal{Status: http.StatusMethodNotAllowed, Text: fmt.Sprintf("%s is not allowed: use GET", clip(r.Method))}
	}
	if err := Local(r, hosts); err != nil {
		return err
	}
	if r.ContentLength != 0 {
		return badRequest("a request with a body is not allowed")
	}
	return nil
}

// Local refuses what no local request may be (managed-identity-endpoints §1.1):
// forwarded, meant for a proxy, or with a Host that is not exactly one of hosts
// (lower case).
func Local(r *http.Request, hosts []string) error {
	for _, name := range forwarding {
		if _, present := r.Header[name]; present { // even empty
			return badRequest("%s header is not allowed: ask directly, not through a proxy", name)
		}
	}
	if !strings.HasPrefix(r.RequestURI, "/") {
		return badRequest("the request line names a whole URL, as for a proxy: take the metadata address out of the proxy's way (NO_PROXY)")
	}
	// An exact comparison: a prefix test lets 127.0.0.1.example.org through.
	if !slices.Contains(hosts, strings.ToLower(r.Host)) {
		return badRequest("Host %q is not this endpoint: want %s", clip(r.Host), hosts[0])
	}
	return nil
}

// Path is p without doubled and trailing slashes: SDKs send both, and a
// redirect would break them (managed-identity-endpoints §0.6).
func Path(p string) string {
	for strings.Contains(p, "//") {
		p = strings.ReplaceAll(p, "//", "/")
	}
	return strings.TrimSuffix(p, "/")
}

// RequestID is the caller's own id of the request where it sent a sane one,
// else a new one: for the answer, the audit record and the log.
func RequestID(r *http.Request) string {
	id := r.Header.Get("X-Ms-Client-Request-Id")
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, notIDRune) {
		return innate.NewGUID()
	}
	return id
}

func notIDRune(c rune) bool {
	return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
}

func badRequest(format string, args ...any) error {
	return &innate.Refusal{Status: http.StatusBadRequest, OAuth: "invalid_request", Text: fmt.Sprintf(format, args...)}
}

// clip shortens outside input for a message.
func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
