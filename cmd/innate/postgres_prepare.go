package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"innate"
	"innate/gateway/postgres"
	"innate/gateway/postgres/setup"
)

// postgresHostCommands are those of 'innate postgres' for the server's host:
// they ask PostgreSQL, and not the control plane.
func (s *session) postgresHostCommands() []*cobra.Command {
	return []*cobra.Command{s.postgresPrepareCommand(), s.postgresCheckCommand()}
}

// A postgresHost is the flags of both.
type postgresHost struct {
	server, connection, gateway, dir, user string
	roles                                  []string
	certificate                            bool
}

func (h *postgresHost) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&h.server, "server", "", "`name` or resource id of the server")
	f.StringVar(&h.connection, "connection", "host=/var/run/postgresql user=postgres dbname=postgres", "`string` to connect by as a superuser, over the server's socket")
	f.StringVar(&h.gateway, "gateway", "127.0.0.1:389", "`address` at which the gateway listens")
	f.StringVar(&h.dir, "dir", "/var/lib/innate-postgres", "the gateway's `folder`")
	f.StringVar(&h.user, "user", "postgres", "the operating system's `user` that the gateway runs as")
	f.StringSliceVar(&h.roles, "role", nil, "a `role` that identities log in as; may be repeated")
	f.BoolVar(&h.certificate, "by-certificate", false, "clients log in by certificate, as the server was created with")
	cmd.MarkFlagRequired("server")
}

// open connects to the server and reads how it is set up.
func (h *postgresHost) open(cmd *cobra.Command) (*pgx.Conn, *setup.Server, setup.Config, error) {
	at, err := netip.ParseAddrPort(h.gateway)
	if err != nil {
		return nil, nil, setup.Config{}, fmt.Errorf("--gateway %q: want an address and a port, such as 127.0.0.1:389", h.gateway)
	}
	dir, err := filepath.Abs(h.dir)
	if err != nil {
		return nil, nil, setup.Config{}, err
	}
	c := setup.Config{
		Server: innate.ResourceID(h.server), Gateway: at, CA: filepath.Join(dir, postgres.CAFile),
		Clients: filepath.Join(dir, postgres.ClientsFile), User: h.user, Roles: h.roles, Certificate: h.certificate,
	}
	if name := c.Server.Name(); name == "" || strings.ContainsAny(name, `" ,=`) {
		return nil, nil, c, fmt.Errorf("--server %q: want the name or the resource id of a PostgreSQL server", h.server)
	}
	conn, err := pgx.Connect(cmd.Context(), h.connection)
	if err != nil {
		return nil, nil, c, fmt.Errorf("connecting to PostgreSQL: %w: run this on its host, as its superuser: sudo -u postgres, or --connection", err)
	}
	server, err := setup.Read(cmd.Context(), conn, c)
	if err != nil {
		conn.Close(cmd.Context())
		return nil, nil, c, err
	}
	return conn, server, c, nil
}

func (s *session) postgresPrepareCommand() *cobra.Command {
	var h postgresHost
	var apply bool
	cmd := &cobra.Command{
		Use: "prepare --server NAME", Short: "Show, or make, what a PostgreSQL server on this host needs for log-ins by identity", Args: cobra.NoArgs,
		Long: `Shows what a PostgreSQL server on this host must be told so that identities log in
there: roles, lines of pg_hba.conf and pg_ident.conf, and what its environment
says to libldap. With --apply it is done. What is there already is left alone, and
so is everything outside of the lines between '# BEGIN innate' and '# END innate'.

With --by-certificate, in the place of libldap's settings the platform's authority
of client certificates joins those that the server believes (ssl_ca_file), and
pg_ident.conf gets lines that the gateway fills. The gateway fetches the authority:
it is started before. Without it, where it was, what certificates need is taken
away again.

A role that becomes one for tokens takes no password any more, and sessions that
it has otherwise are ended.`,
		Example: `  sudo -u postgres innate postgres prepare --server orders --role app-orders
  sudo -u postgres innate postgres prepare --server orders --role app-orders --apply`,
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, server, _, err := h.open(cmd)
			if err != nil {
				return err
			}
			defer conn.Close(cmd.Context())
			steps, err := server.Steps()
			if err != nil {
				return err
			}
			if err := s.showSteps(steps); err != nil || !apply || len(steps) == 0 {
				if err == nil && len(steps) > 0 && s.output != "json" {
					fmt.Fprintln(s.out, "\nNothing was changed: with --apply it is.")
				}
				return err
			}
			if err := server.Obstacle(); err != nil {
				return err
			}
			left, err := setup.Apply(cmd.Context(), conn, steps)
			if err != nil {
				return err
			}
			return s.sayApplied(steps, left)
		},
	}
	h.flags(cmd)
	cmd.Flags().BoolVar(&apply, "apply", false, "do it")
	return cmd
}

