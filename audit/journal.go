package audit

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A journal makes lines durable before the log itself is. It is a file beside
// the log whose room is on the disk already: to sync it writes the lines and
// nothing else, where to sync a file that has grown commits the file system's
// own journal too, which takes three times as long on a busy machine.
//
// Its two halves take turns at a round: a line that says where in the log the
// round begins, and then the log's lines from there on. When a half is full, the
// log is synced while the other is written. What an older round left after the
// newest line does not continue the chain.
//
// It is written past the kernel's cache, in whole blocks out of a copy in memory:
// the cache would keep it a second time and look for what of it is new, which is
// half of what a sync costs the processor.
type journal struct {
	file *os.File
	room []byte // what the file holds; page-aligned, as direct writes must be
	half int    // offset of the half that is written
	end  int    // of what this round wrote, in its half; 0 when it is to begin
	// failed says that a write failed: what this half holds is not known.
	failed bool
}

const (
	journalHalf  = 256 << 10 // length in bytes of a half: some 400 events
	journalBlock = 4 << 10   // what a direct write is a multiple of, on any disk
)

// openJournal opens the journal at path, making it when absent.
func openJournal(path string) (*journal, error) {
	const flags = os.O_CREATE | os.O_RDWR | unix.O_DSYNC
	f, err := os.OpenFile(path, flags|unix.O_DIRECT, 0o600)
	if errors.Is(err, unix.EINVAL) { // not every file system writes directly
		f, err = os.OpenFile(path, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	if err := j.reserve(); err != nil {
		return nil, errors.Join(fmt.Errorf("making its journal: %w", err), j.close())
	}
	return j, nil
}

// reserve makes the copy, and puts what is missing of the journal's room on the disk.
func (j *journal) reserve() (err error) {
	if j.room, err = unix.Mmap(-1, 0, 2*journalHalf, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		return err
	}
	there, err := os.ReadFile(j.file.Name())
	if err != nil || len(there) >= len(j.room) {
		return err
	}
	copy(j.room, there)
	if _, err := j.file.WriteAt(j.room, 0); err != nil {
		return err
	}
	return j.file.Sync()
}

func (j *journal) close() error {
	var err error
	if j.room != nil {
		err = unix.Munmap(j.room)
	}
	return errors.Join(err, j.file.Close())
}

// begin begins a round in place of this one.
func (j *journal) begin() { j.end, j.failed = 0, false }

// turn begins a round in the other half.
func (j *journal) turn() { j.half, j.end = journalHalf-j.half, 0 }

// mostRound is the length in bytes of the longest line that begins a round.
const mostRound = 128

// fits reports whether this round has room for lines.
func (j *journal) fits(lines []byte) bool { return max(j.end, mostRound)+len(lines) <= journalHalf }

// write makes lines durable, which begin in the log at from, after a line whose
// link is prev. They fit.
func (j *journal) write(lines []byte, from int64, prev Link) error {
	half, end := j.room[j.half:][:journalHalf], j.end
	if end == 0 {
		end = copy(half, round{from, prev}.encode())
	}
	end += copy(half[end:], lines)
	begin := j.end &^ (journalBlock - 1)
	blocks := half[begin : (end+journalBlock-1)&^(journalBlock-1)]
	if _, err := j.file.WriteAt(blocks, int64(j.half+begin)); err != nil {
		j.failed = true
		return fmt.Errorf("writing its journal: %w", err)
	}
	j.end = end
	return nil
}

// A round is where in a log the lines of a journal begin.
type round struct {
	from int64 // offset of the first of them
	prev Link  // of the line before it
}

// roundLine is a round as its line of JSON.
type roundLine struct {
	From  int64  `json:"from"`
	Chain string `json:"chain"`
}

func (r round) encode() []byte {
	return fmt.Appendf(nil, `{"from":%d,"chain":"%x"}`+"\n", r.from, r.prev)
}

// A found round is one that the journal's file holds, with those of its lines
// that continue the chain.
type found struct {
	round
	lines []byte
}

// read returns the rounds that the file holds, the older one first.
func (j *journal) read() (rounds []found, err error) {
	if _, err := j.file.ReadAt(j.room, 0); err != nil {
		return nil, fmt.Errorf("reading its journal: %w", err)
	}
	for half := range slices.Chunk(j.room, journalHalf) {
		first, rest, _ := bytes.Cut(half, []byte("\n"))
		r, ok := parseRound(first)
		if !ok {
			continue
		}
		length, _, err := whole(bytes.NewReader(rest), r.prev)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, found{r, rest[:length]})
	}
	slices.SortFunc(rounds, func(a, b found) int { return cmp.Compare(a.from, b.from) })
	return rounds, nil
}

// parseRound is the inverse of encode; there may be anything.
func parseRound(text []byte) (r round, ok bool) {
	var l roundLine
	if json.Unmarshal(text, &l) != nil || l.From < 0 || len(l.Chain) != hex.EncodedLen(len(r.prev)) {
		return r, false
	}
	_, err := hex.Decode(r.prev[:], []byte(l.Chain))
	r.from = l.From
	return r, err == nil
}

// whole is the length of the lines at the beginning of in that continue the
// chain from prev, and the link of the last of them.
func whole(in io.Reader, prev Link) (length int64, last Link, err error) {
	last = prev
	for ln, err := range lines(in) {
		if errors.Is(err, errLongLine) {
			break
		}
		if err != nil {
			return 0, last, err
		}
		event, l, err := parseLine(ln.text)
		if err != nil || last.follow(event) != l {
			break
		}
		length, last = length+int64(len(ln.text))+1, l
	}
	return length, last, nil
}

// restore finds the end of the log and its last link. Lines that only the
// journal has are written again, and what comes after the last whole line, which
// nobody was told was recorded, is cut off.
func (l *Log) restore() error {
	rounds, err := l.journal.read()
	if err != nil {
		return err
	}
	known := false // by a round, where the log ends
	for _, r := range rounds {
		ok, err := l.continues(r.round)
		if err != nil {
			return err
		}
		if !ok { // it is new, or that of a file that was moved away
			continue
		}
		if err := l.replay(r); err != nil {
			return err
		}
		known = true
	}
	if known {
		err = l.cut()
	} else {
		err = l.resume()
	}
	if err != nil {
		return err
	}
	// The next round begins after what stands here.
	if err := unix.Fdatasync(int(l.file.Fd())); err != nil {
		return err
	}
	l.doubtful, l.journal.end = false, 0
	return nil
}

// replay writes the lines of r into the log, unless others stand there that
// continue the chain: those were made durable in the log itself.
func (l *Log) replay(r found) error {
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	length, last, err := whole(io.NewSectionReader(l.file, r.from, size-r.from), r.prev)
	if err != nil {
		return err
	}
	there := make([]byte, min(length, int64(len(r.lines))))
	if _, err := l.file.ReadAt(there, r.from); err != nil {
		return err
	}
	if bytes.HasPrefix(r.lines, there) {
		if _, err := l.file.WriteAt(r.lines, r.from); err != nil {
			return err
		}
	}
	if missing := len(r.lines) - int(length); missing > 0 && bytes.HasPrefix(r.lines, there) {
		slog.Warn("the end of the audit log was lost and is restored from its journal", "path", l.file.Name(), "bytes", missing)
		if length, last, err = whole(bytes.NewReader(r.lines), r.prev); err != nil {
			return err
		}
	}
	l.end, l.last = r.from+length, last
	return nil
}

// cut removes what stands after the last line.
func (l *Log) cut() error {
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil || l.end >= size {
		return err
	}
	slog.Warn("cutting an unfinished line off the audit log", "path", l.file.Name(), "bytes", size-l.end)
	return l.file.Truncate(l.end)
}

// continues reports whether r begins where a line of this log ends, or where
// its first line is or was to be.
func (l *Log) continues(r round) (bool, error) {
	if r.from == 0 {
		first := []byte{0}
		if _, err := l.file.ReadAt(first, 0); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		return r.prev == Link{} && (first[0] == '{' || first[0] == 0), nil
	}
	b := make([]byte, min(r.from, int64(maxLine)))
	if _, err := l.file.ReadAt(b, r.from-int64(len(b))); errors.Is(err, io.EOF) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	before, found := bytes.CutSuffix(b, []byte("\n"))
	if !found {
		return false, nil
	}
	_, last, err := parseLine(before[bytes.LastIndexByte(before, '\n')+1:])
	return err == nil && last == r.prev, nil
}
