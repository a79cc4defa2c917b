package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"innate/rest"
)

func TestAnErrorIsTheEnvelopeThatClientsRead(t *testing.T) {
	w := httptest.NewRecorder()
	rest.WriteError(w, httptest.NewRequest("GET", "/", nil), fmt.Errorf("reading: %w", &rest.Error{
		Status: 403, Code: "Forbidden", Message: "no <role>", Inner: "ForbiddenByRbac", Target: "kv1",
		Cause: errors.New("the cause"),
	}))
	want := `{"error":{"code":"Forbidden","message":"no <role>","target":"kv1","innererror":{"code":"ForbiddenByRbac"}}}` + "\n"
	if w.Code != 403 || w.Body.String() != want {
		t.Errorf("got %d %s, want 403 %s", w.Code, w.Body, want)
	}
	if got := w.Header().Get("x-ms-error-code"); got != "Forbidden" {
		t.Errorf("x-ms-error-code %q, want Forbidden", got)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestAnUnexpectedErrorIsNotShown(t *testing.T) {
	w := httptest.NewRecorder()
	rest.WriteError(w, httptest.NewRequest("GET", "/", nil), errors.New("row /secret/place: bad"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("got %d %s, want 500 without the cause", w.Code, w.Body)
	}
}

func TestReadRefusesWhatTwoReadersCouldReadDifferently(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
	for _, c := range []struct{ name, body, want string }{
		{"no body", "", "has no body"},
		{"only spaces", " \n", "has no body"},
		{"not JSON", "{", "ends too early"},
		{"text", "hello", "not JSON"},
		{"duplicate member", `{"name":"a","name":"b"}`, `"name" stands twice`},
		{"escaped duplicate", `{"name":"a","n\u0061me":"b"}`, `"name" stands twice`},
		{"duplicate below", `{"x":[{"y":1,"y":2}]}`, `"y" stands twice`},
		{"deep", deep, "nests deeper"},
		{"deep arrays", strings.Repeat("[", 100_000), "nests deeper"},
		{"trailing data", `{"name":"a"} {}`, "goes on"},
		{"wrong type", `{"name":7}`, "name may not be a JSON number"},
		{"not UTF-8", "{\"name\":\"\xff\"}", "not UTF-8"},
	} {
		var v struct {
			Name string `json:"name"`
		}
		err := rest.Read(httptest.NewRequest("PUT", "/", strings.NewReader(c.body)), &v)
		var e *rest.Error
		if !errors.As(err, &e) || e.Status != 400 || e.Code != "InvalidRequestContent" || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: got %v, want 400 InvalidRequestContent with %q", c.name, err, c.want)
		}
	}
}

func TestReadAcceptsTheSameNameInDifferentObjects(t *testing.T) {
	var v map[string]any
	body := `{"a":{"x":1},"b":{"x":1},"c":[{"x":1},{"x":1}]}`
	if err := rest.Read(httptest.NewRequest("PUT", "/", strings.NewReader(body)), &v); err != nil {
		t.Error(err)
	}
}

func TestBodiesOverTheLimitAre413(t *testing.T) {
	h := rest.Tidy(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var v any
		rest.WriteError(w, r, rest.Read(r, &v))
	}))
	big := `"` + strings.Repeat("a", 1<<20) + `"`
	for name, body := range map[string]io.Reader{
		"with its length":    strings.NewReader(big),
		"without its length": io.MultiReader(strings.NewReader(big)),
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("PUT", "/", body))
		if w.Code != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: got %d %s, want 413", name, w.Code, w.Body)
		}
	}
}

func TestEveryWellFormedVersionIsAccepted(t *testing.T) {
	for _, c := range []struct {
		query  string
		dotted bool
		want   string // the version, or the error's code
	}{
		{"api-version=2022-04-01", false, "2022-04-01"},
		{"api%2Dversion=2025-07-01", false, "2025-07-01"}, // the JavaScript Key Vault client
		{"api-version=2026-04-01", true, "2026-04-01"},
		{"api-version=2022-01-31-preview", false, "2022-01-31-preview"},
		{"api-version=7.4", true, "7.4"},
		{"api-version=7.6-preview.2", true, "7.6-preview.2"},
		{"api-version=7.4", false, "InvalidApiVersionParameter"},
		{"api-version=8.0", true, "InvalidApiVersionParameter"},
		{"api-version=2022-13-01", false, "InvalidApiVersionParameter"},
		{"api-version=2022-04-01x", false, "InvalidApiVersionParameter"},
		{"api-version=latest", false, "InvalidApiVersionParameter"},
		{"api-version=2022-04-01&api-version=2023-04-01", false, "InvalidApiVersionParameter"},
		{"api-version=", false, "MissingApiVersionParameter"},
		{"", false, "MissingApiVersionParameter"},
	} {
		got, err := rest.Version(httptest.NewRequest("GET", "/x?"+c.query, nil), c.dotted)
		var e *rest.Error
		if errors.As(err, &e) {
			got = e.Code
		}
		if got != c.want {
			t.Errorf("?%s (dotted %t): got %s, want %s", c.query, c.dotted, got, c.want)
		}
	}
}

