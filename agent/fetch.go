package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"innate"
)

// upstreamPause is when to come again after the control plane did not answer.
const upstreamPause = 2 * time.Second

// unreachable is the answer to a workload while the control plane is away and
// nothing is kept. It is never a 400: clients take that for good.
func unreachable(cause error) error {
	return &innate.Refusal{
		Status: http.StatusServiceUnavailable, OAuth: "temporarily_unavailable", RetryAfter: upstreamPause,
		Text: "the control plane does not answer, and no token is kept", Cause: cause,
	}
}

// fetch gets a token from the token service, under the identity's certificate.
// A certificate that the service no longer knows is replaced once.
func (c *cache) fetch(ctx context.Context, w *wallet, o order) (innate.Token, error) {
	cred := w.credential(o.identity.Object)
	for first := true; ; first = false {
		as, err := cred.client(ctx, c.upstream, o, c.now())
		if err != nil {
			return innate.Token{}, err
		}
		token, err := askToken(ctx, as, c.upstream.Token, o)
		var no *innate.Refusal
		if first && errors.As(err, &no) && no.OAuth == "invalid_client" {
			cred.drop(as)
			continue
		}
		if err == nil && token.Expires.Sub(c.now()) <= unserved {
			err = unreachable(fmt.Errorf("the token service sent a token that ends at %s", token.Expires.UTC().Format(time.RFC3339)))
		}
		return token, err
	}
}

// askToken is one request at the v1 token endpoint (managed-identity-endpoints
// §4.3) with the certificate as the credential, and our own field: how surely
// the caller was recognised.
func askToken(ctx context.Context, client *http.Client, endpoint string, o order) (innate.Token, error) {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {string(o.identity.Client)},
		"resource": {o.resource}, "assurance": {o.proof.String()},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return innate.Token{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := client.Do(req)
	if err != nil {
		return innate.Token{}, unreachable(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return innate.Token{}, unreachable(err)
	}
	if resp.StatusCode != http.StatusOK {
		return innate.Token{}, tokenRefusal(resp, body)
	}
	token, err := readToken(body, o)
	if err != nil {
		return innate.Token{}, unreachable(fmt.Errorf("reading the token service's answer: %w", err))
	}
	return token, nil
}

// readToken reads the v1 answer, whose fields are all strings.
func readToken(body []byte, o order) (innate.Token, error) {
	var v struct {
		Token     string `json:"access_token"`
		ExpiresOn string `json:"expires_on"`
		NotBefore string `json:"not_before"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return innate.Token{}, err
	}
	if v.Token == "" {
		return innate.Token{}, errors.New("it has no access_token")
	}
	expires, err := strconv.ParseInt(v.ExpiresOn, 10, 64)
	if err != nil {
		return innate.Token{}, fmt.Errorf("expires_on: %w", err)
	}
	notBefore, err := strconv.ParseInt(v.NotBefore, 10, 64)
	if err != nil {
		return innate.Token{}, fmt.Errorf("not_before: %w", err)
	}
	return innate.Token{
		Value: v.Token, Client: o.identity.Client, Object: o.identity.Object, Resource: o.resource,
		NotBefore: time.Unix(notBefore, 0), Expires: time.Unix(expires, 0),
	}, nil
}

// tokenRefusal passes on what the token service said (managed-identity-endpoints §4.6).
func tokenRefusal(resp *http.Response, body []byte) error {
	var v struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Codes       []int  `json:"error_codes"`
		Trace       string `json:"trace_id"`
	}
	if json.Unmarshal(body, &v) != nil || v.Error == "" {
		return unreachable(fmt.Errorf("the token service answered %s without a reason", resp.Status))
	}
	r := &innate.Refusal{Status: resp.StatusCode, OAuth: v.Error, Text: v.Description, Trace: v.Trace}
	if len(v.Codes) > 0 {
		r.Code = v.Codes[0]
	}
	// What the endpoints add again by themselves is taken off.
	r.Text = strings.TrimPrefix(r.Text, fmt.Sprintf("AADSTS%d: ", r.Code))
	r.Text, _, _ = strings.Cut(r.Text, " Trace ID: ")
	if transient(r) {
		r.RetryAfter = upstreamPause
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			r.RetryAfter = time.Duration(s) * time.Second
		}
	}
	return r
}
