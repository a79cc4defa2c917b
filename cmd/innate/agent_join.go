package main

import (
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"innate/agent"
	"innate/agent/tpm"
)

// joinCommand makes this host a machine of the platform; state is where its agent will look.
func (s *session) joinCommand(state *string) *cobra.Command {
	var byTPM bool
	var device string
	cmd := &cobra.Command{
		Use: "join", Short: "Join this host with the line that the server printed, read from standard input", Args: cobra.NoArgs,
		Long: `Makes this host a machine of the platform, once. The line says where the server
is and by which authority to recognise it. With --tpm the host's key is made in
its TPM, which proves which host it is and renews the certificates from then on.`,
		Example: `  innate host add node-1 -g hosts | ssh node-1 innate agent join
  innate host allow node-1 -g hosts --ek $(ssh node-1 innate agent tpm) | ssh node-1 innate agent join --tpm`,
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := io.ReadAll(io.LimitReader(s.in, 4096))
			if err != nil {
				return err
			}
			line := strings.TrimSpace(string(b))
			if line == "" {
				return errors.New("nothing came on standard input: want the line that 'innate host add NAME' or 'innate host allow NAME' printed")
			}
			if byTPM {
				err = agent.JoinTPM(cmd.Context(), *state, line, device)
			} else {
				err = agent.Join(cmd.Context(), *state, line)
			}
			if err != nil {
				return err
			}
			return s.say(map[string]string{"state": *state}, "Joined. Start it with: innate agent --state %s", *state)
		},
	}
	cmd.Flags().BoolVar(&byTPM, "tpm", false, "prove by the TPM which host this is")
	deviceFlag(cmd, &device)
	return cmd
}

func deviceFlag(cmd *cobra.Command, device *string) {
	cmd.Flags().StringVar(device, "tpm-device", tpm.DefaultDevice, "`path` of the TPM, or the unix socket of an emulator")
}

// tpmCommand prints what an operator allows this host by.
func (s *session) tpmCommand() *cobra.Command {
	var device string
	cmd := &cobra.Command{
		Use: "tpm", Short: "Print the hash of this host's TPM, for 'innate host allow --ek'", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			chip, err := tpm.Find(device)
			if err != nil {
				return err
			}
			e, err := chip.Endorsement()
			if err != nil {
				return err
			}
			return s.say(map[string]any{"ek": e.Hash(), "certificate": e.Certificate}, "%s", e.Hash())
		},
	}
	deviceFlag(cmd, &device)
	return cmd
}
