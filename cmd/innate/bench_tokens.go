package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"

	"innate"
)

// keyVault is the resource that the rows ask tokens for.
const keyVault = "https://vault.azure.net"

// tokenCached is the agent's endpoint with the token at hand, asked by the app
// that it is for; the limit is a bare handler asked by the same process.
func tokenCached(ctx context.Context, b *bench) (contest, error) {
	return b.cachedTokens(ctx, false, false, func(r loadReport, _ time.Duration) float64 { return r.rate() })
}

// tokenCachedFresh is the same with a connection for each token, whose caller
// the kernel is asked about each time: a program that starts, asks and ends.
func tokenCachedFresh(ctx context.Context, b *bench) (contest, error) {
	return b.cachedTokens(ctx, true, false, func(r loadReport, _ time.Duration) float64 { return r.rate() })
}

// tokenCachedCPU is what a token over a kept connection costs this process, which both servers are in
// and the app is not.
func tokenCachedCPU(ctx context.Context, b *bench) (contest, error) {
	return b.cachedTokens(ctx, false, true, func(r loadReport, cpu time.Duration) float64 {
		return float64(cpu.Nanoseconds()) / 1000 / float64(r.Requests)
	})
}

func (b *bench) cachedTokens(ctx context.Context, fresh, less bool, value func(loadReport, time.Duration) float64) (c contest, err error) {
	app, err := b.app(ctx)
	if err != nil {
		return c, err
	}
	defer func() {
		if err != nil {
			app.end()
		}
	}()
	l := load{
		Method: http.MethodGet, Connections: benchConnections, Fresh: fresh,
		URL: "?" + url.Values{"api-version": {"2019-08-01"}, "resource": {keyVault}}.Encode(), // below the app's endpoint
	}
	first, err := app.load(l.single())
	if err != nil {
		return c, err
	}
	plain, err := startBare(first, nil, nil, b.session.log())
	if err != nil {
		return c, err
	}
	against := func(l load) func(context.Context, time.Duration) (float64, error) {
		return func(ctx context.Context, d time.Duration) (float64, error) {
			before := cpuTime()
			l.Seconds = d.Seconds()
			r, err := app.load(l)
			if err != nil {
				return 0, err
			}
			return value(r, cpuTime()-before), nil
		}
	}
	toPlain := l
	toPlain.Address = plain.address
	return contest{ours: against(l), limit: against(toPlain), less: less, end: func() error {
		app.end()
		return errors.Join(plain.close(), app.wait(ctx))
	}}, nil
}

// app makes an app with an identity and starts 'bench load' as it.
func (b *bench) app(ctx context.Context) (*workload, error) {
	st, err := b.platform(ctx)
	if err != nil {
		return nil, err
	}
	plan, err := ensurePlan(ctx, st.Admin, benchGroup, st.Machine)
	if err != nil {
		return nil, err
	}
	id := st.resource(typeSite, "bench-app")
	if _, err := st.put(ctx, id, map[string]any{
		"kind": "app", "properties": map[string]any{"serverFarmId": plan}, "identity": map[string]string{"type": "SystemAssigned"},
	}); err != nil {
		return nil, err
	}
	w, err := startWorkload(ctx, st.Platform, id, b.program, "bench", "load")
	if err != nil {
		return nil, err
	}
	b.progress("the app's callers are proved by %s", w.started.Assurance)
	return w, nil
}

// load gives 'bench load' an order and reads its report.
func (w *workload) load(l load) (r loadReport, err error) {
	if err := w.exchange(l, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u) // fails on a wrong argument only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// issueRS256 is a fresh token under mutual TLS, as the agent asks for it; the
// limit is a bare handler that makes one signature.
func issueRS256(ctx context.Context, b *bench) (contest, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return contest{}, err
	}
	return b.issue(ctx, keyVault, "RS256", key)
}

// issueES256 is the same for a service that takes ES256.
func issueES256(ctx context.Context, b *bench) (contest, error) {
	st, err := b.platform(ctx)
	if err != nil {
		return contest{}, err
	}
	uri, err := st.audienceES256(ctx)
	if err != nil {
		return contest{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return contest{}, err
	}
	return b.issue(ctx, uri, "ES256", key)
}

// audienceES256 registers a service that takes ES256 and returns its identifier.
func (st *stage) audienceES256(ctx context.Context) (uri string, err error) {
	uri = "api://bench-" + innate.NewGUID()
	return uri, st.Admin.Graph(ctx, http.MethodPost, "/v1.0/applications", map[string]any{
		"displayName": "bench", "identifierUris": []string{uri}, "api": map[string]string{"signingAlgorithm": "ES256"},
	}, nil)
}

// signedBytes is about the length of what a token's signature covers.
const signedBytes = 1024

func (b *bench) issue(ctx context.Context, audience, alg string, key crypto.Signer) (contest, error) {
	p, err := b.prover(ctx)
	if err != nil {
		return contest{}, err
	}
	token, err := p.token(ctx, audience)
	if err != nil {
		return contest{}, err
	}
	got, err := algorithm(token)
	if err != nil {
		return contest{}, err
	}
	if got != alg {
		return contest{}, fmt.Errorf("a token for %s is signed with %s, and not with %s", audience, got, alg)
	}
	text := make([]byte, signedBytes)
	return b.beside(ctx, p.load(audience), p.dial(), &p.cert, func(*http.Request) error {
		digest := sha256.Sum256(text)
		_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		return err
	})
}