// showSteps shows a difference as people know it from other tools.
func (s *session) showSteps(steps []setup.Step) error {
	if s.output == "json" {
		return s.print(steps, "", nil)
	}
	if len(steps) == 0 {
		fmt.Fprintln(s.out, "The server is told all of it. What is missing beside that: innate postgres check")
	}
	for _, step := range steps {
		where := step.Path
		switch {
		case step.Statement != "":
			fmt.Fprintf(s.out, "+ %s;\n", step.Statement)
			continue
		case where == "":
			where = "where the server's environment is made, by hand"
		}
		fmt.Fprintf(s.out, "\n%s (%s; %s)\n", where, step.What, needs(step.Needs))
		for _, line := range step.Removed {
			fmt.Fprintln(s.out, "- "+line)
		}
		for _, line := range step.Added {
			fmt.Fprintln(s.out, "+ "+line)
		}
	}
	return nil
}

func needs(what string) string {
	switch what {
	case setup.Reload:
		return "in force after a reload"
	case setup.Restart:
		return "in force after a RESTART of the server"
	}
	return "in force at once"
}

func (s *session) sayApplied(steps, left []setup.Step) error {
	if s.output == "json" {
		return nil // the steps have been told
	}
	restart, unit := false, ""
	for _, step := range steps {
		restart = restart || step.Needs == setup.Restart
		if file, ok := strings.CutPrefix(step.Path, "/etc/systemd/system/"); ok {
			unit = strings.TrimSuffix(filepath.Dir(file), ".d")
		}
	}
	fmt.Fprintln(s.out, "\nDone, and the server has read its files again.")
	for _, step := range left {
		if step.Path == "" {
			fmt.Fprintln(s.out, "Put the lines of the server's environment where it is made: that cannot be known from here.")
		} else {
			fmt.Fprintf(s.out, "Put the lines of the server's environment into %s, as root: this user may not.\n", step.Path)
		}
	}
	if unit != "" {
		fmt.Fprintf(s.out, "Its unit takes them by: systemctl daemon-reload && systemctl restart %s\n", unit)
	}
	if restart {
		fmt.Fprintln(s.out, "RESTART the server: its environment is read at its start alone, and until then roles for tokens cannot log in.")
	}
	fmt.Fprintln(s.out, "Then: innate postgres check")
	return nil
}

func (s *session) postgresCheckCommand() *cobra.Command {
	var h postgresHost
	cmd := &cobra.Command{
		Use: "check --server NAME", Short: "Say what is missing or unsafe at a PostgreSQL server on this host", Args: cobra.NoArgs,
		Long: `Says what keeps identities from logging in at a PostgreSQL server on this host, and
what would let somebody in who should not be. Without a fault that is missing or
unsafe it ends with 0. It changes nothing. The server's environment is seen by
root and by the server's own user alone.`,
		Example: "  sudo -u postgres innate postgres check --server orders --role app-orders",
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, server, c, err := h.open(cmd)
			if err != nil {
				return err
			}
			defer conn.Close(cmd.Context())
			faults := server.Faults(postgres.Answers(cmd.Context(), c.Gateway, c.CA))
			bad := 0
			for _, f := range faults {
				if f.Kind != setup.Advice {
					bad++
				}
			}
			if s.output == "json" {
				err = s.print(faults, "", nil)
			} else {
				err = s.showFaults(faults)
			}
			if err == nil && bad > 0 {
				return exitCode(1)
			}
			return err
		},
	}
	h.flags(cmd)
	return cmd
}

// showFaults is no table: a fault is a sentence, and what mends it another.
func (s *session) showFaults(faults []setup.Fault) error {
	if len(faults) == 0 {
		_, err := fmt.Fprintln(s.out, "Nothing is missing, and nothing that can be seen from here is unsafe.")
		return err
	}
	for _, f := range faults {
		if _, err := fmt.Fprintf(s.out, "%-8s %s\n         %s\n", f.Kind, f.What, f.Do); err != nil {
			return err
		}
	}
	return nil
}
