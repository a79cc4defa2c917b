package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate/feed/client"
)

// A wire is a transport to a server in the same bubble of time. serve writes the
// body of the n-th answer.
type wire struct {
	serve func(ctx context.Context, w io.Writer, n int)
	kind  string // Content-Type; empty means a feed's

	mu    sync.Mutex
	asked []string // from where to go on, one a connection
}

func (l *wire) connections() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.asked = append(l.asked, r.URL.Query().Get("from"))
	n := len(l.asked)
	l.mu.Unlock()
	out, in := io.Pipe()
	context.AfterFunc(r.Context(), func() { in.CloseWithError(context.Cause(r.Context())) })
	go func() {
		l.serve(r.Context(), in, n)
		in.Close()
	}()
	kind := l.kind
	if kind == "" {
		kind = client.ContentType
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{"Content-Type": {kind}}, Body: out}, nil
}

// follow runs a client until the test ends.
func follow(t *testing.T, l *wire, apply func(client.Event)) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{
		URL: "https://hosts.example.org/v1/feed", HTTP: &http.Client{Transport: l}, Apply: apply,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return c
}

func until(ctx context.Context) { <-ctx.Done() }

// pause reports whether the connection is still there after d.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func TestAClientGoesOnFromTheLastWholeTransactionItHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applied []string
		l := &wire{serve: func(ctx context.Context, w io.Writer, n int) {
			switch n {
			case 1: // cut off in the middle of the snapshot
				io.WriteString(w, `{"revision":0,"reset":true}
{"revision":0,"key":"a","value":1}
`)
			case 2: // cut off in the middle of a transaction, and of a line
				io.WriteString(w, `{"revision":0,"reset":true}
{"revision":0,"key":"a","value":1}
{"revision":7,"synced":true}
{"revision":9,"key":"b","value":2}
{"revision":9,"key":"c","value":3}
{"revision":1`)
			default:
				io.WriteString(w, `{"revision":9,"key":"c","value":3}
{"revision":10,"key":"d"}
`)
				until(ctx)
			}
		}}
		follow(t, l, func(ev client.Event) {
			applied = append(applied, fmt.Sprintf("%s=%s reset=%v synced=%v", ev.Key, ev.Value, ev.Reset, ev.Synced))
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if diff := cmp.Diff([]string{"", "", "9"}, l.connections()); diff != "" {
			t.Errorf("asked to go on from (-want +got):\n%s", diff)
		}
		want := []string{
			"= reset=true synced=false", "a=1 reset=false synced=false",
			"= reset=true synced=false", "a=1 reset=false synced=false", "= reset=false synced=true",
			"b=2 reset=false synced=false", "c=3 reset=false synced=false",
			"c=3 reset=false synced=false", "d= reset=false synced=false",
		}
		if diff := cmp.Diff(want, applied); diff != "" {
			t.Errorf("applied (-want +got):\n%s", diff)
		}
	})
}

