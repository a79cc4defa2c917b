package discovery_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate/discovery"
	"innate/jwt"
)

// A site is an issuer on loopback that the names of zone lead to.
type site struct {
	*issuer
	srv       *httptest.Server
	port      string
	connected atomic.Int64 // connections that were made to it
}

// zone is what the resolver knows.
var zone = map[string]string{
	"issuer.example.com.": "127.0.0.1", // an outside name whose owner points it inside
	"other.example.com.":  "127.0.0.1",
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{issuer: newIssuer(ec("k"))}
	s.srv = httptest.NewUnstartedServer(s)
	s.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connected.Add(1)
		}
	}
	s.srv.StartTLS() // its certificate is for *.example.com and 127.0.0.1
	t.Cleanup(s.srv.Close)
	_, s.port, _ = net.SplitHostPort(s.srv.Listener.Addr().String())
	s.name = s.origin("issuer.example.com")
	return s
}

func (s *site) origin(host string) string { return "https://" + net.JoinHostPort(host, s.port) }

// client is one that trusts the site's certificate and knows its names.
func (s *site) client(allow ...string) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.srv.Certificate())
	return discovery.Outside{Allow: allow, Roots: roots, Resolver: resolver(zone)}.Client()
}

// get asks for the site's key with that client.
func (s *site) get(t testing.TB, client *http.Client) (how, why string) {
	t.Helper()
	return get(t, t.Context(), s.believe(t, func(c *discovery.Config) { c.HTTP = client }), "k", jwt.ES256)
}

func TestAnInsideHostIsAskedOnlyIfItsNameIsAllowed(t *testing.T) {
	for _, c := range []struct {
		name, host string
		allow      []string // PORT stands for the site's
		reached    bool
	}{
		{"a name that leads inside", "issuer.example.com", nil, false},
		{"allowed by name", "issuer.example.com", []string{"issuer.example.com"}, true},
		{"allowed in capital letters", "issuer.example.com", []string{"Issuer.EXAMPLE.com"}, true},
		{"asked for in capital letters", "ISSUER.example.com", []string{"issuer.example.com"}, true},
		{"allowed on its port", "issuer.example.com", []string{"issuer.example.com:PORT"}, true},
		{"allowed on another port", "issuer.example.com", []string{"issuer.example.com:443"}, false},
		{"another name is allowed", "issuer.example.com", []string{"other.example.com"}, false},
		{"the domain is allowed", "issuer.example.com", []string{"example.com", ".example.com", "*.example.com"}, false},
		{"its address is allowed, not its name", "issuer.example.com", []string{"127.0.0.1"}, false},
		{"an address", "127.0.0.1", nil, false},
		{"an address that is allowed", "127.0.0.1", []string{"127.0.0.1"}, true},
		{"an address in other words", "::ffff:127.0.0.1", nil, false},
		{"and the first is allowed", "::ffff:127.0.0.1", []string{"127.0.0.1"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.name = s.origin(c.host)
			for n := range c.allow {
				c.allow[n] = strings.ReplaceAll(c.allow[n], "PORT", s.port)
			}
			how, why := s.get(t, s.client(c.allow...))
			if c.reached {
				if how != "" || s.connected.Load() == 0 {
					t.Errorf("%q: %s", how, why)
				}
				return
			}
			if how != "temporary" || !strings.Contains(why, "a loopback address") || !strings.Contains(why, "allowed by name") {
				t.Errorf("%q: %s", how, why)
			}
			if n := s.connected.Load(); n != 0 {
				t.Errorf("%d connections were made", n)
			}
		})
	}
}

func TestWhoSentTheTokenDoesNotLearnWhereANameLeads(t *testing.T) {
	s := newSite(t)
	_, err := s.believe(t, func(c *discovery.Config) { c.HTTP = s.client() }).Get(t.Context(), "k", jwt.ES256)
	if strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the text has the address: %v", err)
	}
	if cause := err.(*discovery.Error).Cause; !strings.Contains(cause.Error(), "127.0.0.1, a loopback address: allow the host by name") {
		t.Errorf("the cause does not: %v", cause)
	}
}

