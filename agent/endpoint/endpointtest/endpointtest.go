// Package endpointtest plays conversations with a local endpoint from text
// files that people can read. It owns their format:
//
//	# Why this request is made, and who makes it.
//	GET /msi/token?api-version=2019-08-01&resource=https://vault.azure.net
//	X-Identity-Header: {secret}
//	=> 200 resource "https://vault.azure.net"
//	has "token_type":"Bearer"
//	lacks refresh_in
//	header Cache-Control: no-store
//
// Conversations are separated by empty lines. The request is sent as it stands,
// on a connection of its own; {names} are replaced, and Host is added where it
// is missing. After the status come members of the JSON answer and their values.
//
// Each answer must also keep what every answer of an endpoint promises: JSON (or
// plain text where the file says so), a length, no caching, and after a refusal
// the end of the connection.
package endpointtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Play plays each conversation of file with the endpoint at addr as a subtest.
// words replace their names in braces; "host" is what Host is where a request
// does not say.
func Play(t *testing.T, file, addr string, words map[string]string) {
	t.Helper()
	Player{Dial: func() (net.Conn, error) { return net.Dial("tcp", addr) }, Words: words}.Play(t, file)
}

// A Player plays where a word or the connection is more than a string.
type Player struct {
	Dial  func() (net.Conn, error)
	Words map[string]string        // as Play's
	Fresh map[string]func() string // words that are another one in each conversation; may be nil
}

// Play plays each conversation of file as a subtest.
func (p Player) Play(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, word := range p.Words {
		text = strings.ReplaceAll(text, "{"+name+"}", word)
	}
	for c := range strings.SplitSeq(text, "\n\n") {
		for name, word := range p.Fresh {
			if strings.Contains(c, "{"+name+"}") {
				c = strings.ReplaceAll(c, "{"+name+"}", word())
			}
		}
		if c = strings.TrimSpace(c); c != "" {
			p.play(t, c)
		}
	}
}

// play plays one conversation.
func (p Player) play(t *testing.T, conversation string) {
	t.Helper()
	var why, request, promises []string
	for line := range strings.Lines(conversation) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
			why = append(why, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, "=>") || promises != nil:
			promises = append(promises, line)
		default:
			request = append(request, line)
		}
	}
	if len(request) == 0 && len(promises) == 0 {
		return // a comment on what follows
	}
	t.Run(strings.Join(why, " "), func(t *testing.T) {
		if len(request) == 0 || len(promises) == 0 {
			t.Fatalf("not a conversation:\n%s", conversation)
		}
		a := p.ask(t, request)
		for _, promise := range promises {
			if broken := a.keeps(promise); broken != "" {
				t.Errorf("%s\n%s: %s\ngot %d %s", strings.Join(request, "\n"), promise, broken, a.status, a.body)
			}
		}
	})
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (p Player) ask(t *testing.T, request []string) answer {
	t.Helper()
	c, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	lines := []string{request[0] + " HTTP/1.1"}
	if !strings.Contains(strings.ToLower("\n"+strings.Join(request, "\n")), "\nhost:") {
		lines = append(lines, "Host: "+p.Words["host"])
	}
	lines = append(lines, request[1:]...)
	if _, err := io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request[0], " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(request, "\n"), err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, string(body)}
	if broken := a.always(resp.Close, resp.ContentLength); broken != "" && method != http.MethodHead {
		t.Errorf("%s\n%s\ngot %d %v\n%s", strings.Join(request, "\n"), broken, a.status, a.header, a.body)
	}
	return a
}

// always says what is broken of what every answer promises.
func (a answer) always(closed bool, length int64) string {
	media := a.header.Get("Content-Type")
	switch {
	case !strings.HasPrefix(media, "application/json") && (a.status != 200 || !strings.HasPrefix(media, "text/plain")):
		return "not JSON, but " + media
	case strings.HasPrefix(media, "application/json") && !json.Valid([]byte(a.body)):
		return "says that it is JSON, and is not"
	case length != int64(len(a.body)):
		return fmt.Sprintf("Content-Length is %d, the body has %d", length, len(a.body))
	case a.header.Get("Cache-Control") != "no-store":
		return "may be cached"
	case a.status != 200 && !closed:
		return "a refusal that leaves the connection open"
	}
	return ""
}

// keeps says how the answer breaks a promise, or nothing.
func (a answer) keeps(promise string) string {
	kind, rest, _ := strings.Cut(promise, " ")
	switch kind {
	case "=>":
		return a.statusIs(rest)
	case "has":
		if !strings.Contains(a.body, rest) {
			return "it has not"
		}
	case "lacks":
		if strings.Contains(a.body, rest) {
			return "it has"
		}
	case "is":
		if a.body != rest {
			return "it is not"
		}
	case "header":
		name, value, _ := strings.Cut(rest, ": ")
		if got := a.header.Get(name); got != value {
			return fmt.Sprintf("it is %q", got)
		}
	default:
		return "not a promise this package knows"
	}
	return ""
}

// statusIs checks `400 error "invalid_request"`: a status and members of the answer.
func (a answer) statusIs(promise string) string {
	status, rest, _ := strings.Cut(promise, " ")
	if want, err := strconv.Atoi(status); err != nil || a.status != want {
		return "another status"
	}
	var members map[string]any
	if rest != "" {
		if err := json.Unmarshal([]byte(a.body), &members); err != nil {
			return err.Error()
		}
	}
	for rest != "" {
		name, value, ok := strings.Cut(rest, " ")
		quoted, err := strconv.QuotedPrefix(value)
		if !ok || err != nil {
			return "not a promise: want name \"value\""
		}
		want, err := strconv.Unquote(quoted)
		if err != nil {
			return err.Error()
		}
		if got := members[name]; got != want {
			return fmt.Sprintf("%s is %v", name, got)
		}
		rest = strings.TrimSpace(value[len(quoted):])
	}
	return ""
}
