package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"

	"innate/admin"
)

// A session is one run of the command line: where it reads and writes, and the
// flags that every command has.
type session struct {
	in               io.Reader
	out, diagnostics io.Writer

	output  string // table or json
	socket  string // the administrators'
	verbose bool
}

func newRoot(s *session) *cobra.Command {
	root := &cobra.Command{
		Use:   "innate",
		Short: "Managed identity for every machine",
		Long: `Innate gives every program an identity by where it runs. Turn identity on for a
VM or an app, grant it a role, and any Azure SDK, unmodified, gets short-lived
tokens from a local endpoint that only that workload can reach.

Start with:  innate quickstart`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if s.output != "table" && s.output != "json" {
				return fmt.Errorf("--output %q: want table or json", s.output)
			}
			return nil
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&s.output, "output", "o", "table", "`format` of the answer: table, or json for scripts")
	f.StringVar(&s.socket, "socket", defaultSocket(), "the administrators' `socket` of the server (INNATE_SOCKET)")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "log what happens")
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))

	root.AddGroup(
		&cobra.Group{ID: "laptop", Title: "On a laptop or in CI:"},
		&cobra.Group{ID: "roles", Title: "In production:"},
		&cobra.Group{ID: "host", Title: "On a host:"},
		&cobra.Group{ID: "admin", Title: "Administration:"},
	)
	in := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in("laptop", s.quickstartCommand(), s.devCommand())
	in("roles", s.serverCommand(), s.agentCommand(), s.gatewayCommand())
	in("host", s.runCommand(), s.execCommand(), s.attachCommand(), s.detachCommand(), s.tokenCommand())
	in("admin", s.groupCommand(), s.vmCommand(), s.appCommand(), s.identityCommand(), s.registrationCommand(), s.federationCommand(), s.roleCommand(),
		s.vaultCommand(), s.secretCommand(), s.postgresCommand(), s.hostCommand(), s.keyCommand(), s.lifetimeCommand(), s.platformCommand(), s.servicesCommand(), s.auditCommand())
	root.AddCommand(s.benchCommand(), s.sampleCommand(), launchCommand(), s.unitCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: '%s --help' lists the flags", err, cmd.CommandPath())
	})
	refuseUnknown(root)
	return root
}

// refuseUnknown makes every command that only holds others refuse a word that
// is none of them: by itself the library shows the help then, and succeeds.
func refuseUnknown(cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		refuseUnknown(c)
	}
	if cmd.Runnable() {
		return
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("there is no '%s %s': '%s --help' lists what there is", cmd.CommandPath(), args[0], cmd.CommandPath())
		}
		return nil
	}
}

// defaultSocket is what INNATE_SOCKET says, or the place where a server that runs as a service has it.
func defaultSocket() string {
	if path := os.Getenv("INNATE_SOCKET"); path != "" {
		return path
	}
	return "/run/innate/admin/admin.sock"
}

// defaultAgentSocket is the same for the agent, which has its socket beside.
func defaultAgentSocket() string {
	if path := os.Getenv("INNATE_AGENT_SOCKET"); path != "" {
		return path
	}
	if path := os.Getenv("INNATE_SOCKET"); path != "" {
		return filepath.Join(filepath.Dir(filepath.Dir(path)), "run", "agent.sock")
	}
	return "/run/innate/run/agent.sock"
}

// admin connects to the server.
func (s *session) admin(ctx context.Context) (*admin.Client, error) { return admin.Dial(ctx, s.socket) }

// asking is how a command that asks the server runs.
func (s *session) asking(do func(cmd *cobra.Command, c *admin.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := s.admin(cmd.Context())
		if err != nil {
			return err
		}
		return do(cmd, c, args)
	}
}

// log is where the program says what happens: standard error, quiet unless asked.
func (s *session) log() *slog.Logger {
	level := slog.LevelWarn
	if s.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(s.diagnostics, &slog.HandlerOptions{Level: level}))
}

// print writes v as JSON, or its rows as a table under the heads.
func (s *session) print(v any, heads string, rows [][]string) error {
	if s.output == "json" {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(strings.Fields(heads), "\t"))
	for _, r := range rows {
		for i := range r {
			r[i] = cell(r[i])
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// cell is a text as a cell of a table: what a workload chose must not steer the
// terminal of whoever reads it, nor look like another row.
func cell(text string) string {
	if text == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// say tells a person what was done; scripts read JSON or the exit code.
func (s *session) say(v any, format string, args ...any) error {
	if s.output == "json" {
		return s.print(v, "", nil)
	}
	_, err := fmt.Fprintf(s.out, format+"\n", args...)
	return err
}
