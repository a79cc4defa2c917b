package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"innate"
	"innate/audit"
)

func open(t *testing.T, path string) *audit.Log {
	t.Helper()
	l, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func record(t *testing.T, l *audit.Log, actions ...string) {
	t.Helper()
	for _, a := range actions {
		if err := l.Record(t.Context(), audit.Event{Action: a}); err != nil {
			t.Fatal(err)
		}
	}
}

func closeLog(t *testing.T, l *audit.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// read is the actions of the log, and the error that ended it.
func read(path string) (actions []string, err error) {
	for ev, err := range audit.Read(path) {
		if err != nil {
			return actions, err
		}
		actions = append(actions, ev.Action)
	}
	return actions, nil
}

func wantActions(t *testing.T, path string, want ...string) {
	t.Helper()
	got, err := read(path)
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writeFile makes a log of text, as one that no journal knows.
func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.RemoveAll(path + ".journal"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnEventIsReadAsItWasRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	want := audit.Event{
		Time:   time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC),
		Action: "issue-token", Allowed: true,
		Target: "https://vault.azure.net/?a=<b>&c", Principal: "p", Name: "Zoë \u2028 \"quoted\"\n", Client: "c",
		Hosting: "/h", Host: "/m", Assurance: innate.CgroupUID, Token: "uti", Why: "chain\":\"", Trace: "t",
		Correlation: "k", Address: "127.0.0.1:1",
		Detail: map[string]string{"chain": "not the chain"},
	}
	if err := l.Record(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	for got, err := range audit.Read(path) {
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if text := readFile(t, path); !strings.Contains(text, "<b>&c") {
		t.Errorf("characters of HTML are escaped in a file for people: %s", text)
	}
}

// The file is for other programs too: its lines are what encoding/json makes of an Event.
func TestALineIsTheEventAsJSON(t *testing.T) {
	full := audit.Event{
		Time:   time.Date(2026, 11, 23, 13, 0, 0, 120000000, time.FixedZone("", 3600)),
		Action: "issue-token", Allowed: true, Target: "https://vault.azure.net/?a=<b>&c", Principal: "p", Name: "Zoë \u2028 \"\n",
		Client: "c", Hosting: "/h", Host: "/m", Assurance: innate.CgroupUID, Token: "uti", Why: "\xff", Trace: "t", Correlation: "k",
		Address: "127.0.0.1:1", From: "/m2", Detail: map[string]string{"b": "2", "a\"": "<", "\xff": "3", "c": "", "d": "", "e": "", "f": "", "g": "", "h": ""},
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	var want []string
	for _, ev := range []audit.Event{full, {Time: full.Time, Action: "a"}, {Time: full.Time, Action: "a", Detail: map[string]string{}}} {
		if err := l.Record(t.Context(), ev); err != nil {
			t.Fatal(err)
		}
		ev.Time = ev.Time.UTC()
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(ev); err != nil {
			t.Fatal(err)
		}
		want = append(want, strings.TrimSuffix(b.String(), "}\n"))
	}
	var members map[string]any
	if err := json.Unmarshal([]byte(want[0]+"}"), &members); err != nil || len(members) != reflect.TypeFor[audit.Event]().NumField() {
		t.Fatalf("the full event has %d members (%v): fill in the one that is new", len(members), err)
	}
	for i, line := range strings.SplitAfter(strings.TrimSuffix(readFile(t, path), "\n"), "\n") {
		if got, _, _ := strings.Cut(line, `,"chain":`); got != want[i] {
			t.Errorf("got  %s\nwant %s", got, want[i])
		}
	}
}

func TestAnEventWithoutATimeGetsThatOfItsRecording(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	before := time.Now()
	record(t, open(t, path), "a")
	for ev, err := range audit.Read(path) {
		if err != nil || ev.Time.Before(before) || ev.Time.After(time.Now()) || ev.Time.Location() != time.UTC {
			t.Errorf("time %v (%v), want now in UTC", ev.Time, err)
		}
	}
}

func TestTheChainIsWhatItsDescriptionSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	record(t, l, "a", "b")
	closeLog(t, l)
	record(t, open(t, path), "c")
	prev := make([]byte, 32)
	lines := strings.SplitAfter(readFile(t, path), "\n")
	if len(lines) != 4 || lines[3] != "" {
		t.Fatalf("want three lines: %q", lines)
	}
	for i, line := range lines[:3] {
		event, rest, ok := strings.Cut(line, `,"chain":"`)
		sum := sha256.Sum256(append(prev, event+"}"...))
		if want := hex.EncodeToString(sum[:]) + "\"}\n"; !ok || rest != want {
			t.Errorf("line %d ends with %q, want %q", i+1, rest, want)
		}
		prev = sum[:]
	}
}

func TestAProcessThatIsBeingStartedKeepsNobodyFromTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	descriptors, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	lent := 0
	for _, d := range descriptors { // what a fork has until the exec
		if of, _ := os.Readlink(d); of != path {
			continue
		}
		n, _ := strconv.Atoi(filepath.Base(d))
		copied, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(copied)
		lent++
	}
	if lent == 0 {
		t.Fatal("the log has no descriptor")
	}
	closeLog(t, l)
	record(t, open(t, path), "a")
}

func TestTheLogIsItsOwnersAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if second, err := audit.Open(path); err == nil {
		second.Close()
		t.Error("two writers have the log open")
	} else if want := "another process is writing it"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
	closeLog(t, l)
	record(t, open(t, path), "a")
}

func TestTamperingIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	record(t, l, "a", "b", "c", "d")
	closeLog(t, l)
	good := strings.SplitAfter(readFile(t, path), "\n")[:4]
	other := filepath.Join(t.TempDir(), "other.log")
	l = open(t, other)
	record(t, l, "x")
	closeLog(t, l)
	replaced := func(i int, old, new string) []string {
		lines := slices.Clone(good)
		lines[i] = strings.Replace(lines[i], old, new, 1)
		return lines
	}
	tests := []struct {
		name  string
		lines []string
		line  int // where it shows
	}{
		{"a decision turned", replaced(1, "false", "true"), 2},
		{"a member added", replaced(1, `,"chain"`, `,"why":"x","chain"`), 2},
		{"a link changed", replaced(2, `"chain":"`, `"chain":"0`), 3},
		{"upper-case digits", replaced(2, good[2][len(good[2])-67:], strings.ToUpper(good[2][len(good[2])-67:])), 3},
		{"no link", replaced(0, `"chain"`, `"brain"`), 1},
		{"the first line removed", good[1:], 1},
		{"a middle line removed", slices.Concat(good[:1], good[2:]), 2},
		{"lines swapped", []string{good[0], good[2], good[1], good[3]}, 2},
		{"a line twice", slices.Concat(good[:2], good[1:]), 3},
		{"a line of another log", slices.Concat(good, []string{readFile(t, other)}), 5},
		{"an empty line", slices.Concat(good, []string{"\n"}), 5},
		{"a very long line", slices.Concat(good, []string{strings.Repeat("x", 2<<20) + "\n"}), 5},
	}
	for _, tt := range tests {
		writeFile(t, path, strings.Join(tt.lines, ""))
		actions, err := read(path)
		if want := fmt.Sprintf("line %d:", tt.line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, want)
		}
		if len(actions) != tt.line-1 {
			t.Errorf("%s: %d events before it, want %d", tt.name, len(actions), tt.line-1)
		}
	}
}

func TestATornLineIsCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	record(t, l, "a", "b")
	closeLog(t, l)
	good := readFile(t, path)
	first := strings.IndexByte(good, '\n') + 1
	torn := map[string]string{
		"":                                  good, // nothing torn
		"most of a line":                    good + good[first:len(good)-1],
		"the beginning of a line":           good + "{",
		"zeros, as some file systems leave": good + strings.Repeat("\x00", 4096),
	}
	for name, text := range torn {
		writeFile(t, path, text)
		wantActions(t, path, "a", "b") // readers do not see it
		l := open(t, path)
		record(t, l, "c")
		closeLog(t, l)
		if wantActions(t, path, "a", "b", "c"); !strings.HasSuffix(readFile(t, path), "\n") {
			t.Error("something torn is left")
		}
		if t.Failed() {
			t.Fatal(name)
		}
	}
	writeFile(t, path, good[:first/2]) // the very first line was torn
	record(t, open(t, path), "c")
	wantActions(t, path, "c")
}

func TestAFileThatIsNoAuditLogIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for name, text := range map[string]string{
		"a text":                       "hello\nworld\n",
		"a text without a line feed":   "hello",
		"a text that ends within":      "hello\nworld",
		"a large one without any":      strings.Repeat("{", 4<<20),
		"JSON lines of something else": "{\"a\":1}\n",
	} {
		writeFile(t, path, text)
		l, err := audit.Open(path)
		if err == nil {
			l.Close()
			t.Errorf("%s was opened", name)
		} else if want := "move the file away"; !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %q, want %q", name, err, want)
		}
		if readFile(t, path) != text {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestBadEventsAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	for name, ev := range map[string]audit.Event{
		"no action":            {},
		"a year beyond JSON's": {Action: "a", Time: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"too long":             {Action: "a", Target: strings.Repeat("x", 2<<20)},
	} {
		if err := l.Record(t.Context(), ev); err == nil {
			t.Errorf("%s: recorded", name)
		}
		if err := audit.Leave(outbox{}, ev); err == nil {
			t.Errorf("%s: left in the outbox", name)
		}
	}
	// Bytes that are no UTF-8 come from outside; they must not cost the record.
	if err := l.Record(t.Context(), audit.Event{Action: "a", Target: "\xff\x00\n"}); err != nil {
		t.Error(err)
	}
	wantActions(t, path, "a")
}

func TestConcurrentEventsAreAllRecordedAndEachWritersInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	const writers, times = 32, 50
	var g errgroup.Group
	for w := range writers {
		g.Go(func() error {
			var waits []func(context.Context) error
			for n := range times {
				waits = append(waits, l.Append(audit.Event{Action: "a", Principal: "p", Detail: map[string]string{"w": fmt.Sprint(w), "n": fmt.Sprint(n)}}))
			}
			for _, wait := range waits {
				if err := errors.Join(wait(t.Context()), wait(t.Context())); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for ev, err := range audit.Read(path) {
		if err != nil {
			t.Fatal(err)
		}
		w := ev.Detail["w"]
		if ev.Detail["n"] != fmt.Sprint(next[w]) {
			t.Fatalf("writer %s: got number %s, want %d", w, ev.Detail["n"], next[w])
		}
		next[w]++
	}
	for w := range writers {
		if got := next[fmt.Sprint(w)]; got != times {
			t.Errorf("writer %d: %d events, want %d", w, got, times)
		}
	}
}

func TestAWriterMayGiveUpWaiting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// The event may be durable already; an error that is given is ctx's.
	if err := l.Record(ctx, audit.Event{Action: "a"}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	record(t, l, "b")
	wantActions(t, path, "a", "b")
}

func TestCloseWritesWhatIsPending(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	wait := l.Append(audit.Event{Action: "a"})
	closeLog(t, l)
	if err := wait(t.Context()); err != nil {
		t.Error(err)
	}
	wantActions(t, path, "a")
	if err := l.Record(t.Context(), audit.Event{Action: "b"}); err == nil {
		t.Error("a closed log recorded something")
	}
	closeLog(t, l) // again
}

func TestAFullDiskFailsTheRecordAndHealsByItself(t *testing.T) {
	if !inChild(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	record(t, l, "a")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	lift := limitFiles(t, uint64(info.Size())+1000) // room for half a line
	long := audit.Event{Action: "lost", Target: strings.Repeat("x", 4000)}
	err1, err2 := l.Record(t.Context(), long), l.Record(t.Context(), long)
	lift()
	for _, err := range []error{err1, err2} {
		if !errors.Is(err, syscall.EFBIG) {
			t.Errorf("got %v, want %v", err, syscall.EFBIG)
		}
	}
	record(t, l, "b")
	wantActions(t, path, "a", "b")
	if text := readFile(t, path); strings.Contains(text, "xxx") || !strings.HasSuffix(text, "\n") {
		t.Errorf("the line that failed left something behind: %q", text)
	}
}

// inChild runs the test that calls it in a process of its own, whose limits are
// nobody else's, and reports whether this is that process.
func inChild(t *testing.T) bool {
	t.Helper()
	const child = "INNATE_TEST_CHILD"
	if os.Getenv(child) != "" {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("in its own process: %v\n%s", err, out)
	}
	return false
}

// limitFiles lets no file of this process grow beyond size until lift is called.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	}
}

type outbox map[string][]byte

func (o outbox) Put(key string, value []byte) { o[key] = value }

func TestTheOutboxKeepsEventsInTheOrderOfLeaving(t *testing.T) {
	box := outbox{}
	const events = 100
	for i := range events {
		if err := audit.Leave(box, audit.Event{Action: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if len(box) != events {
		t.Fatalf("%d rows, want %d", len(box), events)
	}
	var keys []string
	for k := range box {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for i, k := range keys {
		ev, err := audit.Drained(box[k])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(k, audit.OutboxPrefix) || ev.Action != fmt.Sprint(i) || ev.Time.IsZero() {
			t.Errorf("row %d: key %s has action %s of %v", i, k, ev.Action, ev.Time)
		}
	}
	if _, err := audit.Drained([]byte("{")); err == nil {
		t.Error("half a row was read")
	}
}

func FuzzRead(f *testing.F) {
	path := filepath.Join(f.TempDir(), "audit.log")
	l, err := audit.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	for range 2 {
		if err := l.Record(f.Context(), audit.Event{Action: "a"}); err != nil {
			f.Fatal(err)
		}
	}
	l.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("{\"chain\":\"\"}\n"))
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(t.TempDir(), "audit.log")
		writeFile(t, path, string(file))
		events, err := read(path)
		if lines := bytes.Count(file, []byte("\n")); err == nil && len(events) != lines {
			t.Errorf("%d events and no error in %d lines", len(events), lines)
		}
		// What Open accepts and mends can still be appended to.
		if l, openErr := audit.Open(path); openErr == nil {
			record(t, l, "b")
			closeLog(t, l)
			after, afterErr := read(path)
			if err == nil && (afterErr != nil || len(after) != len(events)+1) {
				t.Errorf("%d events, then %d and %v", len(events), len(after), afterErr)
			}
		}
	})
}
