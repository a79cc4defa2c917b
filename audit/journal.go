package audit

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// A journal makes lines durable before the log itself is. It is a file beside
// the log whose room is on the disk already: to sync it writes the lines and
// nothing else, where to sync a file that has grown commits the file system's
// own journal too, which takes three times as long on a busy machine.
//
// It holds one round: a line that says where in the log the round begins, and
// then the log's lines from there on. When there is no room left, the log is
// synced and the next round is written over the last one. What an older round
// left after the newest line does not continue the chain.
//
// It is written past the kernel's cache, in whole blocks out of a copy in memory:
// the cache would keep it a second time and look for what of it is new, which is
// half of what a sync costs the processor.
type journal struct {
	file *os.File
	room []byte // what the file holds; page-aligned, as direct writes must be
	end  int    // of what this round wrote; 0 when it is to begin
}

const (
	journalSize  = 256 << 10 // length in bytes of a journal: some 400 events
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
	if j.room, err = unix.Mmap(-1, 0, journalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE); err != nil {
		return err
	}
	there, err := os.ReadFile(j.file.Name())
	if err != nil || len(there) >= journalSize {
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

// write makes lines durable, which begin in the log at from, after a line whose
// link is prev. It reports whether there was room.
func (j *journal) write(lines []byte, from int64, prev Link) (bool, error) {
	if j.end == 0 {
		lines = append(round{from, prev}.encode(), lines...)
	}
	end := j.end + len(lines)
	if end > journalSize {
		return false, nil
	}
	copy(j.room[j.end:], lines)
	begin := j.end &^ (journalBlock - 1)
	blocks := j.room[begin : (end+journalBlock-1)&^(journalBlock-1)]
	if _, err := j.file.WriteAt(blocks, int64(begin)); err != nil {
		j.end = journalSize // what it holds is not known: only the log is believed until the next round
		return false, fmt.Errorf("writing its journal: %w", err)
	}
	j.end = end
	return true, nil
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

// read returns the round and those of its lines that continue the chain; ok is
// false when the journal holds none.
func (j *journal) read() (r round, text []byte, ok bool, err error) {
	if _, err := j.file.ReadAt(j.room, 0); err != nil {
		return r, nil, false, fmt.Errorf("reading its journal: %w", err)
	}
	first, rest, _ := bytes.Cut(j.room, []byte("\n"))
	var l roundLine
	if json.Unmarshal(first, &l) != nil || l.From < 0 || len(l.Chain) != hex.EncodedLen(len(r.prev)) {
		return r, nil, false, nil
	}
	if _, err := hex.Decode(r.prev[:], []byte(l.Chain)); err != nil {
		return r, nil, false, nil
	}
	r.from = l.From
	length, _, err := whole(bytes.NewReader(rest), r.prev)
	return r, rest[:length], err == nil, err
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
	r, text, ok, err := l.journal.read()
	if err != nil {
		return err
	}
	if ok {
		ok, err = l.continues(r)
	}
	if err != nil {
		return err
	}
	if ok {
		err = l.replay(r, text)
	} else { // the journal is new, or that of a file that was moved away
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

// replay writes text, the lines of r, into the log, unless others stand there
// that continue the chain: those were made durable in the log itself.
func (l *Log) replay(r round, text []byte) error {
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	length, last, err := whole(io.NewSectionReader(l.file, r.from, size-r.from), r.prev)
	if err != nil {
		return err
	}
	there := make([]byte, min(length, int64(len(text))))
	if _, err := l.file.ReadAt(there, r.from); err != nil {
		return err
	}
	if bytes.HasPrefix(text, there) {
		if _, err := l.file.WriteAt(text, r.from); err != nil {
			return err
		}
	}
	if missing := len(text) - int(length); missing > 0 && bytes.HasPrefix(text, there) {
		slog.Warn("the end of the audit log was lost and is restored from its journal", "path", l.file.Name(), "bytes", missing)
		if length, last, err = whole(bytes.NewReader(text), r.prev); err != nil {
			return err
		}
	}
	l.end, l.last = r.from+length, last
	if l.end >= size {
		return nil
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
