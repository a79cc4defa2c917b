package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// mostValue is more than a vault takes, so that its own refusal is what people read.
const mostValue = 64 << 10

// value reads a secret: from a file byte for byte, from a terminal one line that
// is not shown, else from standard input with one final newline cut off.
func (s *session) value(ctx context.Context, file string) (string, error) {
	text, err := s.valueFrom(ctx, file)
	if err != nil {
		return "", fmt.Errorf("reading the value: %w", err)
	}
	if !utf8.ValidString(text) {
		return "", errors.New("the value is not text (UTF-8), and nothing else can be kept as it is: encode it, with 'base64 -w0' for instance")
	}
	return text, nil
}

func (s *session) valueFrom(ctx context.Context, file string) (string, error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		return readUpTo(f, mostValue)
	}
	if f, ok := s.in.(*os.File); ok {
		if was, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			return s.typed(ctx, f, was)
		}
	}
	text, err := readUpTo(s.in, mostValue)
	if err == nil && text == "" {
		err = errors.New("standard input is empty, as after a command that failed; to store an empty value say --file /dev/null")
	}
	return withoutNewline(text), err
}

func readUpTo(r io.Reader, most int64) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, most))
	return string(b), err
}

// withoutNewline cuts one final newline off.
func withoutNewline(text string) string {
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
}

// typed reads a line from a terminal that shows nothing of it, and is as it was
// afterwards, an interrupt included.
func (s *session) typed(ctx context.Context, terminal *os.File, was *unix.Termios) (string, error) {
	fmt.Fprint(s.diagnostics, "Value (not shown): ")
	defer fmt.Fprintln(s.diagnostics)
	silent := *was
	silent.Lflag &^= unix.ECHO
	if err := unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETSF, &silent); err != nil {
		return "", err
	}
	defer unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, was) //nolint:errcheck // there is no other way to restore it

	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() { // ends with the program, if nothing is typed
		b := make([]byte, mostValue)
		n, err := terminal.Read(b) // a terminal gives a line at a time
		read <- line{string(b[:n]), err}
	}()
	select {
	case l := <-read:
		if errors.Is(l.err, io.EOF) || l.err == nil && withoutNewline(l.text) == "" {
			return "", errors.New("nothing was typed")
		}
		return withoutNewline(l.text), l.err
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing is stored")
	}
}

// writeOwn writes a file that only its owner can read, in one step.
func writeOwn(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".innate-*") // is 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing is there once it is renamed
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
