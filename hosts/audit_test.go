package hosts_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/audit"
	"innate/audit/ship"
)

// A record is a host's own audit log.
type record struct {
	t    *testing.T
	path string
	log  *audit.Log
}

func newRecord(t *testing.T) *record {
	t.Helper()
	r := &record{t: t, path: filepath.Join(t.TempDir(), "audit.log")}
	r.open()
	t.Cleanup(func() { r.log.Close() })
	return r
}

func (r *record) open() {
	r.t.Helper()
	log, err := audit.Open(r.path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.log = log
}

func (r *record) add(actions ...string) {
	r.t.Helper()
	for _, a := range actions {
		if err := r.log.Record(r.t.Context(), audit.Event{Action: a}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// lines are what the log holds, from its beginning.
func (r *record) lines() (at, to audit.Place, lines []byte) {
	r.t.Helper()
	at, err := r.log.Begin()
	if err != nil {
		r.t.Fatal(err)
	}
	lines, to, err = r.log.Lines(at, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	return at, to, lines
}

// ship posts lines as the host, once.
func (h *host) ship(at, instead audit.Place, lines []byte) (audit.Place, answer) {
	h.w.t.Helper()
	q := url.Values{"at": {at.String()}}
	if instead != (audit.Place{}) {
		q.Set("instead", instead.String())
	}
	resp, err := h.client().Post(h.w.server.URL+"/v1/audit?"+q.Encode(), ship.ContentType, bytes.NewReader(lines))
	h.w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	h.w.must(err)
	var a ship.Answer
	return a.At, read(h.w.t, resp.StatusCode, body, &a)
}

// follow sends a log as the host until the function that it returns is called.
func (h *host) follow(r *record, wire http.RoundTripper) (stop func()) {
	s := &ship.Sender{
		URL: h.w.server.URL + "/v1/audit", HTTP: &http.Client{Transport: wire}, Log: r.log, Logger: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	return func() {
		h.w.t.Helper()
		cancel()
		h.w.must(<-ended)
	}
}

// received are the events of hosts that the platform has.
func (w *world) received() (all []audit.Event) {
	w.t.Helper()
	for row := range w.rows(audit.OutboxPrefix) {
		_, text, _ := strings.Cut(row, " ")
		var ev audit.Event
		w.must(json.Unmarshal([]byte(text), &ev))
		if ev.From != "" {
			all = append(all, ev)
		}
	}
	return all
}

func (w *world) receivedActions() (actions []string) {
	w.t.Helper()
	for _, ev := range w.received() {
		actions = append(actions, ev.Action)
	}
	return actions
}

// eventually waits for commits until ok.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if ok() {
		return
	}
	for _, err := range w.db.Watch(ctx, 0) {
		if err != nil {
			break
		}
		if ok() {
			return
		}
	}
	if !ok() {
		w.t.Fatalf("it did not come to this: %s", what)
	}
}

// A lossy wire loses every second answer, after the server has acted.
type lossy struct {
	http.RoundTripper
	n atomic.Int64
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil && l.n.Add(1)%2 == 0 {
		resp.Body.Close()
		return nil, errors.New("the answer is lost")
	}
	return resp, err
}

func TestWhatAHostRecordsArrivesOnceWhateverIsLostOnTheWay(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	r := newRecord(t)
	wire := &lossy{RoundTripper: h.client().Transport}
	var want []string
	for i := range 2 { // a restart of the agent each time
		stop := h.follow(r, wire)
		for j := range 2 {
			action := fmt.Sprintf("event-%d-%d", i, j)
			r.add(action)
			want = append(want, action)
			w.eventually(action+" is received", func() bool { return len(w.receivedActions()) >= len(want) })
		}
		stop()
		r.log.Close()
		r.open()
	}
	if diff := cmp.Diff(want, w.receivedActions()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAHostSpeaksInItsOwnNameOnly(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	r := newRecord(t)
	if err := r.log.Record(t.Context(), audit.Event{
		Action: "evict", Allowed: true, Principal: w.admin.Object, Name: "admin", Host: string(node2), From: string(node2), Assurance: innate.Device,
	}); err != nil {
		t.Fatal(err)
	}
	at, to, lines := r.lines()
	if got, a := h.ship(at, audit.Place{}, lines); got != to {
		t.Fatalf("%+v: at %v, want %v", a, got, to)
	}
	for _, ev := range w.received() {
		if ev.From != string(node1) || ev.Host != string(node1) {
			t.Errorf("recorded as of %q on %q, want %s: that is whose certificate it was", ev.From, ev.Host, node1)
		}
	}
	if n := len(w.received()); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestWhatIsSentAgainIsNotTakenAgain(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	r := newRecord(t)
	r.add("a", "b")
	at, to, lines := r.lines()
	for range 3 {
		if got, a := h.ship(at, audit.Place{}, lines); got != to {
			t.Fatalf("%+v: at %v, want %v", a, got, to)
		}
	}
	// Nor what came late from before a new log was begun.
	other := newRecord(t)
	other.add("c")
	first, end, more := other.lines()
	if got, a := h.ship(first, to, more); got != end {
		t.Fatalf("%+v: at %v, want %v", a, got, end)
	}
	if got, _ := h.ship(at, audit.Place{}, lines); got != end {
		t.Errorf("a late request of the log before was taken")
	}
	if diff := cmp.Diff([]string{"a", "b", "begin-audit-log", "c"}, w.receivedActions()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestALogThatWasCutOffIsSeen(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	r := newRecord(t)
	r.add("a", "b")
	stop := h.follow(r, h.client().Transport)
	w.eventually("both are received", func() bool { return len(w.received()) == 2 })
	stop()
	r.log.Close()
	text, err := os.ReadFile(r.path)
	w.must(err)
	first, _, _ := bytes.Cut(text, []byte("\n"))
	w.must(os.WriteFile(r.path, append(first, '\n'), 0o600))
	w.must(os.Remove(r.path + ".journal"))
	r.open()
	stop = h.follow(r, h.client().Transport)
	defer stop()
	w.eventually("it is seen", func() bool { return len(w.received()) == 3 })
	r.add("c")
	w.eventually("it goes on", func() bool { return len(w.received()) == 4 })
	if diff := cmp.Diff([]string{"a", "b", "continue-audit-log", "c"}, w.receivedActions()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if alarm := w.received()[2]; alarm.Allowed || !strings.Contains(alarm.Why, "cut off") {
		t.Errorf("no alarm: %+v", alarm)
	}
}

func TestRecordsThatAreDamagedOrTooManyAreRefused(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	r := newRecord(t)
	r.add("a", "b")
	at, _, lines := r.lines()
	second := bytes.Index(lines, []byte("\n")) + 1
	for name, test := range map[string]struct {
		at    audit.Place
		lines []byte
	}{
		"a changed line":      {at, bytes.Replace(lines, []byte(`"b"`), []byte(`"x"`), 1)},
		"a missing line":      {at, lines[second:]},
		"a torn line":         {at, lines[:len(lines)-1]},
		"no lines":            {at, []byte("hello\n")},
		"another log's place": {audit.Place{Log: audit.Link{1}}, lines},
	} {
		if _, a := h.ship(test.at, audit.Place{}, test.lines); a.status != http.StatusBadRequest || a.code != "InvalidAuditRecords" {
			t.Errorf("%s: %+v, want 400 InvalidAuditRecords", name, a)
		}
	}
	if n := len(w.received()); n != 0 {
		t.Errorf("%d events of damaged records are kept", n)
	}
	flood := bytes.Repeat([]byte("x"), ship.MaxBody)
	var last answer
	for range 5 {
		_, last = h.ship(at, audit.Place{}, flood)
	}
	if last.status != http.StatusTooManyRequests {
		t.Errorf("after 5 MiB at once: %+v, want 429", last)
	}
	if other, a := w.joined(node2).ship(at, audit.Place{}, lines); other == (audit.Place{}) {
		t.Errorf("another host pays for it: %+v", a)
	}
}

func TestAnEvictedHostsRecordsAreRefused(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	r := newRecord(t)
	r.add("a")
	at, _, lines := r.lines()
	w.arm(w.admin, http.MethodPost, string(node1)+"/evict", nil, nil)
	if _, a := h.ship(at, audit.Place{}, lines); a.status != http.StatusUnauthorized {
		t.Errorf("%+v, want 401", a)
	}
	if _, a := (&host{w: w}).ship(at, audit.Place{}, lines); a.status != http.StatusUnauthorized {
		t.Errorf("without a certificate: %+v, want 401", a)
	}
	if n := len(w.received()); n != 0 {
		t.Errorf("%d events are kept, want none", n)
	}
	if diff := cmp.Diff([]string{"InvalidHostCertificate"}, w.refusals("ship-audit")); diff != "" {
		t.Errorf("refusals recorded (-want +got):\n%s", diff)
	}
}
