package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"innate/innatetest"
)

// terminal is a new pseudo-terminal: the person's end, and the program's.
func terminal(t *testing.T) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return person, program
}

// echoes reports whether a terminal shows what is typed.
func echoes(t *testing.T, f *os.File) bool {
	t.Helper()
	now, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return now.Lflag&unix.ECHO != 0
}

func TestAValueThatIsTypedIsNotShown(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.dev("vaults: {kv1: {}}")
	person, program := terminal(t)
	typing := func(text string) *process {
		t.Helper()
		cmd := exec.Command(innatetest.Program(t), "secret", "set", "db-password", "--vault", "kv1")
		cmd.Stdin = program
		p := s.startWith(cmd)
		p.waitFor("Value (not shown): ")
		eventually(t, "the terminal shows nothing", func() bool { return !echoes(t, program) })
		if text == "" {
			p.signal(syscall.SIGINT)
		} else if _, err := person.WriteString(text); err != nil {
			t.Fatal(err)
		}
		p.wait()
		if !echoes(t, program) {
			t.Errorf("the terminal shows nothing for ever, after %q", text)
		}
		return p
	}
	if p := typing("hunter2\n"); p.code() != 0 || strings.Contains(p.all(), "hunter2") {
		t.Errorf("exit code %d:\n%s", p.code(), p.all())
	}
	for _, text := range []string{"\n", "\x04", ""} { // nothing, the end of the file, an interrupt
		if p := typing(text); p.code() == 0 {
			t.Errorf("%q was stored:\n%s", text, p.all())
		}
	}
	if got := s.must("secret", "get", "db-password", "--vault", "kv1"); got != "hunter2\n" {
		t.Errorf("stored %q", got)
	}
	if shown := pending(t, person); strings.Contains(shown, "hunter2") {
		t.Errorf("the terminal has shown %q", shown)
	}
}

// pending is what a terminal shows that nobody has read yet.
func pending(t *testing.T, person *os.File) string {
	t.Helper()
	fd := int(person.Fd()) // once: it makes the file block again
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := unix.Read(fd, b)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return string(b[:max(n, 0)])
}

func TestAWatchGoesOnAcrossARestartAndMissesNothing(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	c := newControl(s)
	s.must("vault", "create", "kv1", "-g", "team")
	set := func(name string) {
		t.Helper()
		if p := s.runWith("hunter2", "secret", "set", name, "--vault", "kv1"); p.code() != 0 {
			t.Fatal(p.all())
		}
	}
	all := s.start("secret", "watch", "--vault", "kv1")
	one := s.start("secret", "watch", "b", "--vault", "kv1", "-o", "json")
	all.waitFor("Watching kv1 from revision")
	one.waitFor("Watching kv1 from revision")
	set("a")
	all.waitFor("set       a ")

	c.signal(syscall.SIGTERM)
	if c.code() != 0 || strings.Contains(c.all(), "cut off") {
		t.Errorf("the server stopped with %d, and perhaps waited for those who watch:\n%s", c.code(), c.all())
	}
	all.waitFor("trying again")
	c.start()
	set("b")
	all.waitFor("set       b ")
	one.waitFor(`"change":"set","name":"b"`)
	s.must("secret", "delete", "b", "--vault", "kv1")
	s.must("secret", "purge", "b", "--vault", "kv1")
	one.waitFor(`"change":"purged","name":"b"`)
	for _, p := range []*process{all, one} {
		if p.signal(syscall.SIGINT); p.code() != 0 {
			t.Errorf("interrupted, it ends with %d:\n%s", p.code(), p.all())
		}
		if strings.Contains(p.all(), "hunter2") {
			t.Errorf("a value was printed:\n%s", p.all())
		}
	}
	if strings.Contains(one.out.String(), `"a"`) {
		t.Errorf("who watches one secret heard of another:\n%s", one.out.String())
	}
	s.refused([]string{"is not known here any more", "without --since"}, "secret", "watch", "--vault", "kv1", "--since", "1000000")
	s.refused([]string{"kv2"}, "secret", "watch", "--vault", "kv2")
}