func TestCatchingUpWaitsForAllThatWasTrueBefore(t *testing.T) {
	const begin = `{"revision":7,"synced":true}` + "\n"
	for name, c := range map[string]struct {
		late, news string        // what the first connection is told after a second, and the second one at once
		takes      time.Duration // to return
		fails      string
	}{
		"nothing is new":               {"", `{"revision":9,"synced":true}`, 0, ""},
		"a row is new":                 {`{"revision":8,"key":"a","value":1}`, `{"revision":8,"key":"a","value":1}` + "\n" + `{"revision":9,"synced":true}`, time.Second, ""},
		"a transaction of two rows is": {`{"revision":7,"key":"a"}` + "\n" + `{"revision":8,"key":"b"}`, `{"revision":7,"key":"a"}` + "\n" + `{"revision":8,"key":"b"}` + "\n" + `{"revision":8,"synced":true}`, time.Second, ""},
		"half of it came":              {`{"revision":7,"key":"a"}`, `{"revision":7,"key":"a"}` + "\n" + `{"revision":8,"key":"b"}` + "\n" + `{"revision":8,"synced":true}`, 3 * time.Second, "deadline"},
		"a beat is no news":            {`{"revision":7,"beat":true}`, `{"revision":8,"key":"a"}` + "\n" + `{"revision":8,"synced":true}`, 3 * time.Second, "deadline"},
		"the history is gone":          {"", `{"revision":0,"reset":true}`, 0, "no history"},
		"the second reader is cut off": {"", `{"revision":8,"key":"a"}`, 0, "EOF"},
		"it is told nonsense":          {"", `nonsense`, 0, "reading an event"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := follow(t, &wire{serve: func(ctx context.Context, w io.Writer, n int) {
					if n == 2 {
						io.WriteString(w, c.news+"\n")
						return
					}
					io.WriteString(w, begin)
					if c.late != "" && pause(ctx, time.Second) {
						io.WriteString(w, c.late+"\n")
					}
					until(ctx)
				}}, func(client.Event) {})
				synctest.Wait()
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				err := f.CatchUp(ctx)
				if took := time.Since(began); took != c.takes || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
					t.Errorf("it returned %v after %v, want %q after %v", err, took, c.fails, c.takes)
				}
			})
		})
	}
}

func TestNobodyCatchesUpWithAFeedThatIsNotFollowed(t *testing.T) {
	l := &wire{serve: func(context.Context, io.Writer, int) {}}
	c, err := client.New(client.Config{URL: "https://hosts.example.org/v1/feed", HTTP: &http.Client{Transport: l}, Apply: func(client.Event) {}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.CatchUp(t.Context()); err == nil || len(l.connections()) > 0 {
		t.Errorf("it returned %v after %d connections, want an error and none", err, len(l.connections()))
	}
}

// Nobody waits for a connection that has ended.
func TestCatchingUpEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, &wire{serve: func(ctx context.Context, w io.Writer, n int) {
			switch n {
			case 1:
				io.WriteString(w, `{"revision":7,"synced":true}`+"\n")
				pause(ctx, time.Second)
			case 2:
				io.WriteString(w, `{"revision":8,"key":"a"}`+"\n"+`{"revision":8,"synced":true}`+"\n")
			default:
				until(ctx)
			}
		}}, func(client.Event) {})
		synctest.Wait()
		began := time.Now()
		if err := f.CatchUp(t.Context()); err == nil || time.Since(began) != time.Second {
			t.Errorf("it returned %v after %v, want an error when the connection ended", err, time.Since(began))
		}
	})
}

func TestASilentConnectionIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &wire{serve: func(ctx context.Context, w io.Writer, n int) {
			io.WriteString(w, `{"revision":3,"synced":true}`+"\n")
			for n > 1 && pause(ctx, 5*time.Second) { // the first goes silent, the second beats
				io.WriteString(w, `{"revision":3,"beat":true}`+"\n")
			}
			until(ctx)
		}}
		follow(t, l, func(client.Event) {})
		time.Sleep(14 * time.Second)
		if n := len(l.connections()); n != 1 {
			t.Errorf("after 14 s of silence: %d connections, want 1", n)
		}
		time.Sleep(5 * time.Minute)
		if n := len(l.connections()); n != 2 {
			t.Errorf("after minutes of beats: %d connections, want 2", n)
		}
	})
}

