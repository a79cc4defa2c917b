package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

// benchmark runs 'innate bench' as its user would.
func benchmark(t *testing.T, args ...string) (out string, err error) {
	t.Helper()
	tmp, err := os.MkdirTemp("", "innate-") // short, since unix sockets live in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	t.Setenv("TMPDIR", tmp)
	var b bytes.Buffer
	err = run(t.Context(), append([]string{"bench", "--seconds", "0.05"}, args...), strings.NewReader(""), &b, t.Output())
	return b.String(), err
}

func TestBenchAnswersScriptsWithEachRowBesideItsLimit(t *testing.T) {
	out, err := benchmark(t, "--only", "write-1,decide-1k", "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var names []any
	for _, r := range rows {
		names = append(names, r["name"])
		if len(r) != 5 || r["unit"] == "" {
			t.Errorf("got %v, want name, unit, value, limit and ratio", r)
		}
		value, limit, ratio := r["value"].(float64), r["limit"].(float64), r["ratio"].(float64)
		want := value / limit
		if r["unit"] == "ns" { // the smaller time is the better one
			want = limit / value
		}
		if value <= 0 || limit <= 0 || math.Abs(ratio-want) > 1e-9*want {
			t.Errorf("%s: value %v, limit %v, ratio %v: want ratio %v", r["name"], value, limit, ratio, want)
		}
	}
	if !slices.Equal(names, []any{"write-1", "decide-1k"}) {
		t.Errorf("got rows %v, want write-1 and decide-1k", names)
	}
}

func TestBenchReadsAndWritesSecretsOfAPlatform(t *testing.T) {
	out, err := benchmark(t, "--only", "secret-get,secret-set-1,secret-set-64", "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []measurement
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(rows) != 3 { // one that cannot be measured is left out
		t.Fatalf("got %s, want three rows", out)
	}
	for _, r := range rows {
		if r.Value <= 0 || r.Limit == nil || *r.Limit <= 0 {
			t.Errorf("%s: got %v beside %v, want both measured", r.Name, r.Value, r.Limit)
		}
	}
}

func TestBenchShowsPeopleTheAimOfEachRow(t *testing.T) {
	out, err := benchmark(t, "--only", "write-1")
	if err != nil {
		t.Fatal(err)
	}
	head, row, _ := strings.Cut(out, "\n")
	if got, want := strings.Fields(head), []string{"NAME", "UNIT", "VALUE", "LIMIT", "RATIO", "AIM"}; !slices.Equal(got, want) {
		t.Errorf("got the heads %q, want %q", got, want)
	}
	if !strings.HasPrefix(row, "write-1") || !strings.Contains(row, "ratio ≥ 0.50") {
		t.Errorf("got the row %q, want write-1 and its aim", row)
	}
}

func TestBenchSaysWhichRowsThereAre(t *testing.T) {
	_, err := benchmark(t, "--only", "write-2")
	if err == nil || !strings.Contains(err.Error(), "write-64") {
		t.Errorf("got %v, want a refusal that lists the rows", err)
	}
}

// serving returns how to reach a handler, and a load of requests for it.
func serving(t *testing.T, h http.HandlerFunc) (load, dialFunc) {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return load{Method: http.MethodGet, URL: s.URL, Connections: 2, Seconds: 0.05}, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}
}

func TestALoadReportsAnAnswerAndHowManyCame(t *testing.T) {
	l, dial := serving(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "yes") })
	r, err := l.run(t.Context(), dial)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Body) != "yes" || r.Requests < 2 || r.Seconds < l.Seconds {
		t.Errorf("got %d answers in %v s, %q", r.Requests, r.Seconds, r.Body)
	}
}

// A refusal is quicker than an answer, and must not count as one.
func TestALoadThatIsRefusedFailsWithTheReason(t *testing.T) {
	l, dial := serving(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"message": "not you"}`)
	})
	if _, err := l.run(t.Context(), dial); err == nil || !strings.Contains(err.Error(), "not you") {
		t.Errorf("got %v, want the refusal", err)
	}
}
