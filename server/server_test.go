package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"innate/server"
)

const domain = "id.example.test"

// start runs the control plane of a new platform until the test ends.
func start(t *testing.T) *server.Server {
	t.Helper()
	s, _ := startUntil(t)
	return s
}

// startUntil is the same, until the function that it returns is called.
func startUntil(t *testing.T) (*server.Server, func()) {
	t.Helper()
	s := made(t)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	end := sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with: %v", err)
		}
	})
	t.Cleanup(end)
	return s, end
}

func TestAServerThatIsStoppedAsItStartsEndsWell(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := made(t).Run(ctx); err != nil {
		t.Errorf("the server ended with: %v", err)
	}
}

// made is the control plane of a new platform.
func made(t *testing.T) *server.Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "control")
	if err := server.Create(t.Context(), dir, domain, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(t.Context(), server.Config{
		Dir: dir, Listener: l, Operator: -1, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	return s
}

// trust is a TLS configuration that believes the platform's authority and no other.
func trust(s *server.Server, name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Bundle())
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// ask sends a request on a connection that was made to name, and returns the
// answer's status, headers and body.
func ask(t *testing.T, s *server.Server, name, url string) (*http.Response, string) {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: trust(s, name),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Addr().String())
		},
		DisableKeepAlives: true,
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatalf("GET %s by way of %s: %v", url, name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestOneAuthorityCertifiesEveryNameOfThePlatform(t *testing.T) {
	s := start(t)
	for _, name := range []string{
		"login." + domain, "management." + domain, "graph." + domain, "hosts." + domain,
		"kv1.vault." + domain, "localhost", "127.0.0.1",
	} {
		c, err := tls.Dial("tcp", s.Addr().String(), trust(s, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if life := c.ConnectionState().PeerCertificates[0].NotAfter.Sub(time.Now()); life > 90*24*time.Hour {
			t.Errorf("%s: a certificate that is good for %s, want at most 90 days", name, life)
		}
		c.Close()
	}
	if c, err := tls.Dial("tcp", s.Addr().String(), trust(s, "example.org")); err == nil {
		c.Close()
		t.Error("it has a certificate for a name that is not the platform's")
	}
}

func TestClientCertificatesAreAskedForOnTheHostsNameAlone(t *testing.T) {
	s := start(t)
	for name, want := range map[string]bool{
		"hosts." + domain: true, "login." + domain: false, "management." + domain: false, "kv1.vault." + domain: false, "localhost": false,
	} {
		asked := false
		config := trust(s, name)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &tls.Certificate{}, nil
		}
		c, err := tls.Dial("tcp", s.Addr().String(), config)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		c.Close()
		if asked != want {
			t.Errorf("%s: asked for a client certificate: %v, want %v", name, asked, want)
		}
	}
}

func TestAConnectionMadeToOneNameServesNoOther(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		made, host string
		want       int
	}{
		{"login." + domain, "login." + domain, http.StatusOK},
		{"login." + domain, "LOGIN." + domain, http.StatusOK},
		{"login." + domain, "hosts." + domain, http.StatusMisdirectedRequest}, // no certificate was asked for on it
		{"hosts." + domain, "login." + domain, http.StatusMisdirectedRequest},
		{"kv1.vault." + domain, "kv2.vault." + domain, http.StatusMisdirectedRequest},
		{"localhost", "localhost", http.StatusOK},
	} {
		if resp, body := ask(t, s, c.made, "https://"+c.host+"/healthz"); resp.StatusCode != c.want {
			t.Errorf("made to %s, asked for %s: got %d %s, want %d", c.made, c.host, resp.StatusCode, body, c.want)
		}
	}
}

func TestEachSurfaceAnswersAStrangerInItsOwnDialect(t *testing.T) {
	s := start(t)
	for _, c := range []struct {
		host, path string
		want       int
		challenge  string // part of WWW-Authenticate
		body       string // part of the body
	}{
		{"management", "/subscriptions?api-version=2022-12-01", 401, `authorization_uri="https://login.` + domain, `"code"`},
		{"management", "/SUBSCRIPTIONS/x/ResourceGroups?api-version=2022-12-01", 401, `authorization_uri="https://login.` + domain, `"code"`},
		{"management", "/Metadata/endpoints?api-version=2022-09-01", 200, "", `"resourceManager"`},
		{"management", "/audit", 401, "authorization_uri=", `"code"`},
		{"management", "/lifetimes", 401, "authorization_uri=", `"code"`},
		{"management", "/lifetimes/tenant", 401, "authorization_uri=", `"code"`},
		{"management", "/platform", 401, "authorization_uri=", `"code"`},
		{"graph", "/v1.0/servicePrincipals", 401, "authorization_uri=", `"code"`},
		{"kv1.vault", "/secrets/a?api-version=7.4", 401, `resource="https://vault.` + domain, `"Unauthorized"`},
		{"login", "/" + string(s.Platform.Tenant) + "/v2.0/.well-known/openid-configuration", 200, "", `"jwks_uri"`},
		{"login", "/" + string(s.Platform.Tenant) + "/nothing", 404, "", ""},
		{"hosts", "/v1/feed", 401, "", ""},
	} {
		name := c.host + "." + domain
		resp, body := ask(t, s, name, "https://"+name+c.path)
		if resp.StatusCode != c.want || !strings.Contains(resp.Header.Get("WWW-Authenticate"), c.challenge) || !strings.Contains(body, c.body) {
			t.Errorf("%s%s:\ngot  %d %q %s\nwant %d %q %q", name, c.path,
				resp.StatusCode, resp.Header.Get("WWW-Authenticate"), body, c.want, c.challenge, c.body)
		}
	}
}
