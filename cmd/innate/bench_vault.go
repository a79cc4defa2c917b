package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
)

const (
	benchVault  = "bench-kv"
	benchSecret = "/secrets/x" // what secret-get reads
)

// secretGet is a secret read by an identity that may; the limit is a bare
// handler over TLS that writes the same bytes once it has verified the same
// token, remembered as ours is, and made a record of the same kind durable.
func secretGet(ctx context.Context, b *bench) (contest, error) {
	p, err := b.secrets(ctx)
	if err != nil {
		return contest{}, err
	}
	l := p.secretLoad(http.MethodGet, benchSecret)
	l.Connections = benchConnections
	verifier, err := p.stage.verifier()
	if err != nil {
		return contest{}, err
	}
	log, err := audit.Open(filepath.Join(b.dir, "bare-audit"))
	if err != nil {
		return contest{}, err
	}
	c, err := b.beside(ctx, l, p.stage.dial(benchVault+".vault", nil), nil, func(r *http.Request) error {
		return recorded(r, verifier, log)
	})
	if err != nil {
		return contest{}, errors.Join(err, log.Close())
	}
	plain := c.end
	c.end = func() error { return errors.Join(plain(), log.Close()) }
	return c, nil
}

// recorded verifies the token of a request and records who read what.
func recorded(r *http.Request, verifier *bearer.Verifier, log *audit.Log) error {
	claims, err := verifier.Verify(r.Context(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if err != nil {
		return err
	}
	who := claims.Principal
	return log.Record(r.Context(), audit.Event{
		Time: time.Now(), Action: "Microsoft.KeyVault/vaults/secrets/getSecret/action", Allowed: true, Target: r.URL.Path,
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token, Address: r.RemoteAddr,
	})
}

// verifier checks the platform's tokens for its vaults, as any service may.
func (st *stage) verifier() (*bearer.Verifier, error) {
	return bearer.New(bearer.Config{
		Authority: st.Server.Endpoints.Login, Tenant: st.Server.Platform.Tenant, Audiences: []string{keyVault},
		HTTP: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: st.roots()},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", st.Server.Addr().String())
			},
		}},
	})
}

// secretSet is as many writers, each of which sets a secret of its own; the limit
// is what one writer can append to a file and sync in the same folder.
func secretSet(writers int) func(context.Context, *bench) (contest, error) {
	return func(ctx context.Context, b *bench) (contest, error) {
		p, err := b.secrets(ctx)
		if err != nil {
			return contest{}, err
		}
		loads := make([]load, writers)
		for i := range loads {
			loads[i] = p.secretLoad(http.MethodPut, fmt.Sprint("/secrets/of-", i))
			loads[i].Connections, loads[i].Body = 1, `{"value": "`+strings.Repeat("x", rowSize)+`"}`
		}
		f, err := os.Create(filepath.Join(b.dir, fmt.Sprint("bare-secrets-", writers)))
		if err != nil {
			return contest{}, err
		}
		dial := p.stage.dial(benchVault+".vault", nil)
		return contest{
			ours:  func(ctx context.Context, d time.Duration) (float64, error) { return together(ctx, loads, dial, d) },
			limit: func(ctx context.Context, d time.Duration) (float64, error) { return appendAndSync(ctx, f, d) },
			end:   f.Close,
		}, nil
	}
}

// together sends loads at once and returns how many answers came a second.
func together(ctx context.Context, loads []load, dial dialFunc, d time.Duration) (float64, error) {
	rates := make([]float64, len(loads))
	g, ctx := errgroup.WithContext(ctx)
	for i, l := range loads {
		l.Seconds = d.Seconds()
		g.Go(func() error {
			r, err := l.run(ctx, dial)
			rates[i] = r.rate()
			return err
		})
	}
	err := g.Wait()
	all := 0.0
	for _, rate := range rates {
		all += rate
	}
	return all, err
}

// secrets is the prover once there is a vault with a secret, which its identity
// may read and write.
func (b *bench) secrets(ctx context.Context) (*prover, error) {
	p, err := b.prover(ctx)
	if err != nil || p.vaults != "" {
		return p, err
	}
	st := p.stage
	vault := st.resource(typeVault, benchVault)
	if _, err := st.put(ctx, vault, map[string]any{"properties": map[string]any{
		"tenantId": st.Admin.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
	}}); err != nil {
		return nil, err
	}
	if err := st.Admin.Vault(ctx, benchVault, http.MethodPut, benchSecret, map[string]string{"value": "hunter2"}, nil); err != nil {
		return nil, err
	}
	grant := string(vault) + authorization + "roleAssignments/" + innate.NewGUID()
	if err := st.Admin.ARM(ctx, http.MethodPut, grant, map[string]any{"properties": map[string]any{
		"roleDefinitionId": authorization + "roleDefinitions/" + access.KeyVaultSecretsOfficer, "principalId": p.object,
	}}, nil); err != nil {
		return nil, err
	}
	p.vaults, err = p.token(ctx, keyVault)
	return p, err
}

// secretLoad is a request to the vault.
func (p *prover) secretLoad(method, path string) load {
	return load{
		Method: method, URL: "https://" + benchVault + "." + p.stage.Server.Endpoints.VaultSuffix + path + "?api-version=7.4",
		Header: map[string]string{"Authorization": "Bearer " + p.vaults, "Content-Type": "application/json"},
	}
}