func TestAViewIsAsOldAsTheLastTimeItWasWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := follow(t, &wire{serve: func(ctx context.Context, w io.Writer, n int) {
			if n > 1 { // the second connection says nothing
				until(ctx)
				return
			}
			io.WriteString(w, `{"revision":0,"reset":true}`+"\n")
			pause(ctx, 10*time.Second)
			io.WriteString(w, `{"revision":0,"key":"a","value":1}`+"\n")
			io.WriteString(w, `{"revision":4,"synced":true}`+"\n")
			pause(ctx, 5*time.Second)
			io.WriteString(w, `{"revision":4,"beat":true}`+"\n")
			pause(ctx, 5*time.Second)
			io.WriteString(w, `{"revision":5,"key":"a","value":2}`+"\n")
			until(ctx)
		}}, func(client.Event) {})
		if age := c.Age(); age < 1000*time.Hour {
			t.Errorf("before anything was heard: age %v, want very large", age)
		}
		<-c.Synced()
		if age := c.Age(); age != 0 {
			t.Errorf("when the snapshot is complete: age %v, want 0", age)
		}
		time.Sleep(9 * time.Second)
		if age := c.Age(); age != 4*time.Second {
			t.Errorf("4 s after a beat: age %v", age)
		}
		time.Sleep(time.Hour)
		if age := c.Age(); age < 59*time.Minute {
			t.Errorf("an hour later: age %v", age)
		}
	})
}

func TestWhatIsNoFeedIsNotApplied(t *testing.T) {
	for _, c := range []struct{ name, body, kind string }{
		{"a page that asks to sign in", "<html>please sign in</html>\n", "text/html"},
		{"a line that is not JSON", "{\"revision\":1,\"key\":\n", ""},
		{"a line without an end", `{"revision":1,"key":"` + strings.Repeat("x", 2<<20), ""},
		{"a negative revision", `{"revision":-1,"synced":true}` + "\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &wire{kind: c.kind, serve: func(_ context.Context, w io.Writer, _ int) { io.WriteString(w, c.body) }}
				f := follow(t, l, func(ev client.Event) { t.Errorf("applied %+v", ev) })
				time.Sleep(time.Minute)
				asked := l.connections()
				if len(asked) < 10 || len(asked) > 40 {
					t.Errorf("asked %d times in a minute, want a pause of up to 5 s between", len(asked))
				}
				if from := strings.Join(asked, ""); from != "" {
					t.Errorf("went on from %q", from)
				}
				select {
				case <-f.Synced():
					t.Error("says that it is synced")
				default:
				}
			})
		})
	}
}

func TestAConfigWithoutWhatItNeedsIsRefusedByName(t *testing.T) {
	good := client.Config{URL: "https://h/feed", HTTP: &http.Client{}, Apply: func(client.Event) {}}
	for want, spoil := range map[string]func(*client.Config){
		"URL":     func(c *client.Config) { c.URL = "" },
		"HTTP":    func(c *client.Config) { c.HTTP = nil },
		"Apply":   func(c *client.Config) { c.Apply = nil },
		"Timeout": func(c *client.Config) { c.HTTP = &http.Client{Timeout: time.Second} },
	} {
		c := good
		spoil(&c)
		if _, err := client.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that names %s", err, want)
		}
	}
}

func FuzzClient(f *testing.F) {
	f.Add([]byte(`{"revision":0,"reset":true}` + "\n" + `{"revision":3,"key":"identity/x","value":{"kind":"identity","before":"2026-01-02T03:04:05Z"}}` + "\n" + `{"revision":3,"synced":true}` + "\n"))
	f.Add([]byte(`{"revision":18446744073709551615,"beat":true}` + "\n\n\n{}"))
	f.Add([]byte("[]\nnull\n\"x\"\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, func(t *testing.T) {
			set := client.NewRevocations(nil)
			ctx, cancel := context.WithCancel(t.Context())
			asked := 0
			c, err := client.New(client.Config{
				URL: "https://h/feed", Apply: set.Apply, Log: slog.New(slog.DiscardHandler),
				HTTP: &http.Client{Transport: transport(func(*http.Request) (*http.Response, error) {
					if asked++; asked == 2 {
						cancel()
						return nil, errors.New("enough")
					}
					return &http.Response{
						StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {client.ContentType}},
						Body: io.NopCloser(bytes.NewReader(body)),
					}, nil
				})},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
			set.Revoked(client.Claim{Object: "x", Hosting: "/subscriptions/y", Token: "z", IssuedAt: time.Now()})
		})
	})
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
