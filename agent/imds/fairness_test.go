package imds_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/agent/endpoint/endpointtest"
	"innate/agent/imds"
)

// serveAsAgent serves s as an agent does.
func serveAsAgent(t testing.TB, s *imds.Server) (addr string) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	server := endpoint.Server(s, nil)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(endpoint.NewDoor(l, endpoint.Connections)) }()
	t.Cleanup(func() {
		server.Close()
		<-ended
	})
	return l.Addr().String()
}

// A VM that asks for all that is dear, on more connections than it may have, is
// told to come again later; a VM beside it does not notice.
func TestANoisyVMDoesNotStarveAnother(t *testing.T) {
	_, key := voucher(t)
	vouched := imds.Config{Now: time.Now, Voucher: func(context.Context) (*tls.Certificate, error) { return key, nil }, Tokens: tokenSource(
		func(which innate.Selector, resource string) (innate.Token, error) {
			token, err := identities(which, resource)
			token.Expires = time.Now().Add(time.Hour)
			return token, err
		})}
	one, _ := newServer(t, vouched)
	two, _ := newServer(t, vouched)
	noisy, quiet := serveAsAgent(t, one), serveAsAgent(t, two)

	ctx, stop := context.WithCancel(t.Context())
	var crowd sync.WaitGroup
	var answered, throttled, unexplained atomic.Int64
	for i := range 2 * endpoint.Connections {
		crowd.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}}
			defer client.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				target := tokenURL + fmt.Sprintf("audience-%d-%d", i, n)
				if n%2 == 1 {
					target = "/metadata/attested/document?api-version=2020-09-01"
				}
				req, err := http.NewRequestWithContext(ctx, "GET", "http://"+noisy+target, nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Host = "169.254.169.254"
				req.Header.Set("Metadata", "true")
				resp, err := client.Do(req)
				if err != nil {
					continue // the end of the test
				}
				resp.Body.Close()
				wait, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
				switch {
				case resp.StatusCode == 200:
					answered.Add(1)
				case resp.StatusCode == 429 && wait >= 1 && wait <= 20 && resp.Close:
					throttled.Add(1)
				default:
					unexplained.Add(1)
				}
			}
		})
	}
	var took []time.Duration
	for range 300 {
		begun := time.Now()
		if code := get(t, quiet, tokenURL+"x"); code != 200 {
			t.Fatalf("the quiet VM got %d", code)
		}
		took = append(took, time.Since(begun))
	}
	stop()
	crowd.Wait()
	slices.Sort(took)
	slow := took[len(took)*99/100] // one in a hundred may be the machine's
	t.Logf("the quiet VM waited %v, and at most %v; the noisy one had %d answers and %d times 429", slow, took[len(took)-1], answered.Load(), throttled.Load())
	if slow > time.Second { // what a probe waits (managed-identity-endpoints §1.4)
		t.Errorf("the quiet VM waited %v", slow)
	}
	if throttled.Load() == 0 || unexplained.Load() != 0 {
		t.Errorf("the noisy VM: %d times 429, %d other answers", throttled.Load(), unexplained.Load())
	}
}

func TestAVMThatAskedForTooMuchHearsWhenToComeAgain(t *testing.T) {
	now := now
	_, key := voucher(t)
	s, _ := newServer(t, imds.Config{Now: func() time.Time { return now }, Voucher: func(context.Context) (*tls.Certificate, error) { return key, nil }})
	addr := serve(t, s)
	for range 40 {
		if code := get(t, addr, "/metadata/attested/document?api-version=2020-09-01"); code != 200 {
			t.Fatalf("got %d", code)
		}
	}
	endpointtest.Play(t, "testdata/throttled.txt", addr, map[string]string{"host": "169.254.169.254"})
	now = now.Add(time.Second)
	if code := get(t, addr, tokenURL+"x"); code != 200 {
		t.Errorf("a second later: %d", code)
	}
}