func TestAPageLinksToTheNextOnTheHostThatWasCalled(t *testing.T) {
	r := httptest.NewRequest("GET", "https://kv1.vault.example.org:8443/secrets?api%2Dversion=7.4&maxresults=2", nil)
	p, err := rest.PageOf(r, 25)
	if err != nil {
		t.Fatal(err)
	}
	link := p.Next(r, "the rest/ünd")
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "https" || u.Host != "kv1.vault.example.org:8443" || u.Path != "/secrets" || u.Query().Get("api-version") != "7.4" {
		t.Fatalf("nextLink %s (%v)", link, err)
	}
	next, err := rest.PageOf(httptest.NewRequest("GET", link, nil), 25)
	if diff := cmp.Diff(rest.Page{Size: 2, From: "the rest/ünd"}, next); err != nil || diff != "" {
		t.Errorf("following %s: %v %s", link, err, diff)
	}
	if last := p.Next(r, ""); last != "" {
		t.Errorf("the last page links to %s", last)
	}
}

func TestBadPagingIsRefused(t *testing.T) {
	for _, q := range []string{
		"maxresults=0", "maxresults=26", "maxresults=x", "maxresults=", "$top=0", "%24top=-1",
		"$skiptoken=", "$skiptoken=***", "$skiptoken=YQ==", "%24skiptoken=" + strings.Repeat("YWFh", 4000),
	} {
		if p, err := rest.PageOf(httptest.NewRequest("GET", "/x?"+q, nil), 25); err == nil {
			t.Errorf("?%s was read as %+v, want 400", q, p)
		}
	}
	if p, err := rest.PageOf(httptest.NewRequest("GET", "/x?$top=999", nil), 100); err != nil || p.Size != 100 {
		t.Errorf("$top=999: got %+v, %v; want a page of 100", p, err)
	}
}

func FuzzPageOf(f *testing.F) {
	f.Add("$skiptoken=YWJj&maxresults=3&$top=2", 25)
	f.Add("%24skiptoken=%00", 1)
	f.Fuzz(func(t *testing.T, query string, size int) {
		if size < 1 {
			return
		}
		r := &http.Request{Host: "h", URL: &url.URL{Path: "/x", RawQuery: query}}
		p, err := rest.PageOf(r, size)
		if err != nil {
			return
		}
		if p.Size < 1 || p.Size > size {
			t.Fatalf("size %d of at most %d", p.Size, size)
		}
		if p.From == "" {
			return
		}
		link := p.Next(r, p.From)
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		again, err := rest.PageOf(&http.Request{URL: u}, size)
		if err != nil || again != p {
			t.Fatalf("%s leads to %+v (%v), want %+v", link, again, err, p)
		}
	})
}

func TestTidyCollapsesSlashesInPlaceAndNamesTheRequest(t *testing.T) {
	var path, raw, id string
	h := rest.Tidy(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, raw, id = r.URL.Path, r.URL.EscapedPath(), rest.RequestID(r.Context())
	}))
	r := httptest.NewRequest("GET", "/subscriptions//x///y%2Fz/?a=//", nil)
	r.Header.Set("x-ms-client-request-id", "mine")
	r.Header.Set("x-ms-correlation-request-id", "00000000-0000-0000-0000-00000000000A")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if path != "/subscriptions/x/y/z/" || raw != "/subscriptions/x/y%2Fz/" {
		t.Errorf("path %s, escaped %s", path, raw)
	}
	got := map[string]string{}
	for _, k := range []string{"x-ms-client-request-id", "x-ms-correlation-request-id", "Cache-Control"} {
		got[k] = w.Header().Get(k)
	}
	if diff := cmp.Diff(map[string]string{
		"x-ms-client-request-id":      "mine",
		"x-ms-correlation-request-id": "00000000-0000-0000-0000-00000000000a",
		"Cache-Control":               "no-cache",
	}, got); diff != "" {
		t.Error(diff)
	}
	if id == "" || w.Header().Get("x-ms-request-id") != id {
		t.Errorf("request id %q in the context, %q in the answer", id, w.Header().Get("x-ms-request-id"))
	}
}

func TestAnAnswerIsOneJSONValue(t *testing.T) {
	w := httptest.NewRecorder()
	rest.Write(w, 201, map[string]string{"next": "a?b=c&d=e"})
	if !json.Valid(w.Body.Bytes()) || !strings.Contains(w.Body.String(), "c&d") || w.Header().Get("Content-Length") != fmt.Sprint(w.Body.Len()) {
		t.Errorf("got %q with Content-Length %s", w.Body, w.Header().Get("Content-Length"))
	}
}
