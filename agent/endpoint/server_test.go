package endpoint_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/agent/endpoint"
)

// open serves h behind a door with so many places, as the endpoints do, with
// less time for a header.
func open(t *testing.T, places int, header time.Duration, h http.HandlerFunc) (addr string) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := endpoint.Server(h, nil)
	s.ReadHeaderTimeout = header
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(endpoint.NewDoor(l, places)) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving ended with %v", err)
		}
	})
	return l.Addr().String()
}

const soon = 200 * time.Millisecond

func ok(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }

// dial connects, and sends the beginning of a request.
func dial(t *testing.T, addr, begin string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, begin); err != nil {
		t.Fatal(err)
	}
	return c
}

const whole = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// answered reads one answer.
func answered(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp
}

// cutOff waits until the other side has ended the connection.
func cutOff(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Fatal("the connection is still open after 10 s")
	}
}

func TestWhoSendsSlowlyIsCutOff(t *testing.T) {
	addr := open(t, 8, soon, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
	})
	for name, begin := range map[string]string{
		"nothing at all":          "",
		"half a header":           "GET / HTTP/1.1\r\nHost: x\r\nMetad",
		"a body that is not sent": "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", // net/http would wait for it for ever
		"a chunk that is not":     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cutOff(t, dial(t, addr, begin))
		})
	}
}

func TestAHeaderOfMoreThanSixteenKilobytesIsRefused(t *testing.T) {
	addr := open(t, 8, time.Minute, ok)
	c := dial(t, addr, "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "+strings.Repeat("a", 32<<10)+"\r\n\r\n")
	if resp := answered(t, c); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge || !resp.Close {
		t.Errorf("got %s", resp.Status)
	}
	if resp := answered(t, dial(t, addr, whole)); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
}

func TestWhoWaitsForALongAnswerIsNotCutOff(t *testing.T) {
	answer := make(chan bool)
	addr := open(t, 1, soon, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-answer:
			io.WriteString(w, "late")
		case <-r.Context().Done():
			t.Error("the request was given up")
		}
	})
	c := dial(t, addr, whole)
	time.AfterFunc(2*soon, func() { close(answer) })
	if resp := answered(t, c); resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
}

func TestSilentConnectionsMakeRoomForWhoAsks(t *testing.T) {
	addr := open(t, 8, time.Minute, ok)
	var silent []net.Conn
	for range 4 {
		silent = append(silent, dial(t, addr, ""), dial(t, addr, "GET / HTTP/1.1\r\nHost: x\r\nMetad"))
	}
	for range 3 {
		if resp := answered(t, dial(t, addr, whole)); resp.StatusCode != http.StatusOK {
			t.Errorf("got %s", resp.Status)
		}
	}
	cutOff(t, silent[0]) // the one that has been silent for longest
}

func TestAConnectionInUseMakesRoomAfterItsAnswer(t *testing.T) {
	addr := open(t, 1, time.Minute, ok)
	first := dial(t, addr, whole)
	answered(t, first)
	second := dial(t, addr, whole)
	for range 10_000 { // as busy as can be: it is never silent
		if _, err := io.WriteString(first, whole); err != nil {
			t.Fatalf("cut off without a word: %v", err)
		}
		if answered(t, first).Close {
			break
		}
	}
	if resp := answered(t, second); resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
	cutOff(t, first)
}

// A burst of honest callers is longer than the places are many, and all are answered.
func TestNobodyIsTurnedAwayAtTheDoor(t *testing.T) {
	addr := open(t, 4, time.Minute, ok)
	const callers, requests = 32, 20
	errs := make(chan error, callers)
	for range callers {
		go func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second} // keeps its connection
			defer client.CloseIdleConnections()
			for range requests {
				resp, err := client.Get("http://" + addr + "/")
				if err != nil {
					errs <- err
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					errs <- fmt.Errorf("got %s", resp.Status)
					return
				}
			}
			errs <- nil
		}()
	}
	for range callers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func TestAnAllowanceIsRefilledAndIsNobodyElses(t *testing.T) {
	now := time.Unix(1790000000, 0)
	noisy := endpoint.NewAllowance(func() time.Time { return now })
	quiet := endpoint.NewAllowance(func() time.Time { return now })
	var no *innate.Refusal
	spent := 0
	for ; spent < 1000; spent++ {
		if err := noisy.Spend(endpoint.Signed); err != nil {
			if !errors.As(err, &no) || no.Status != http.StatusTooManyRequests || no.RetryAfter <= 0 {
				t.Fatalf("refused with %v", err)
			}
			break
		}
	}
	if spent != 40 {
		t.Errorf("%d signatures at once, want 40", spent)
	}
	if err := quiet.Spend(endpoint.Signed); err != nil {
		t.Errorf("another caller: %v", err)
	}
	now = now.Add(no.RetryAfter)
	if err := noisy.Spend(endpoint.Signed); err != nil {
		t.Errorf("after Retry-After: %v", err)
	}
	noisy.Owe(endpoint.Decided)
	noisy.Owe(endpoint.Decided)
	now = now.Add(time.Second / 40)
	if noisy.Spend(endpoint.FromMemory) == nil {
		t.Error("what is owed was forgotten")
	}
	now = now.Add(2 * time.Second)
	if err := noisy.Spend(endpoint.FromMemory); err != nil {
		t.Errorf("after what is owed was paid: %v", err)
	}
}
