package rest_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"innate/rest"
)

// serve runs a server behind Listener that answers with what it understood.
func serve(t *testing.T) (addr string, client *tls.Config) {
	t.Helper()
	cert := httptest.NewTLSServer(nil) // only for its certificate
	defer cert.Close()
	config := cert.TLS.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0), // what the server says of bad lines
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s filter=%q body=%q tls=%t", r.Proto, r.URL.Path, r.URL.Query().Get("$filter"), body, r.TLS != nil)
		}),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(rest.Listener(plain, config)) }()
	t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Errorf("shutting down: %v", err)
		}
		if err := <-done; err != http.ErrServerClosed {
			t.Errorf("Serve ended with %v", err)
		}
	})
	client = cert.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	client.ServerName = "example.com"
	return plain.Addr().String(), client
}

// dial connects with the given ALPN protocols; none is a client that knows no ALPN.
func dial(t *testing.T, addr string, config *tls.Config, alpn ...string) *tls.Conn {
	t.Helper()
	config = config.Clone()
	config.NextProtos = alpn
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestRawSpacesInARequestLineReachTheHandler(t *testing.T) {
	addr, config := serve(t)
	for _, alpn := range [][]string{nil, {"http/1.1"}} {
		conn := dial(t, addr, config, alpn...)
		in := bufio.NewReader(conn)
		for i, c := range []struct{ request, want string }{
			{
				"GET /x?api-version=2022-04-01&$filter=principalId eq 'g' HTTP/1.1\r\nHost: h\r\n\r\n",
				`HTTP/1.1 /x filter="principalId eq 'g'" body="" tls=true`,
			},
			{
				"POST /y?$filter=a eq 'b' HTTP/1.1\r\nHost: h\r\nContent-Length: 26\r\n\r\nGET /a b HTTP/1.1\r\n\r\nGET ",
				`HTTP/1.1 /y filter="a eq 'b'" body="GET /a b HTTP/1.1\r\n\r\nGET " tls=true`,
			},
			{
				"GET /z?$filter=c eq 'd' HTTP/1.1\r\nHost: h\r\n\r\n",
				`HTTP/1.1 /z filter="c eq 'd'" body="" tls=true`,
			},
		} {
			c.request = strings.Replace(c.request, "Content-Length: 26", fmt.Sprintf("Content-Length: %d", len("GET /a b HTTP/1.1\r\n\r\nGET ")), 1)
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("ALPN %v, request %d: %v", alpn, i, err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != c.want {
				t.Errorf("ALPN %v, request %d: got %s (%v), want %s", alpn, i, got, err, c.want)
			}
		}
	}
}

func TestHTTP2StaysOn(t *testing.T) {
	addr, config := serve(t)
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + addr + "/x?$filter=principalId eq 'g'")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	if want := `HTTP/2.0 /x filter="principalId eq 'g'" body="" tls=true`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestPlainHTTPOnTheTLSPortIsToldSo(t *testing.T) {
	addr, _ := serve(t)
	resp, err := http.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("got %s, want 400", resp.Status)
	}
}

func TestClosingEndsHandshakesUnderWay(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := rest.Listener(plain, &tls.Config{})
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	conn, err := net.Dial("tcp", plain.Addr().String()) // and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l.Close()
	if err := <-done; err == nil {
		t.Error("Accept returned a connection after Close")
	}
	if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("the silent connection was not closed: %v", err)
	}
}

