package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"innate/agent"
)

// agentCommand is a host of production.
func (s *session) agentCommand() *cobra.Command {
	var state, runtime string
	var takeOver bool
	var uidBase uint32
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the host agent", Args: cobra.NoArgs,
		Long: `Runs the agent of a host that has joined. Apps get their identity under 'innate
run', VMs where 'innate attach' says that they are met. It ends the
apps that it started when it ends.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := agent.New(agent.Config{
				State: state, Runtime: runtime, TakeOver: takeOver, UIDBase: uidBase, Log: s.log(),
				Hide: []string{filepath.Dir(s.socket)}, // of a server on the same host
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(s.diagnostics, "innate agent: callers are proved by %s\n", a.Assurance())
			return a.Run(cmd.Context())
		},
	}
	cmd.PersistentFlags().StringVar(&state, "state", "/var/lib/innate/agent", "`folder` of the host's key and certificate")
	cmd.Flags().BoolVar(&takeOver, "take-over-imds", false, "let VMs be met in the host's own network, as the host itself, at devices or at bridge ports: 169.254.169.254 is then ours there, and a cloud's own metadata service is hidden")
	cmd.Flags().Uint32Var(&uidBase, "uid-base", 1_900_000_000, "apps get the 100 million uids above it; nobody else may give them away")
	cmd.Flags().StringVar(&runtime, "runtime", "/run/innate/run", "`folder` of the agent's socket")
	cmd.AddCommand(s.joinCommand(&state), s.tpmCommand(), s.agentStatusCommand())
	return cmd
}