// What the document says is no more trusted than the name it came from.
func TestKeysAtAnInsideHostAreNotFetchedForAnAllowedOne(t *testing.T) {
	s := newSite(t)
	s.replace["/.well-known/openid-configuration"] = `{"issuer":"` + s.name + `","jwks_uri":"` + s.origin("other.example.com") + `/keys"}`
	how, why := s.get(t, s.client("issuer.example.com"))
	if how != "temporary" || !strings.Contains(why, "other.example.com") || s.documents() != 0 {
		t.Errorf("%q: %s; %d key sets fetched", how, why, s.documents())
	}
}

func TestANameIsCheckedEachTimeItIsResolved(t *testing.T) {
	s := newSite(t)
	client := s.client("other.example.com")
	for range 3 { // a connection to the same address, made for another name, is not taken over
		if resp, err := client.Get(s.origin("other.example.com") + "/keys"); err != nil {
			t.Fatal(err)
		} else {
			resp.Body.Close()
		}
		if resp, err := client.Get(s.origin("issuer.example.com") + "/keys"); err == nil {
			resp.Body.Close()
			t.Error("a name that is not allowed was asked")
		}
	}
}

// A proxy refuses everybody, and counts them. It lives as long as the process:
// the standard library reads the environment once.
var (
	proxied atomic.Int64
	proxy   = sync.OnceValue(func() *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			proxied.Add(1)
			http.Error(w, "no", http.StatusForbidden)
		}))
	})
)

func TestTheEnvironmentsProxyIsNotAsked(t *testing.T) {
	s := newSite(t)
	t.Setenv("HTTPS_PROXY", proxy().URL)
	t.Setenv("NO_PROXY", "")
	naive := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, proxy().Listener.Addr().String())
		},
	}}
	before := proxied.Load()
	if _, err := naive.Get(s.name); err == nil || proxied.Load() != before+1 {
		t.Fatalf("the proxy of this test is none: %v", err)
	}
	if how, why := s.get(t, s.client("issuer.example.com")); how != "" {
		t.Errorf("with a proxy in the environment: %s", why)
	}
	if how, _ := s.get(t, s.client()); how != "temporary" {
		t.Errorf("a host inside, with a proxy in the environment: %q", how)
	}
	if n := proxied.Load() - before; n != 1 {
		t.Errorf("the proxy was asked %d times", n-1)
	}
}

func TestOnlyHTTPSIsSpoken(t *testing.T) {
	s := newSite(t)
	plain := httptest.NewServer(s)
	t.Cleanup(plain.Close)
	client := s.client("127.0.0.1")
	for _, u := range []string{plain.URL + "/keys", "ftp://127.0.0.1/keys", "file:///etc/passwd"} {
		if resp, err := client.Get(u); err == nil || !strings.Contains(err.Error(), "want https") {
			t.Errorf("%s: %v, %v", u, resp, err)
		}
	}
	if s.documents() != 0 {
		t.Error("something was fetched")
	}
}

func TestTheServerMustProveItsName(t *testing.T) {
	s := newSite(t)
	client := discovery.Outside{Allow: []string{"issuer.example.com"}, Resolver: resolver(zone)}.Client()
	if how, why := s.get(t, client); how != "temporary" || !strings.Contains(why, "not trusted") {
		t.Errorf("a certificate of nobody's: %q: %s", how, why)
	}
}