func TestOnlyAPlainHeadIsRepaired(t *testing.T) {
	const spaced = "GET /x?a b HTTP/1.1\r\nHost: h\r\n\r\n"
	const mended = "GET /x?a%20b HTTP/1.1\r\nHost: h\r\n\r\n"
	for _, c := range []struct{ name, in, want string }{
		{"two in one write", spaced + spaced, mended + mended},
		{"HTTP/1.0", "GET /a b HTTP/1.0\r\n\r\n", "GET /a%20b HTTP/1.0\r\n\r\n"},
		{"after a body", "PUT /a HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\na b" + spaced, "PUT /a HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\na b" + mended},
		{"half a head", "GET /a b HTTP/1.1\r\nHost: h\r\n", "GET /a b HTTP/1.1\r\nHost: h\r\n"},
		// From here on nothing is touched: two readers could disagree on where a request ends.
		{"chunked", "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + spaced, ""},
		{"two lengths", "POST /a b HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + spaced, ""},
		{"a length and chunks", "POST /a b HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n" + spaced, ""},
		{"signed length", "POST /a b HTTP/1.1\r\nContent-Length: +1\r\n\r\n" + spaced, ""},
		{"list of lengths", "POST /a b HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n" + spaced, ""},
		{"huge length", "POST /a b HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n" + spaced, ""},
		{"folded header", "POST /a b HTTP/1.1\r\nX: y\r\n Content-Length: 1\r\n\r\n" + spaced, ""},
		{"space before the colon", "POST /a b HTTP/1.1\r\nContent-Length : 1\r\n\r\n" + spaced, ""},
		{"bare newlines", "GET /a b HTTP/1.1\nHost: h\n\n" + spaced, ""},
		{"bare newline in a header", "GET /a b HTTP/1.1\r\nX: y\nContent-Length: 4\r\n\r\n" + spaced, ""},
		{"carriage return in a header", "GET /a b HTTP/1.1\r\nX: y\rz: 4\r\n\r\n" + spaced, ""},
		{"NUL", "GET /a b HTTP/1.1\r\nX: \x00\r\n\r\n" + spaced, ""},
		{"upgrade", "GET /a b HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" + spaced, ""},
		{"tab in the target", "GET /a\tb c HTTP/1.1\r\n\r\n" + spaced, ""},
		{"no leading slash", "GET a b HTTP/1.1\r\n\r\n" + spaced, ""},
		{"two spaces after the method", "GET  /a HTTP/1.1\r\n\r\n" + spaced, ""},
		{"another version", "GET /a b HTTP/2.0\r\n\r\n" + spaced, ""},
		{"no version", "GET /a b\r\n\r\n" + spaced, ""},
		{"empty line first", "\r\n\r\n" + spaced, ""},
		{"a head without an end", "GET /a b HTTP/1.1\r\nX: " + strings.Repeat("y", 200<<10) + "\r\n\r\n" + spaced, ""},
	} {
		want := c.want
		if want == "" {
			want = c.in
		}
		for how, r := range map[string]io.Reader{
			"at once":      strings.NewReader(c.in),
			"byte by byte": iotest.OneByteReader(strings.NewReader(c.in)),
			"with its end": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			got, err := io.ReadAll(rest.Repaired(r))
			if err != nil || string(got) != want {
				t.Errorf("%s, %s: got %.200q (%v), want %.200q", c.name, how, got, err, want)
			}
		}
	}
}

func TestADeadlineInTheMiddleOfALineLosesNothing(t *testing.T) {
	in := rest.Repaired(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("GET /a b HTTP/1.1\r\n\r\n"))))
	if n, err := in.Read(make([]byte, 100)); n != 0 || err != iotest.ErrTimeout {
		t.Fatalf("got %d bytes and %v, want the timeout", n, err)
	}
	got, err := io.ReadAll(in)
	if want := "GET /a%20b HTTP/1.1\r\n\r\n"; err != nil || string(got) != want {
		t.Errorf("after the timeout: got %q (%v), want %q", got, err, want)
	}
}

// The repair may only ever turn a space into %20, must not depend on how the
// bytes arrive, and leaves alone every stream that net/http understands.
func FuzzRepair(f *testing.F) {
	f.Add([]byte("GET /a?b c HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nG /a GET /b c HTTP/1.0\r\n\r\n"))
	f.Add([]byte("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\nGET /b c HTTP/1.1\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\nContent-Length: 3\r\n\r\nabcGET /x y HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := io.ReadAll(rest.Repaired(bytes.NewReader(in)))
		if err != nil {
			t.Fatal(err)
		}
		slow, err := io.ReadAll(rest.Repaired(iotest.OneByteReader(bytes.NewReader(in))))
		if err != nil || !bytes.Equal(slow, out) {
			t.Fatalf("byte by byte: %q (%v), at once: %q", slow, err, out)
		}
		if !onlySpacesEncoded(in, out) {
			t.Fatalf("%q became %q", in, out)
		}
		if understood(in) && !bytes.Equal(in, out) {
			t.Fatalf("net/http understands %q, which became %q", in, out)
		}
	})
}

func onlySpacesEncoded(in, out []byte) bool {
	for len(in) > 0 {
		switch {
		case len(out) > 0 && in[0] == out[0]:
			out = out[1:]
		case in[0] == ' ' && bytes.HasPrefix(out, []byte("%20")):
			out = out[3:]
		default:
			return false
		}
		in = in[1:]
	}
	return len(out) == 0
}

// understood reports whether net/http reads in as requests to its end.
func understood(in []byte) bool {
	r := bufio.NewReader(bytes.NewReader(in))
	for {
		if _, err := r.Peek(1); err == io.EOF {
			return true
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			return false
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return false
		}
	}
}
