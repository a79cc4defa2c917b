// Package block is lines of ours in a file that is somebody else's: pg_hba.conf,
// say. They stand between two marks, and everything outside of those is left as it
// is, byte for byte.
//
// It owns the marks and how a file is replaced. What the lines are is its caller's.
package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A Mark is the first line of a block. What is before its colon tells it from
// others; what is behind is for people, and may change. The last line has "END" in
// the place of "BEGIN", and nothing from the colon on.
type Mark string

func (m Mark) name() string {
	name, _, _ := strings.Cut(string(m), ":")
	return name
}

func (m Mark) end() string { return strings.Replace(m.name(), "BEGIN", "END", 1) }

// Text is a block with these lines.
func (m Mark) Text(lines []string) string {
	var b strings.Builder
	b.WriteString(string(m) + "\n")
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	b.WriteString(m.end() + "\n")
	return b.String()
}

// Cut parts a file at its block: what is before it, the lines in it, and what is
// behind it. found is false when it has none; all of it is before then.
func (m Mark) Cut(content string) (before string, lines []string, after string, found bool, err error) {
	const outside, inside, behind = 0, 1, 2
	where, begin, end := outside, 0, 0
	at := 0
	for line := range strings.Lines(content) {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(bare, m.name()+":") && where != outside:
			return "", nil, "", false, fmt.Errorf("it has the mark %q twice: mend it by hand", m.name())
		case strings.HasPrefix(bare, m.name()+":"):
			where, begin = inside, at
		case where == inside && bare == m.end():
			where, end = behind, at+len(line)
		case where == inside:
			lines = append(lines, bare)
		}
		at += len(line)
	}
	switch where {
	case outside:
		return content, nil, "", false, nil
	case inside:
		return "", nil, "", false, fmt.Errorf("it has the mark %q and no %q: mend it by hand", m.name(), m.end())
	}
	return content[:begin], lines, content[end:], true, nil
}

// Write puts a whole file in the place of one, by rename, and keeps its owner and
// mode. One that is not there is made, mode 0644.
func Write(path, content string) error {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to // the link stays
	}
	mode, uid, gid := fs.FileMode(0o644), -1, -1
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uid, gid = int(st.Uid), int(st.Gid)
		}
	} else if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".innate-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone when all went well
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if uid >= 0 {
		err = errors.Join(err, f.Chown(uid, gid))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
