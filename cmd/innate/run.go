package main

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"innate"
	"innate/agent"
	"innate/agent/appservice"
	"innate/agent/launch"
)

// running are the flags of 'innate run'.
type running struct {
	request  agent.RunRequest
	machine  bool // instead of an app
	endpoint string
	socket   string
	restart  string
	replicas int
	check    string
}

const mostReplicas = 16 // connections of ours to the agent at a time; it allows a user 32

// runCommand starts any program as an app.
func (s *session) runCommand() *cobra.Command {
	var r running
	cmd := &cobra.Command{
		Use: "run --app NAME -- PROGRAM [ARGUMENT]...", Short: "Run a program as an app, with the app's identity",
		Long: `Runs a program, unmodified, as an app that is placed on this host: in a cgroup of
its own, under the app's uid where the agent is root, with the endpoint and its
secret in the environment. Who may: root, and the uids that the app lists.

With --restart it is started again when it has ended, after a pause that gets
longer. With --detach it goes on without this command, and the agent keeps the
end of what it writes: 'innate app logs'. 'innate app rotate' puts a new process
with a new secret in its place.

With --user it runs under a user of the host instead of the app's own uid, for what
it has to do as that user; its cgroup is then what tells it from that user's other
programs. Who may: root.

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
  innate run --app api --detach --restart always --replicas 2 -- ./server
  innate run --app api --endpoint arc -- ./server
  innate run --machine -- ./backup`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.replicas < 1 || r.replicas > mostReplicas {
				return fmt.Errorf("--replicas %d: want 1 to %d; more come from another 'innate run'", r.replicas, mostReplicas)
			}
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			if r.machine {
				st, err := agent.ReadStatus(r.socket)
				if err != nil {
					return err
				}
				r.request.App = string(st.Machine)
			}
			r.request.Args, r.request.Dir, r.request.Env = args, dir, os.Environ()
			r.request.Endpoint, r.request.Restart = appservice.Shape(r.endpoint), agent.Restart(r.restart)
			if r.check != "" {
				r.request.Check = []string{"/bin/sh", "-c", r.check}
			}
			if !r.request.Detach {
				r.request.Stdin, r.request.Stdout, r.request.Stderr = os.Stdin, os.Stdout, os.Stderr
			}
			return s.runAll(r)
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.request.App, "app", "", "`name` or id of the app")
	f.BoolVar(&r.machine, "machine", false, "run it with the identity of this machine")
	f.StringVar(&r.endpoint, "endpoint", "", "`shape` of the endpoint: appservice, servicefabric, azureml or arc")
	f.StringVar(&r.restart, "restart", string(agent.RestartNo), "start it again when it has ended: no, on-failure or always")
	f.BoolVar(&r.request.Detach, "detach", false, "go on without this command; what it writes is in 'innate app logs'")
	f.IntVar(&r.replicas, "replicas", 1, "how many of it run, each with an endpoint and a secret of its own")
	f.StringVar(&r.check, "check", "", "shell `command` that ends with 0 when the program is well; without it the app's health check path is asked")
	f.BoolVar(&r.request.Isolate, "isolate-net", false, "give it a network namespace of its own: its endpoint is out of everybody's reach, and so is every network")
	f.StringVar(&r.request.User, "user", "", "`name` or uid of a user of this host to run it under, instead of the app's own uid")
	agentFlag(cmd, &r.socket)
	cmd.MarkFlagsOneRequired("app", "machine")
	cmd.MarkFlagsMutuallyExclusive("app", "machine")
	cmd.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"no", "on-failure", "always"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// agentFlag is for commands that ask the agent.
func agentFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "agent", defaultAgentSocket(), "the agent's `socket` (INNATE_AGENT_SOCKET)")
}

// passedOn are the signals of this process that are the program's.
var passedOn = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

// runAll runs the replicas; the exit code is that of the first that did not end
// well. When one cannot be run, the others are asked to end.
func (s *session) runAll(r running) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	each := make([]chan os.Signal, r.replicas)
	for n := range each {
		each[n] = make(chan os.Signal, 8)
	}
	ended := make(chan struct{})
	defer close(ended)
	go share(signals, each, ended)

	started := make(chan agent.Started, r.replicas)
	told := make(chan struct{})
	go func() {
		defer close(told)
		s.tellStarted(started, r.request.Detach)
	}()
	var all errgroup.Group
	for _, mine := range each {
		all.Go(func() error {
			q := r.request
			q.Signals, q.OnStart = mine, func(st agent.Started) { started <- st }
			status, err := agent.Run(r.socket, q)
			if err != nil {
				signals <- syscall.SIGTERM
				return err
			}
			if status != 0 {
				return exitCode(status)
			}
			return nil
		})
	}
	err := all.Wait()
	close(started)
	<-told
	return err
}

// share passes each signal to every replica that takes it, until ended.
func share(signals <-chan os.Signal, each []chan os.Signal, ended <-chan struct{}) {
	for {
		select {
		case sig := <-signals:
			for _, to := range each {
				select {
				case to <- sig:
				default: // eight wait there already
				}
			}
		case <-ended:
			return
		}
	}
}

// tellStarted says what cannot be proved, once, and what runs on by itself.
func (s *session) tellStarted(started <-chan agent.Started, detached bool) {
	warned := false
	for st := range started {
		if st.Assurance < innate.CgroupUID && !warned {
			warned = true
			fmt.Fprintf(s.diagnostics, "innate run: the callers of %s are proved by %s and no better, so %s: %s\n",
				st.App.Name(), st.Assurance, mayBe(st), strings.ReplaceAll(st.Why, "\n", "; "))
		}
		if detached {
			s.say(st, "%s runs: generation %d, process %d. What it writes: innate app logs %s", st.App.Name(), st.Generation, st.PID, called(st.App))
		}
	}
}

// mayBe says who else can be the app.
func mayBe(st agent.Started) string {
	if st.Assurance == innate.UID {
		return fmt.Sprintf("every program of uid %d is that app", st.UID)
	}
	return "every program that has its secret is that app, and those of the same user can read it"
}

// launchCommand is the first thing that a new app's process runs; see package launch.
func launchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "launch", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return fmt.Errorf("launch: %w", launch.Main()) },
	}
}
