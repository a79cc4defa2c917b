package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	upstreamTimeout = 10 * time.Second // of one request to the control plane, the feed's excepted
	maxAnswer       = 1 << 20
)

// A grant is the answer to a joining or a renewal (hosts.Grant).
type grant struct {
	Certificate []byte `json:"certificate"`
	Daily       []byte `json:"daily"` // when a host with a TPM renews: for the key of the request
	joined
}

// upstream is the control plane as this host reaches it, under its own certificate.
type upstream struct {
	joined
	asker
	roots *x509.CertPool
	chip  *tls.Certificate // its key is in the TPM, and renews what is used; nil: there is none. Only renewing changes it

	key atomic.Pointer[tls.Certificate]
	// The transport is made anew with each certificate: a connection keeps the
	// one it was made with, and streams of HTTP/2 share connections.
	transport atomic.Pointer[http.Transport]
}

func newUpstream(j joined, key *tls.Certificate) (*upstream, error) {
	roots, err := j.roots()
	if err != nil {
		return nil, err
	}
	u := &upstream{joined: j, roots: roots}
	if j.TPM != "" {
		u.chip = key
	}
	u.asker = asker{base: "https://" + j.Name, http: &http.Client{Transport: u}}
	u.use(key)
	return u, nil
}

// use goes on with another certificate; what is under way ends with the old one.
func (u *upstream) use(key *tls.Certificate) {
	u.key.Store(key)
	if old := u.transport.Swap(u.transportFor(key)); old != nil {
		old.CloseIdleConnections()
	}
}

// close hangs up, so that a server that is ending too need not wait for us.
func (u *upstream) close() { u.transport.Load().CloseIdleConnections() }

// RoundTrip uses the newest certificate.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	return u.transport.Load().RoundTrip(r)
}

// transportFor makes connections under a certificate, to the control plane and
// nowhere else: no name is looked up, no proxy asked, no other authority believed.
func (u *upstream) transportFor(key *tls.Certificate) *http.Transport {
	return &http.Transport{
		DialContext: dialer(u.Address),
		TLSClientConfig: &tls.Config{
			RootCAs: u.roots, MinVersion: tls.VersionTLS12,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return key, nil },
		},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: upstreamTimeout,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 2,
		// A connection that died while a laptop slept, or with a route, tells nobody: ask.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
	}
}

// dialer dials address whatever the URL says.
func dialer(address string) func(context.Context, string, string) (net.Conn, error) {
	d := &net.Dialer{Timeout: upstreamTimeout}
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "tcp", address) }
}

// An asker posts JSON to the control plane.
type asker struct {
	base string // origin
	http *http.Client
}

func (a asker) url(path string) string { return a.base + path }

// A refusal of the control plane, from its error envelope.
type refusal struct {
	Status  int
	Code    string
	Message string
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (%d %s)", r.Message, r.Status, r.Code) }

// refusedAs reports whether err is a refusal with that code.
func refusedAs(err error, code string) bool {
	var r *refusal
	return errors.As(err, &r) && r.Code == code
}

// post sends in and reads the answer into out; an answer other than 200 is a *refusal.
func (a asker) post(ctx context.Context, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url(path), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the answer to %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return envelope(resp.StatusCode, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("reading the answer to %s: %w", path, err)
	}
	return nil
}

func envelope(status int, body []byte) error {
	var e struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &e) != nil || e.Error.Code == "" {
		return &refusal{Status: status, Code: http.StatusText(status), Message: "the control plane answered without a reason"}
	}
	return &refusal{Status: status, Code: e.Error.Code, Message: e.Error.Message}
}
