package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// benchConnections is how many clients ask at once.
const benchConnections = 16

// benchHosts is how many agents ask the token service at once, a twentieth of
// those that one server is for. They wait for the disk together, and a sync costs
// the same however many records it makes durable: the fewer hosts there are, the
// more of it each pays. On two cores issue-es256 was 0.52 of its limit with 16,
// 0.64 with 64, 0.67 with 128 and 0.73 with 256.
const benchHosts = 256

// A load is one request, or several in turns, sent over kept connections of
// HTTP/1.1, or each over one of its own, for as long as it takes, each time when
// the answer to the last has come.
type load struct {
	Method      string            `json:"method"`
	URL         string            `json:"url"`
	Address     string            `json:"address,omitempty"` // of another server than the URL's, to send the same to
	Header      map[string]string `json:"header,omitempty"`
	Body        string            `json:"body,omitempty"`
	Bodies      []string          `json:"bodies,omitempty"` // sent in turns, instead of Body
	Connections int               `json:"connections"`
	Fresh       bool              `json:"fresh,omitempty"` // a connection for each request, which the server ends
	Seconds     float64           `json:"seconds"`
}

// A loadReport says how a load went. It holds one of the answers, so that a bare
// handler can write the same; a token in it stays between the two processes.
type loadReport struct {
	Requests int         `json:"requests"`
	Seconds  float64     `json:"seconds"`
	Header   http.Header `json:"header,omitempty"`
	Body     []byte      `json:"body,omitempty"`
	Error    string      `json:"error,omitempty"`
}

func (r loadReport) rate() float64 { return float64(r.Requests) / r.Seconds }

// A dialFunc connects to where a load goes.
type dialFunc func(context.Context) (net.Conn, error)

// benchLoadCommand is the app of token-cached: the caller that the agent proves.
// It reads loads from standard input, one a line, and answers each with a report.
func (s *session) benchLoadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "load", Hidden: true, Short: "Be the app that 'innate bench' measures with", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			out := json.NewEncoder(s.out)
			context.AfterFunc(cmd.Context(), func() { os.Exit(0) }) // told to end while it waits for an order
			for in := bufio.NewScanner(s.in); in.Scan(); {
				var l load
				if err := json.Unmarshal(in.Bytes(), &l); err != nil {
					return err
				}
				r, err := l.asApp(cmd.Context())
				if err != nil {
					r.Error = err.Error()
				}
				if err := out.Encode(r); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// asApp is run with the URL below the identity endpoint of this process, and
// the header that it wants.
func (l load) asApp(ctx context.Context) (loadReport, error) {
	l.URL = os.Getenv("IDENTITY_ENDPOINT") + l.URL
	l.Header = map[string]string{"X-IDENTITY-HEADER": os.Getenv("IDENTITY_HEADER")}
	req, err := l.request()
	if err != nil {
		return loadReport{}, err
	}
	return l.run(ctx, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", cmp.Or(l.Address, req.URL.Host))
	})
}

func (l load) request() (*http.Request, error) { return l.requestOf(l.Body) }

func (l load) requestOf(body string) (*http.Request, error) {
	req, err := http.NewRequest(l.Method, l.URL, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, value := range l.Header {
		req.Header.Set(name, value)
	}
	req.Close = l.Fresh
	return req, nil
}

// wire is the requests as they are sent.
func (l load) wire() (requests [][]byte, err error) {
	bodies := l.Bodies
	if len(bodies) == 0 {
		bodies = []string{l.Body}
	}
	for _, body := range bodies {
		req, err := l.requestOf(body)
		if err != nil {
			return nil, err
		}
		var b bytes.Buffer
		if err := req.Write(&b); err != nil {
			return nil, err
		}
		requests = append(requests, b.Bytes())
	}
	return requests, nil
}

// single is the request once, on one connection.
func (l load) single() load {
	l.Connections, l.Seconds = 1, 0
	return l
}

// once sends the request once and returns a report with the answer, which was a 200.
func (l load) once(ctx context.Context, dial dialFunc) (loadReport, error) {
	return l.single().run(ctx, dial)
}

// run sends the load. The clock starts when every connection has had an answer.
func (l load) run(ctx context.Context, dial dialFunc) (r loadReport, err error) {
	requests, err := l.wire()
	if err != nil {
		return r, err
	}
	talks := make([]*talk, l.Connections)
	for i := range talks {
		t := &talk{dial: dial, requests: requests, next: i * len(requests) / len(talks)}
		defer t.close()
		if err := t.connect(ctx); err != nil {
			return r, err
		}
		if r.Header, r.Body, err = t.first(); err != nil {
			return r, err
		}
		talks[i] = t
	}

	begin := time.Now()
	end := begin.Add(time.Duration(l.Seconds * float64(time.Second)))
	counts := make([]int, len(talks))
	var all errgroup.Group
	for i, t := range talks {
		all.Go(func() (err error) {
			counts[i], err = t.until(ctx, end, l.Fresh)
			return err
		})
	}
	err = all.Wait()
	r.Seconds = time.Since(begin).Seconds()
	for _, n := range counts {
		r.Requests += n
	}
	return r, err
}

// A talk is the same requests again and again, one after the other.
type talk struct {
	dial     dialFunc
	requests [][]byte
	next     int // of requests

	conn    net.Conn
	answers *bufio.Reader
	hangUp  func() bool // stops what closes conn when the load is told to end
}

// connect makes a connection for what is asked next.
func (t *talk) connect(ctx context.Context) error {
	t.close()
	conn, err := t.dial(ctx)
	if err != nil {
		return err
	}
	t.conn, t.answers = conn, bufio.NewReader(conn)
	t.hangUp = context.AfterFunc(ctx, func() { conn.Close() })
	return nil
}

// close ends the connection; there may be none.
func (t *talk) close() {
	if t.conn != nil {
		t.hangUp()
		t.conn.Close()
	}
}

// loadTimeout is how long an answer may take.
const loadTimeout = 10 * time.Second

func (t *talk) ask() (*http.Response, error) {
	request := t.requests[t.next]
	t.next = (t.next + 1) % len(t.requests)
	if _, err := t.conn.Write(request); err != nil {
		return nil, err
	}
	return http.ReadResponse(t.answers, nil)
}

// first asks once and returns the answer, which must be a 200.
func (t *talk) first() (http.Header, []byte, error) {
	t.conn.SetDeadline(time.Now().Add(loadTimeout))
	resp, err := t.ask()
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostValue))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, refusalText(body))
	}
	return resp.Header, body, err
}

// until asks until end, each time on a fresh connection or always on the same,
// and returns how many answers came.
func (t *talk) until(ctx context.Context, end time.Time, fresh bool) (n int, err error) {
	t.conn.SetDeadline(end.Add(loadTimeout))
	for time.Now().Before(end) {
		if fresh {
			if err := t.connect(ctx); err != nil {
				return n, err
			}
			t.conn.SetDeadline(end.Add(loadTimeout))
		}
		resp, err := t.ask()
		if err != nil {
			return n, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return n, err
		}
		if resp.StatusCode != http.StatusOK {
			return n, errors.New("under load the answer was " + resp.Status)
		}
		n++
	}
	return n, nil
}
