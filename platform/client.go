package platform

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
)

// Client reaches the platform by any of its names, whatever this process's
// resolver says, and trusts its authority: what a program outside has after its
// operator set up DNS. It carries no token.
func (p *Platform) Client() *http.Client { return p.client }

func (p *Platform) newClient() *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.Server.Bundle())
	addr := p.Server.Addr().String()
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
		ForceAttemptHTTP2: true,
	}}
}
