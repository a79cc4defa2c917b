// Package admin speaks to a control plane as its administrator, over the
// administrators' socket: the requests that any ARM, Graph or Key Vault client
// would make, with no token, since the kernel says who connected.
//
// It also turns the names that people type into ids. It decides nothing.
package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"innate"
	"innate/rest"
)

// apiVersion is sent with every ARM request; the server takes any date.
const apiVersion = "2025-01-01"

// secretsVersion is sent with every vault request.
const secretsVersion = "2025-07-01"

// Info is what a client must know of a platform; none of it is secret.
type Info struct {
	Tenant       innate.TenantID `json:"tenant"`
	Subscription string          `json:"subscription"`
	Domain       string          `json:"domain"`
	Login        string          `json:"login"` // origins, without a trailing slash
	Management   string          `json:"management"`
	Graph        string          `json:"graph"`
	Hosts        string          `json:"hosts"`
	VaultSuffix  string          `json:"vaultSuffix"` // vault.example.org[:port]
	Dev          bool            `json:"dev"`
	CA           string          `json:"ca"` // PEM
}

// A Client asks one control plane.
type Client struct {
	Info   Info
	socket string
	http   *http.Client
}

// Dial connects to the socket and asks who is there.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
	if err := c.do(ctx, http.MethodGet, "innate", "/platform", nil, &c.Info); err != nil {
		return nil, explain(err, socket)
	}
	return c, nil
}

// explain says what to do about a socket that does not answer.
func explain(err error, socket string) error {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("no server answers at %s: start 'innate dev' or 'innate server', or name its socket with --socket or INNATE_SOCKET", socket)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s is for root and the operator: use sudo, or let the server be started with --operator %d", socket, os.Getuid())
	}
	return fmt.Errorf("asking the server at %s: %w", socket, err)
}

// ARM sends a request to the resource manager: path is a resource id, with or
// without a query. in and out are JSON; nil means none.
func (c *Client) ARM(ctx context.Context, method, path string, in, out any) error {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return c.do(ctx, method, "innate", path+sep+"api-version="+apiVersion, in, out)
}

// Graph sends a request to the directory; path begins with /v1.0/.
func (c *Client) Graph(ctx context.Context, method, path string, in, out any) error {
	return c.do(ctx, method, "innate", path, in, out)
}

// Get asks one of the platform's own pages, such as /services or /audit.
func (c *Client) Get(ctx context.Context, path string, out any) error {
	return c.do(ctx, http.MethodGet, "innate", path, nil, out)
}

// Vault sends a request to a vault by its name.
func (c *Client) Vault(ctx context.Context, vault, method, path string, in, out any) error {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return c.do(ctx, method, vault+"."+c.Info.VaultSuffix, path+sep+"api-version="+secretsVersion, in, out)
}

func (c *Client) do(ctx context.Context, method, host, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(r)
	if err != nil {
		var op *url.Error
		if errors.As(err, &op) {
			err = op.Err // the made-up URL says nothing to people
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return refusal(resp)
	}
	if out == nil || resp.StatusCode == http.StatusNoContent {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// refusal reads an error envelope.
func refusal(resp *http.Response) error {
	var e struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
			Inner   struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(b, &e) != nil || e.Error.Code == "" {
		return &rest.Error{Status: resp.StatusCode, Code: http.StatusText(resp.StatusCode), Message: strings.TrimSpace(string(b))}
	}
	return &rest.Error{Status: resp.StatusCode, Code: e.Error.Code, Message: e.Error.Message, Inner: e.Error.Inner.Code}
}

// IsNotFound reports whether err is the server's 404.
func IsNotFound(err error) bool {
	var e *rest.Error
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}
