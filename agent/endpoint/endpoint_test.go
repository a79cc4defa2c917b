package endpoint_test

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/audit"
)

func TestRefusalsAreGradedSoThatSDKsReadThemRightly(t *testing.T) {
	for _, test := range []struct {
		err        error
		status     int
		oauth      string
		retryAfter string
	}{
		{&innate.Refusal{Status: 400, OAuth: "invalid_resource", Code: 500011}, 400, "invalid_resource", ""},
		{&innate.Refusal{Status: 401, OAuth: "invalid_client", Code: 700027}, 400, "invalid_client", ""}, // 401 would mean the caller's secret
		{&innate.Refusal{Status: 404}, 400, "invalid_request", ""},                                       // 404 is asked again for a minute
		{&innate.Refusal{Status: 403}, 403, "access_denied", ""},
		{&innate.Refusal{Status: 403, OAuth: "invalid_grant", Code: 501051}, 400, "invalid_grant", ""}, // the token service's, not ours
		{&innate.Refusal{Status: 410, RetryAfter: 2 * time.Second}, 410, "invalid_request", "2"},
		{&innate.Refusal{Status: 429}, 429, "too_many_requests", "1"}, // Node does not retry without Retry-After
		{&innate.Refusal{Status: 429, RetryAfter: 1500 * time.Millisecond}, 429, "too_many_requests", "2"},
		{&innate.Refusal{Status: 429, RetryAfter: time.Hour}, 429, "too_many_requests", "20"}, // Go gives up above 25 s
		{&innate.Refusal{Status: 500}, 500, "unknown", ""},
		{&innate.Refusal{Status: 502}, 503, "temporarily_unavailable", "2"},
		{&innate.Refusal{Status: 503, RetryAfter: time.Minute}, 503, "temporarily_unavailable", "5"},
		{fmt.Errorf("asking: %w", http.ErrHandlerTimeout), 500, "unknown", ""},
		{fmt.Errorf("asking: %w", &innate.Refusal{Status: 408}), 503, "temporarily_unavailable", "2"},
	} {
		got := endpoint.Grade(test.err)
		h := http.Header{}
		endpoint.Headers(h, got)
		if got.Status != test.status || got.OAuth != test.oauth || h.Get("Retry-After") != test.retryAfter {
			t.Errorf("%+v: got %d %s, Retry-After %q; want %d %s, %q", test.err, got.Status, got.OAuth, h.Get("Retry-After"), test.status, test.oauth, test.retryAfter)
		}
	}
}

// A hostile workload can make up any number of audiences; it must not fill the disk.
func TestTheLedgerToldFarMoreThanItKeepsWritesABoundedNumber(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1790000000, 0)
	l := endpoint.Ledger{Log: log, Now: func() time.Time { return now }}
	const told = 2000
	for i := range told {
		d := endpoint.Decision{Who: "uid 60001", Target: fmt.Sprint("resource ", i)}
		if !l.Repeats(d) {
			if err := l.Record(d, audit.Event{Action: "get-token"}, now.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(l.Close(), log.Close()); err != nil {
		t.Fatal(err)
	}
	written, counted := 0, 0
	for ev, err := range audit.Read(path) {
		if err != nil {
			t.Fatal(err)
		}
		if n := 0; ev.Detail["repeats"] != "" {
			fmt.Sscan(ev.Detail["repeats"], &n)
			counted += n
			continue
		}
		written++
	}
	if written > 1100 || written+counted != told {
		t.Errorf("of %d decisions %d were written and %d counted", told, written, counted)
	}
}

func TestPathsOfEverySDKAreOnePath(t *testing.T) {
	for _, p := range []string{"/a/b", "//a/b", "/a//b/", "///a///b///", "/a/b/"} {
		if got := endpoint.Path(p); got != "/a/b" {
			t.Errorf("Path(%q) = %q", p, got)
		}
	}
}

func TestOnlySaneRequestIDsAreEchoed(t *testing.T) {
	for id, echoed := range map[string]bool{
		"0b2a4c0e-2d43-4b39-8d0f-0d9f5a1f3a11": true,
		"":                                     false,
		"x\"}, {\"":                            false,
		strings.Repeat("a", 65):                false,
	} {
		r := &http.Request{Header: http.Header{"X-Ms-Client-Request-Id": {id}}}
		if got := endpoint.RequestID(r); (got == id) != echoed || got == "" {
			t.Errorf("RequestID(%q) = %q", id, got)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "a=1&b=2", "a=1&a=2", "?resource=x", "&&=&==&a", "resource=%E0%A4%A", "resource=https://vault.azure.net/&client_id=bbbbbbbb-0000-0000-0000-00000000000f",
		"mi_res_id=%2Fsubscriptions%2F11111111-1111-1111-1111-111111111111", strings.Repeat("a&", 100), "resource=a;b&client_id=%00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := endpoint.ParseQuery(raw)
		if err != nil {
			var refusal *innate.Refusal
			if !errors.As(err, &refusal) || refusal.Status != 400 || len(refusal.Text) > 1000 {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		q.Misprint()
		q.Resource()
		which, given, err := q.Selector("client_id", "object_id", "mi_res_id")
		if err == nil && (given == "") != (which == innate.Selector{}) {
			t.Errorf("%q: %+v by %q", raw, which, given)
		}
	})
}
