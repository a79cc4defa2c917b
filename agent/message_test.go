package agent_test

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"innate/agent"
)

// pair is two ends of a unix connection.
func pair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ends := [2]*net.UnixConn{}
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

func TestMessagesAreBounded(t *testing.T) {
	for _, c := range []struct {
		name     string
		send     []byte
		files    int
		messages int
		wrong    string
	}{
		{"two in one piece", []byte("{\"op\":\"status\"}\n{\"op\":\"run\"}\n"), 0, 2, "EOF"},
		{"half a message", []byte("{\"op\":"), 0, 0, "EOF"},
		{"a long one", append(bytes.Repeat([]byte(" "), 2<<20), '\n'), 0, 0, "more than 1048576 bytes"},
		{"no JSON", []byte("GET / HTTP/1.1\r\n"), 0, 0, "reading a message"},
		{"three files", []byte("{}\n"), 3, 1, "EOF"},
		{"four files", []byte("{}\n"), 4, 0, "more than 3 open files"},
		{"many files", []byte("{}\n"), 100, 0, "more than 3 open files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			here, there := pair(t)
			go func() {
				defer there.Close()
				send := c.send
				if c.files > 0 {
					fds := make([]int, c.files)
					for i := range fds {
						fds[i] = 0
					}
					n, _, _ := there.WriteMsgUnix(send, unix.UnixRights(fds...), nil)
					send = send[n:]
				}
				there.Write(send)
			}()
			messages, _, err := agent.Receive(here)
			if messages != c.messages || err == nil || !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("got %d messages and %v, want %d and %q", messages, err, c.messages, c.wrong)
			}
			here.Close()
		})
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte("{\"op\":\"run\",\"app\":\"api\",\"args\":[\"x\"]}\n{\"signal\":15}\n"), 7)
	f.Add([]byte("\n\n{}\n"), 1)
	f.Add([]byte("{\"op\":1}\n"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if len(b) > 4096 {
			return
		}
		here, there := pair(t)
		go func() {
			defer there.Close()
			cut = min(max(cut, 0), len(b))
			there.Write(b[:cut])
			there.Write(b[cut:])
		}()
		messages, files, err := agent.Receive(here)
		if err == nil || files != 0 || messages > bytes.Count(b, []byte("\n")) {
			t.Errorf("%q: %d messages, %d files, %v", b, messages, files, err)
		}
	})
}

func TestTheSocketAnswersWhatItDoesNotUnderstand(t *testing.T) {
	p := newPlane(t)
	p.place(app())
	a := p.start(nil)
	for _, c := range []struct{ send, want string }{
		{`{"op":"dance"}`, `the agent knows no \"dance\"`},
		{`{"op":"run","app":"api","args":["x"]}`, "three open files"},
		{`{"op":"attach","vm":"x"}`, "wants a place"},
		{`{"op":"detach","vm":"x"}`, "is not attached"},
		{`{"op":"end","app":"api","generation":3}`, "no generation 3"},
		{`[]`, "could not read the request"},
	} {
		conn, err := net.Dial("unix", a.socket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(c.send + "\n")); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := got.ReadFrom(conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Fatal(err)
		}
		conn.Close()
		if !strings.Contains(got.String(), c.want) {
			t.Errorf("%s: got %q, want %q in it", c.send, got.String(), c.want)
		}
	}
}

func TestASocketWithoutAnAgentSaysWhatToStart(t *testing.T) {
	_, err := agent.ReadStatus(filepath.Join(folder(t), "agent.sock"))
	if err == nil || !strings.Contains(err.Error(), "innate agent") {
		t.Errorf("got %v", err)
	}
}