func TestNothingBelowTLS12IsSpoken(t *testing.T) {
	s := newSite(t)
	old := httptest.NewUnstartedServer(s)
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	old.StartTLS()
	t.Cleanup(old.Close)
	lax := old.Client()
	lax.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS10
	if resp, err := lax.Get(old.URL + "/keys"); err != nil {
		t.Fatalf("the old server of this test is none: %v", err)
	} else {
		resp.Body.Close()
	}
	if resp, err := s.client("127.0.0.1").Get(old.URL + "/keys"); err == nil {
		resp.Body.Close()
		t.Error("an old server was spoken to")
	}
}

func TestANameThatDoesNotResolveIsSaidSo(t *testing.T) {
	s := newSite(t)
	s.name = s.origin("nobody.example.com")
	if how, why := s.get(t, s.client()); how != "temporary" || !strings.Contains(why, `"nobody.example.com" does not resolve`) {
		t.Errorf("%q: %s", how, why)
	}
}

func TestNoAnswerIsTooLargeOrTooSlow(t *testing.T) {
	squeezed := new(bytes.Buffer)
	zip := gzip.NewWriter(squeezed)
	io.WriteString(zip, `{"keys":[]}`)
	zip.Close()
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		why     string
	}{
		{"an answer that does not come", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "in time"},
		{"a body that does not end", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // it has not ended: whoever hangs up may still read
		}, "in time"},
		{"a header that does not end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 128<<10))
		}, "that can be read"},
		{"a body that is too large", func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2<<20)) }, "larger than"},
		{"a squeezed body", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept-Encoding") != "" {
				t.Error("squeezed bodies are asked for")
			}
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(squeezed.Bytes())
		}, "not the JSON"},
		{"a redirect inside", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/metadata", http.StatusTemporaryRedirect)
		}, "answered 307"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			s.srv.Config.Handler = c.handler
			client := s.client("issuer.example.com")
			if c.why == "in time" {
				client.Timeout = 50 * time.Millisecond
			}
			if how, why := s.get(t, client); how != "temporary" || !strings.Contains(why, c.why) {
				t.Errorf("%q: %s; want temporary, %q", how, why, c.why)
			}
		})
	}
}

func TestABodyEndsInAnErrorWhoeverReadsIt(t *testing.T) {
	s := newSite(t)
	s.srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 2<<20)) })
	resp, err := s.client("issuer.example.com").Get(s.name)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil || len(b) > 1<<20 {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

func TestARedirectIsTheAnswerAndNotAWay(t *testing.T) {
	s := newSite(t)
	s.srv.Config.Handler = http.RedirectHandler("/keys", http.StatusFound)
	resp, err := s.client("issuer.example.com").Get(s.name)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		t.Errorf("got %s", resp.Status)
	}
}

// resolver answers from zone, by name with a dot at its end, in this process.
func resolver(zone map[string]string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe() // no packet connection, so messages have their length before them (RFC 1035 §4.2.2)
		go func() {
			defer ours.Close()
			for {
				var length [2]byte
				if _, err := io.ReadFull(ours, length[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(ours, query); err != nil {
					return
				}
				answer := resolve(query, zone)
				if _, err := ours.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
		return theirs, nil
	}}
}

// resolve answers a query for one name (RFC 1035 §4.1) with its A record, if
// that was asked for and zone has one.
func resolve(query []byte, zone map[string]string) []byte {
	const header, typeA = 12, 1
	end, name := header, ""
	for query[end] != 0 {
		next := end + 1 + int(query[end])
		name += string(query[end+1:next]) + "."
		end = next
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	question := query[header : end+5]
	flags, answers := []byte{0x81, 0x80}, byte(0)
	addr, known := zone[strings.ToLower(name)]
	var record []byte
	switch {
	case !known:
		flags[1] |= 3 // no such name
	case kind == typeA:
		answers = 1
		record = []byte{0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4} // the name above, IN, for 0 s
		record = append(record, netip.MustParseAddr(addr).AsSlice()...)
	}
	message := append([]byte{query[0], query[1], flags[0], flags[1], 0, 1, 0, answers, 0, 0, 0, 0}, question...)
	return append(message, record...)
}
