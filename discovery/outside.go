package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

const (
	dialTimeout    = 3 * time.Second
	tlsTimeout     = 3 * time.Second
	headerTimeout  = 5 * time.Second  // from the request to the end of the answer's header
	requestTimeout = 10 * time.Second // of all of it, the body too
	idleTimeout    = 10 * time.Second
	maxHeader      = 64 << 10 // bytes
)

// Outside says how far fetches may go that someone else's input causes. Its
// zero value is the internet and nothing inside.
type Outside struct {
	// Allow are hosts that may be inside: a name as URLs have it, or name:port for
	// one port alone. They are compared whole, without regard to case; no patterns.
	Allow    []string
	Roots    *x509.CertPool // nil means the system's
	Resolver *net.Resolver  // nil means the system's
}

// Client returns a client that speaks https alone, asks no proxy, follows no
// redirect, keeps no cookie and unpacks nothing. It connects to no address of
// the inside (Refused) unless the URL's host is one of Allow. Bodies of more
// than 1 MiB end in an error.
func (o Outside) Client() *http.Client {
	allowed := map[string]bool{}
	for _, host := range o.Allow {
		allowed[strings.ToLower(host)] = true
	}
	return &http.Client{
		Timeout:       requestTimeout,
		CheckRedirect: neverRedirect,
		Transport: bounded{&http.Transport{
			Proxy:                  nil, // the environment's would dial for us, unchecked
			DialContext:            o.dialer(allowed),
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
			TLSHandshakeTimeout:    tlsTimeout,
			ResponseHeaderTimeout:  headerTimeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns:           10,
			IdleConnTimeout:        idleTimeout,
			DisableCompression:     true, // a small answer cannot become a large one
		}},
	}
}

// neverRedirect makes a redirect the answer, instead of where it leads.
func neverRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// dialer checks addresses after the name was resolved and before the connection
// is made: what a name meant a moment before says nothing (DNS rebinding).
func (o Outside) dialer(allowed map[string]bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, name string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout, Resolver: o.Resolver}
		lower := strings.ToLower(name)
		if host, _, err := net.SplitHostPort(lower); err != nil || !allowed[host] && !allowed[lower] {
			d.ControlContext = func(_ context.Context, _, addr string, _ syscall.RawConn) error {
				return checkOutside(name, addr)
			}
		}
		return d.DialContext(ctx, network, name)
	}
}

// checkOutside checks the address that name (host:port) has led to.
func checkOutside(name, addr string) error {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	if what := Refused(at.Addr()); what != "" {
		return &insideError{name: name, addr: at.Addr(), what: what}
	}
	return nil
}

// An insideError refuses to connect to an address of the inside.
type insideError struct {
	name string // host:port of the URL
	addr netip.Addr
	what string // see Refused
}

func (e *insideError) Error() string {
	return fmt.Sprintf("%s resolves to %s, %s: allow the host by name if that is meant", e.name, e.addr, e.what)
}

// bounded passes on https alone, and ends bodies that are too large.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, fmt.Errorf("%s: want https", r.URL.Redacted())
	}
	resp, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxDocument)
	return resp, nil
}
