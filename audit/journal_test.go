package audit_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"innate/audit"
)

// A powerCut is what a disk may hold of a log that was written until the power
// went: the journal was synced with each event, the log now and then.
type powerCut struct {
	log, journal string
	synced       int      // bytes of the log that are on the disk for certain
	recorded     []string // actions
}

// cutPower records events, each on its own, and looks at the files while the log is open.
func cutPower(t *testing.T, events, size int) (p powerCut) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	for i := range events {
		action := fmt.Sprint(i)
		if err := l.Record(t.Context(), audit.Event{Action: action, Target: strings.Repeat("x", size)}); err != nil {
			t.Fatal(err)
		}
		p.recorded = append(p.recorded, action)
	}
	p.log, p.journal = readFile(t, path), readFile(t, path+".journal")
	p.synced = len(p.log)
	for _, half := range []string{p.journal[:len(p.journal)/2], p.journal[len(p.journal)/2:]} {
		var round struct{ From int }
		if first, _, begun := strings.Cut(half, "\n"); begun {
			if err := json.Unmarshal([]byte(first), &round); err != nil {
				t.Fatal(err)
			}
			p.synced = min(p.synced, round.From)
		}
	}
	return p
}

// files writes a log and its journal and returns the path.
func files(t *testing.T, log, journal string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "audit.log")
	writeFile(t, path, log)
	if err := os.WriteFile(path+".journal", []byte(journal), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatTheLogLostComesBackFromItsJournal(t *testing.T) {
	for name, p := range map[string]powerCut{
		"the first round":  cutPower(t, 5, 100),
		"two rounds":       cutPower(t, 500, 500), // one has room for some 400
		"two later rounds": cutPower(t, 1100, 500),
	} {
		if later := p.synced > 0; later != (name == "two later rounds") {
			t.Fatalf("%s begin at %d", name, p.synced)
		}
		for cut := p.synced; cut <= len(p.log); cut += 1 + (len(p.log)-p.synced)/20 {
			zeros := strings.Repeat("\x00", len(p.log)-cut)
			hole := zeros[:min(512, len(zeros))]
			for how, log := range map[string]string{
				"cut off": p.log[:cut], "zeros": p.log[:cut] + zeros, "a hole": p.log[:cut] + hole + p.log[cut+len(hole):],
			} {
				path := files(t, log, p.journal)
				l := open(t, path)
				record(t, l, "after")
				closeLog(t, l)
				wantActions(t, path, append(slices.Clone(p.recorded), "after")...)
				if t.Failed() {
					t.Fatalf("%s, %s from byte %d on", name, how, cut)
				}
			}
		}
	}
}

func TestAJournalOfOneRoundIsReadAndMadeLonger(t *testing.T) {
	p := cutPower(t, 5, 100)
	path := files(t, "", p.journal[:len(p.journal)/2]) // as they were before they had two
	closeLog(t, open(t, path))
	wantActions(t, path, p.recorded...)
	if got := len(readFile(t, path+".journal")); got != len(p.journal) {
		t.Errorf("it has %d bytes, want %d", got, len(p.journal))
	}
}

func TestAJournalThatWasBeingWrittenEndsWhereItIsWhole(t *testing.T) {
	p := cutPower(t, 5, 100)
	whole := strings.TrimRight(p.journal, "\x00")
	for cut := 0; cut < len(whole); cut += 23 { // no divisor of a line's length
		path := files(t, "", whole[:cut]+strings.Repeat("\x00", len(p.journal)-cut))
		l := open(t, path)
		record(t, l, "after")
		closeLog(t, l)
		lines := max(strings.Count(whole[:cut], "\n")-1, 0) // without that of the round
		wantActions(t, path, append(slices.Clone(p.recorded[:lines]), "after")...)
		if t.Failed() {
			t.Fatalf("cut at byte %d", cut)
		}
	}
}

func TestLinesThatTheJournalDoesNotKnowStand(t *testing.T) {
	p, other := cutPower(t, 5, 100), cutPower(t, 700, 500)
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	long := audit.Event{Action: "long", Target: strings.Repeat("x", 512<<10)} // no journal has room for it
	record(t, l, "a")
	if err := l.Record(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	log, journal := readFile(t, path), readFile(t, path+".journal")
	for name, c := range map[string]struct {
		log, journal string
		want         []string
	}{
		"synced in the log itself":   {log, journal, []string{"a", "long"}},
		"of an older file":           {p.log, other.journal, p.recorded},
		"of a later file":            {other.log, p.journal, other.recorded},
		"no journal":                 {p.log, "", p.recorded},
		"a journal that never began": {p.log, strings.Repeat("\x00", len(p.journal)), p.recorded},
		"something else":             {p.log, "hello\n" + p.journal, p.recorded},
	} {
		path := files(t, c.log, c.journal)
		closeLog(t, open(t, path))
		if wantActions(t, path, c.want...); t.Failed() {
			t.Fatal(name)
		}
	}
}

func TestWhereTheJournalCannotBeWrittenTheLogIsSynced(t *testing.T) {
	if !inChild(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	// The journal, in whole blocks, comes to the limit before the log does.
	lift := limitFiles(t, 64<<10+3000)
	var recorded []string
	var cuts []powerCut // after each event that followed the one refused
	for i, refused := 0, 0; len(cuts) < 3; i++ {
		action := fmt.Sprint(i)
		err := l.Record(t.Context(), audit.Event{Action: action, Target: strings.Repeat("x", 300)})
		switch {
		case err != nil && strings.Contains(err.Error(), "journal") && refused == 0:
			refused++
			continue
		case err != nil || i == 1000:
			t.Fatalf("event %d after %d refused: %v", i, refused, err)
		}
		recorded = append(recorded, action)
		if refused > 0 {
			cuts = append(cuts, powerCut{log: readFile(t, path), journal: readFile(t, path+".journal"), recorded: slices.Clone(recorded)})
		}
	}
	lift()
	for _, p := range cuts {
		path := files(t, p.log, p.journal)
		closeLog(t, open(t, path))
		wantActions(t, path, p.recorded...)
	}
	record(t, l, "after")
	closeLog(t, l)
	wantActions(t, path, append(recorded, "after")...)
}

func TestAJournalIsNotWrittenOverAnotherFile(t *testing.T) {
	p := cutPower(t, 5, 100)
	for name, text := range map[string]string{"a text": "hello\nworld\n", "a text without a line feed": "hello"} {
		path := files(t, text, p.journal)
		l, err := audit.Open(path)
		if err == nil {
			l.Close()
			t.Errorf("%s was opened", name)
		}
		if readFile(t, path) != text {
			t.Errorf("%s was changed", name)
		}
	}
}

// FuzzRestore opens a log beside any journal: what was good in the log stands.
func FuzzRestore(f *testing.F) {
	path := filepath.Join(f.TempDir(), "audit.log")
	l, err := audit.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	for range 3 {
		if err := l.Record(f.Context(), audit.Event{Action: "a"}); err != nil {
			f.Fatal(err)
		}
	}
	var both [2][]byte
	for i, name := range []string{path, path + ".journal"} {
		if both[i], err = os.ReadFile(name); err != nil {
			f.Fatal(err)
		}
	}
	l.Close()
	log, journal := both[0], both[1][:2*len(both[0])]
	half := len(both[1]) / 2
	f.Add(log, journal, []byte{})
	f.Add(log[:len(log)/2], []byte{}, journal)
	f.Add([]byte{}, journal[:len(log)], journal)
	f.Add(log, []byte(`{"from":1,"chain":"`+strings.Repeat("0", 64)+"\"}\n"), journal)
	f.Fuzz(func(t *testing.T, log, first, second []byte) {
		rounds := append(append(make([]byte, 0, 2*half), first[:min(len(first), half)]...), make([]byte, max(half-len(first), 0))...)
		path := files(t, string(log), string(append(rounds, second...)))
		before, readErr := read(path)
		l, err := audit.Open(path)
		if err != nil {
			return
		}
		record(t, l, "after")
		closeLog(t, l)
		after, err := read(path)
		if readErr != nil {
			return
		}
		if err != nil || len(after) <= len(before) || !slices.Equal(after[:len(before)], before) || after[len(after)-1] != "after" {
			t.Errorf("%q, then %q and %v", before, after, err)
		}
	})
}
