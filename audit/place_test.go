package audit_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"innate/audit"
)

// carry reads a log piece by piece, as whoever ships it does.
func carry(t *testing.T, l *audit.Log, from audit.Place, most int) (all []byte, at audit.Place) {
	t.Helper()
	for at = from; ; {
		lines, to, err := l.Lines(at, most)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			return all, at
		}
		if _, end, err := audit.Parse(lines, at); err != nil || end != to {
			t.Fatalf("from %v: parsed to %v, %v; want %v", at, end, err, to)
		}
		all, at = append(all, lines...), to
	}
}

func TestALogIsCarriedWholeInPiecesOfAnySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, path)
	if begin, err := l.Begin(); begin != (audit.Place{}) || err != nil {
		t.Errorf("an empty log begins at %v, %v; want nowhere", begin, err)
	}
	record(t, l, "a", "b", "c")
	begin, err := l.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, most := range []int{0, 1, 200, 1 << 20} {
		all, at := carry(t, l, begin, most)
		if end, err := l.End(); at != end || err != nil {
			t.Errorf("%d bytes at a time: at %v, want %v (%v)", most, at, end, err)
		}
		if string(all) != readFile(t, path) {
			t.Errorf("%d bytes at a time: %q", most, all)
		}
	}
	_, more := l.Durable()
	record(t, l, "d")
	<-more // told of it
	closeLog(t, l)
	l = open(t, path) // a place outlives a restart
	if all, _ := carry(t, l, begin, 64); string(all) != readFile(t, path) {
		t.Errorf("after a restart: %q", all)
	}
}

func TestAPlaceIsInOneLogOnly(t *testing.T) {
	dir := t.TempDir()
	one, other := open(t, filepath.Join(dir, "one")), open(t, filepath.Join(dir, "other"))
	record(t, one, "a", "b")
	record(t, other, "a", "b")
	end, err := one.End()
	if err != nil {
		t.Fatal(err)
	}
	inside, beyond, changed := end, end, end
	inside.Offset--
	beyond.Offset += 100
	changed.Last[0]++
	for name, test := range map[string]struct {
		l  *audit.Log
		at audit.Place
	}{
		"another log": {other, end}, "amid a line": {one, inside}, "after the end": {one, beyond}, "after another line": {one, changed}, "nowhere": {one, audit.Place{}},
	} {
		if _, _, err := test.l.Lines(test.at, 100); !errors.Is(err, audit.ErrElsewhere) {
			t.Errorf("%s: %v, want ErrElsewhere", name, err)
		}
	}
}

func FuzzPlace(f *testing.F) {
	f.Add("")
	f.Add(audit.Place{Log: audit.Link{1}, Offset: 7, Last: audit.Link{2}}.String())
	f.Add("a:1:b")
	f.Add("::")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := audit.ParsePlace(s)
		if err != nil {
			return
		}
		if again, err := audit.ParsePlace(p.String()); err != nil || again != p {
			t.Errorf("%q is %v, and that %v (%v)", s, p, again, err)
		}
	})
}

func FuzzParse(f *testing.F) {
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
	begin, err := l.Begin()
	if err != nil {
		f.Fatal(err)
	}
	good, _, err := l.Lines(begin, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		events, to, err := audit.Parse(lines, begin)
		switch {
		case err != nil && (events != nil || to != begin):
			t.Errorf("an error, and yet %d events to %v", len(events), to)
		case err == nil && (len(events) != bytes.Count(lines, []byte("\n")) || to.Offset != int64(len(lines))):
			t.Errorf("%d events to %v of %d bytes", len(events), to, len(lines))
		}
	})
}
