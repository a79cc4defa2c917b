package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"innate/agent"
	"innate/agent/opener"
	"innate/agent/tpm"
)

// hosting are the flags of 'innate agent'.
type hosting struct {
	state, runtime string
	takeOver       bool
	uidBase        uint32
	lend           []string
	tpm            string
}

// agentCommand is a host of production.
func (s *session) agentCommand() *cobra.Command {
	var h hosting
	cmd := &cobra.Command{
		Use: "agent", Short: "Run the host agent", Args: cobra.NoArgs,
		Long: `Runs the agent of a host that has joined. Apps get their identity under 'innate
run', VMs where 'innate attach' says that they are met. It ends the
apps that it started when it ends.

Run by root it is two processes: one that opens what only root may, and a worker
with a uid of its own and no privileges, which has the keys and the tokens. When
the worker ends it is started again, and no app notices. After SIGHUP both are the
program that is installed by then, and no app notices either: that is an upgrade.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Getuid() == 0 {
				return s.open(cmd.Context(), h)
			}
			a, err := agent.New(agent.Config{
				State: h.state, Runtime: h.runtime, TakeOver: h.takeOver, UIDBase: h.uidBase, Log: s.log(),
				Hide: []string{filepath.Dir(s.socket)}, // of a server on the same host
			})
			if err != nil {
				return err
			}
			s.tellProof(a)
			return a.Run(cmd.Context())
		},
	}
	cmd.PersistentFlags().StringVar(&h.state, "state", "/var/lib/innate/agent", "`folder` of the host's key and certificate; beside it is the opener's, with -opener at its end")
	cmd.Flags().BoolVar(&h.takeOver, "take-over-imds", false, "let VMs be met in the host's own network, as the host itself, at devices or at bridge ports: 169.254.169.254 is then ours there, and a cloud's own metadata service is hidden")
	cmd.Flags().Uint32Var(&h.uidBase, "uid-base", opener.DefaultUIDBase, "the worker has this uid, and apps get the 100 million above it; nobody else may give them away")
	cmd.Flags().StringSliceVar(&h.lend, "lend-user", nil, "`user` of this host under whom root may run apps ('innate run --user'); may be given again")
	cmd.Flags().StringVar(&h.runtime, "runtime", "/run/innate/run", "`folder` of the agent's socket")
	cmd.Flags().StringVar(&h.tpm, "tpm-device", tpm.DefaultDevice, "`path` of the TPM that the host joined by, if it did")
	cmd.AddCommand(s.joinCommand(&h.state), s.tpmCommand(), s.agentStatusCommand(), s.workerCommand(&h.state))
	return cmd
}

// tellProof says on standard error how surely callers are recognised.
func (s *session) tellProof(a *agent.Agent) {
	fmt.Fprintf(s.diagnostics, "innate agent: callers are proved by %s\n", a.Assurance())
}
