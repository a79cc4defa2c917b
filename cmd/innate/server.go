package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"innate/seal"
	"innate/server"
)

// serverCommand is the control plane of production.
func (s *session) serverCommand() *cobra.Command {
	var dir, listen, tpmRoots string
	var operator int
	var outside outside
	var keepers keepers
	cmd := &cobra.Command{
		Use: "server", Short: "Run the control plane", Args: cobra.NoArgs,
		Long: `Runs the control plane on the platform that 'innate server init' made.

Its names are login., management., graph., hosts. and *.vault. under the domain;
they must resolve here for whoever uses it. Certificates come from its own
authority and renew themselves.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			reach, err := outside.read()
			if err != nil {
				return err
			}
			vendors, err := readRoots(tpmRoots)
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			config := server.Config{
				Dir: dir, Listener: l, Socket: s.socket, Operator: operator, Outside: reach,
				TPMRoots: vendors, Keepers: keepers.all(), Log: s.log(),
			}
			if err := server.AwaitKey(cmd.Context(), config); err != nil {
				l.Close()
				if cmd.Context().Err() != nil {
					return nil // stopped while it was sealed
				}
				return err
			}
			srv, err := server.New(cmd.Context(), config)
			if err != nil {
				l.Close()
				return err
			}
			fmt.Fprintf(s.diagnostics, "innate server: %s on %s, administrators at %s\n", srv.Endpoints.Login, l.Addr(), s.socket)
			return srv.Run(cmd.Context())
		},
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", "/var/lib/innate/control", "the platform's `folder`")
	cmd.Flags().StringVar(&listen, "listen", ":443", "`address` to listen on")
	cmd.Flags().IntVar(&operator, "operator", -1, "`uid` that may use the administrators' socket, beside root")
	outside.flags(cmd)
	keepers.flags(cmd)
	cmd.Flags().StringVar(&tpmRoots, "tpm-roots", "", "`file` with certificates (PEM) of the vendors whose TPMs may join by a one-time token")

	var domain, in string
	init := &cobra.Command{
		Use: "init", Short: "Make a new platform: its keys, its store, its administrator", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			keeper, err := keepers.named(in)
			if err != nil {
				return err
			}
			if err := server.CreateIn(context.WithoutCancel(cmd.Context()), dir, domain, false, keeper, time.Now()); err != nil {
				return err
			}
			if keeper != nil {
				return s.say(map[string]string{"dir": dir, "domain": domain},
					"%s is a new platform for %s. Its master key is kept by: %s. Without that, nobody opens this store or a copy of it.", dir, domain, in)
			}
			return s.say(map[string]string{"dir": dir, "domain": domain},
				"%s is a new platform for %s. Keep %s/master.key safe and apart from backups of the store: the one opens the other.", dir, domain, dir)
		},
	}
	init.Flags().StringVar(&domain, "domain", "", "DNS `name` under which the platform answers, such as id.example.org")
	init.Flags().StringVar(&in, "seal", seal.InFile, "who shall `keep` the master key: "+kinds)
	init.MarkFlagRequired("domain")
	cmd.AddCommand(init, s.serverReseal())
	return cmd
}

// readRoots reads certificates, of roots or of authorities below them: each is
// believed. No file means none.
func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the vendors of TPMs: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate: want PEM", path)
	}
	return pool, nil
}
