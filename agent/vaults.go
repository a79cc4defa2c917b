package agent

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	vaultAudience = "https://vault.azure.net"
	vaultVersion  = "7.4"
	changesWait   = 30 * time.Second // that a request waits for a change
)

// vaults are the platform's, as an app reads them: under a token of the app's,
// never under the host's certificate.
type vaults struct {
	domain string
	http   *http.Client
}

// newVaults reaches the vaults where the control plane is; their names need not
// resolve on this host.
func newVaults(u *upstream) *vaults {
	return &vaults{domain: u.Domain, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         dialer(u.Address),
			TLSClientConfig:     &tls.Config{RootCAs: u.roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: upstreamTimeout,
			IdleConnTimeout:     90 * time.Second,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (v *vaults) close() { v.http.CloseIdleConnections() }

// secret reads a value.
func (v *vaults) secret(ctx context.Context, r reference, token string) (string, error) {
	var answer struct {
		Value string `json:"value"`
	}
	path := "/secrets/" + r.name
	if r.version != "" {
		path += "/" + r.version
	}
	err := v.get(ctx, r.vault, path+"?", token, &answer)
	return answer.Value, err
}

// changed returns when something happened to a secret after since, or nothing
// did for a while; from is where to go on. With since 0 it returns at once.
func (v *vaults) changed(ctx context.Context, r reference, since uint64, token string) (from uint64, changed bool, err error) {
	var answer struct {
		Revision uint64     `json:"revision"`
		Changes  []struct{} `json:"changes"`
	}
	path := "/changes/" + r.name + "?"
	if since > 0 {
		path += fmt.Sprintf("since=%d&wait=%d&", since, changesWait/time.Second)
	}
	err = v.get(ctx, r.vault, path, token, &answer)
	return answer.Revision, len(answer.Changes) > 0, err
}

// get asks a vault; path ends where the api-version is to be added. An answer
// other than 200 is a *refusal, with the vault's own words.
func (v *vaults) get(ctx context.Context, vault, path, token string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, changesWait+upstreamTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+vault+".vault."+v.domain+path+"api-version="+vaultVersion, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := v.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("reading the vault's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return envelope(resp.StatusCode, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the vault's answer is not JSON of the kind that was asked for (%d bytes)", len(b))
	}
	return nil
}
