package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"innate/discovery"
)

// outside is the flags that say how far the control plane goes for the keys of
// issuers that federated credentials name.
type outside struct {
	inside []string
	ca     string
}

func (o *outside) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&o.inside, "issuer-inside", nil, "`HOST[:PORT]` of a federated issuer that may be on a private network or this machine; may be repeated")
	cmd.Flags().StringVar(&o.ca, "issuer-ca", "", "`file` of certificates (PEM) that federated issuers may be of, beside the system's")
}

func (o *outside) read() (discovery.Outside, error) {
	reach := discovery.Outside{Allow: o.inside}
	for _, host := range o.inside {
		if host == "" || strings.ContainsAny(host, "/*@ ") {
			return reach, fmt.Errorf("--issuer-inside %q: want a host name, or HOST:PORT, and no more", host)
		}
	}
	if o.ca == "" {
		return reach, nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return reach, fmt.Errorf("reading --issuer-ca: %w", err)
	}
	if reach.Roots, err = x509.SystemCertPool(); err != nil {
		reach.Roots = x509.NewCertPool() // a machine without any has these alone
	}
	if !reach.Roots.AppendCertsFromPEM(pem) {
		return reach, fmt.Errorf("--issuer-ca %s: want certificates in PEM", o.ca)
	}
	return reach, nil
}
