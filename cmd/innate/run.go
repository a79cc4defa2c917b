package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"innate/agent"
	"innate/agent/appservice"
	"innate/agent/launch"
)

// runCommand starts any program as an app.
func (s *session) runCommand() *cobra.Command {
	var app, endpoint, socket string
	var machine bool
	cmd := &cobra.Command{
		Use: "run --app NAME -- PROGRAM [ARGUMENT]...", Short: "Run a program as an app, with the app's identity",
		Long: `Runs a program, unmodified, as an app that is placed on this host: in a cgroup of
its own, under the app's uid where the agent is root, with the endpoint and its
secret in the environment. Who may: root, and the uids that the app lists.

With --machine the program has the identity of this machine itself, under a uid
of its own. Who may: root.

--endpoint says where the program looks for its identity. It is given the
variables of that one alone; those of another it may have inherited are removed.

  appservice     IDENTITY_ENDPOINT, IDENTITY_HEADER, MSI_ENDPOINT, MSI_SECRET:
                 every SDK knows them (default with --app)
  servicefabric  IDENTITY_ENDPOINT (https), IDENTITY_HEADER and
                 IDENTITY_SERVER_THUMBPRINT. SDKs for Node do not look at the
                 thumbprint and refuse the certificate
  azureml        MSI_ENDPOINT, MSI_SECRET, DEFAULT_IDENTITY_CLIENT_ID
  arc            IDENTITY_ENDPOINT, IMDS_ENDPOINT: no secret in the environment;
                 each request is proved by a file that only the program may read,
                 once, in /var/opt/azcmagent/tokens as it alone sees it (default
                 with --machine)`,
		Example: `  innate run --app api -- node server.js
  innate run --app api --endpoint arc -- ./server
  innate run --machine -- ./backup`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			if machine {
				st, err := agent.ReadStatus(socket)
				if err != nil {
					return err
				}
				app = string(st.Machine)
			}
			signals := make(chan os.Signal, 8)
			signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
			defer signal.Stop(signals)
			status, err := agent.Run(socket, agent.RunRequest{
				App: app, Endpoint: appservice.Shape(endpoint), Args: args, Dir: dir, Env: os.Environ(),
				Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
			})
			if err != nil {
				return err
			}
			if status != 0 {
				return exitCode(status)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "`name` or id of the app")
	cmd.Flags().BoolVar(&machine, "machine", false, "run it with the identity of this machine")
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "`shape` of the endpoint: appservice, servicefabric, azureml or arc")
	cmd.Flags().StringVar(&socket, "agent", defaultAgentSocket(), "the agent's `socket` (INNATE_AGENT_SOCKET)")
	cmd.MarkFlagsOneRequired("app", "machine")
	cmd.MarkFlagsMutuallyExclusive("app", "machine")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// launchCommand is the first thing that a new app's process runs; see package launch.
func launchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "launch", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return fmt.Errorf("launch: %w", launch.Main()) },
	}
}
