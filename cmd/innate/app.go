package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
	"innate/agent"
)

// appCommand is what an app is on the platform, and what runs of it on this host.
func (s *session) appCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "app", Short: "Web apps, functions and APIs"}
	cmd.AddGroup(
		&cobra.Group{ID: "platform", Title: "On the platform, for administrators:"},
		&cobra.Group{ID: "host", Title: "On this host, for root and the users that the app lists:"},
	)
	in := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	in("platform", s.appCreate(), s.settingsCommand(), s.listCommand(typeSite), s.showCommand(typeSite), s.switchCommand(typeSite),
		s.deleteCommand(typeSite, "its identity, its grants and its endpoint"))
	in("host", s.appPS(), s.appLogs(), s.appEnv(), s.appRotate(), s.appStop())
	return cmd
}

func (s *session) appCreate() *cobra.Command {
	var p placing
	var host, kind, check string
	var runAs, consoleFor []int
	var age time.Duration
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make one", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			machine, err := machineOf(ctx, c, host)
			if err != nil {
				return err
			}
			plan, err := ensurePlan(ctx, c, p.group, machine)
			if err != nil {
				return err
			}
			props := map[string]any{"serverFarmId": plan}
			if len(runAs) > 0 {
				props["runAs"] = runAs
			}
			if len(consoleFor) > 0 {
				props["consoleFor"] = consoleFor
			}
			if check != "" {
				props["siteConfig"] = map[string]string{"healthCheckPath": check}
			}
			if cmd.Flags().Changed("max-generation-age") {
				props["maxGenerationAge"] = fmt.Sprintf("PT%dS", age/time.Second)
			}
			return s.create(ctx, c, p, typeSite, args[0], map[string]any{"kind": kind, "properties": props})
		}),
	}
	p.flags(cmd, true)
	f := cmd.Flags()
	f.StringVar(&host, "host", "", "`machine` that it is placed on; not needed where there is one")
	f.StringVar(&kind, "kind", "app", "app, functionapp or api")
	f.IntSliceVar(&runAs, "run-as", nil, "`uids` that may run as the app, beside root")
	f.IntSliceVar(&consoleFor, "console-for", nil, "`uids` that may look into the running app ('innate exec', 'innate app env'), beside root")
	f.StringVar(&check, "health-check-path", "", "`path` that answers with 2xx when the app is well, at the port that PORT names")
	f.DurationVar(&age, "max-generation-age", 0, "replace its processes when they are this old, such as 8h, which is usual with a health check; 0 means never")
	return cmd
}

// called is what this host's agent knows a workload by: an app by its name, and
// the machine itself by its id, which is no app's.
func called(workload innate.ResourceID) string {
	if workload.Is(typeSite) {
		return workload.Name()
	}
	return string(workload)
}

func (s *session) appPS() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: "ps", Short: "List what runs as an app on this host", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			all, err := agent.ReadRunning(socket)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, r := range all {
				serves := ""
				if r.Serves != 0 {
					serves = strconv.Itoa(r.Serves)
				}
				processes := ""
				if r.Processes != 0 {
					processes = strconv.Itoa(r.Processes)
				}
				pid := ""
				if r.PID != 0 {
					pid = strconv.Itoa(r.PID)
				}
				rows = append(rows, []string{
					called(r.App), strconv.Itoa(r.Generation), r.State, pid, processes, strconv.Itoa(int(r.UID)),
					time.Since(r.Created).Truncate(time.Second).String(), r.Assurance.String(), strconv.Itoa(r.Port), serves, r.Unit,
				})
			}
			return s.print(all, "APP GENERATION STATE PID PROCESSES UID AGE ASSURANCE ENDPOINT SERVES UNIT", rows)
		},
	}
	agentFlag(cmd, &socket)
	return cmd
}

func (s *session) appLogs() *cobra.Command {
	var socket string
	var follow bool
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Show what it wrote since it runs detached, as much as is kept", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return agent.Logs(cmd.Context(), socket, args[0], follow, s.out)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what it writes from now on")
	agentFlag(cmd, &socket)
	return cmd
}

func (s *session) appEnv() *cobra.Command {
	var socket string
	var generation int
	cmd := &cobra.Command{
		Use: "env NAME", Short: "Show the variables of its process, with secrets masked", Args: cobra.ExactArgs(1),
		Long: `Shows the variables that the app's process was started with. The secret of its
endpoint is masked wherever it stands, and so are passwords in addresses and all
that has a name like a secret's. Who may: root, and the uids in the app's
consoleFor. It is recorded who looked.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			env, err := agent.ReadVariables(socket, args[0], generation)
			if err != nil {
				return err
			}
			values, rows := map[string]string{}, [][]string{}
			for _, v := range env {
				name, value, _ := strings.Cut(v, "=")
				values[name] = value
				rows = append(rows, []string{name, value})
			}
			return s.print(values, "VARIABLE VALUE", rows)
		},
	}
	generationFlag(cmd, &generation, "the oldest")
	agentFlag(cmd, &socket)
	return cmd
}

func (s *session) appRotate() *cobra.Command {
	var socket string
	var generation int
	var now bool
	cmd := &cobra.Command{
		Use: "rotate NAME", Short: "Put a new process with a new secret in the place of one that runs", Args: cobra.ExactArgs(1),
		Long: `Starts a new generation of the app beside the one that runs, waits until it is
well, then asks the old one to end and ends it after a grace. Nothing that the
old one was given works any more then. A new one that does not get well is
ended, and the old one goes on.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := agent.Rotate(socket, args[0], generation, now); err != nil {
				return err
			}
			return s.say(map[string]string{"app": args[0]}, "%s was rotated.", args[0])
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "an emergency: the old one is killed, without a grace, as soon as the new one is well")
	generationFlag(cmd, &generation, "all, one after the other")
	agentFlag(cmd, &socket)
	return cmd
}

func (s *session) appStop() *cobra.Command {
	var socket string
	var generation int
	var now bool
	cmd := &cobra.Command{
		Use: "stop NAME", Short: "End what runs of it; it is not started again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := agent.End(socket, args[0], generation, now); err != nil {
				return err
			}
			return s.say(map[string]string{"app": args[0]}, "%s has ended.", args[0])
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "kill it, without a grace")
	generationFlag(cmd, &generation, "all")
	agentFlag(cmd, &socket)
	return cmd
}

func generationFlag(cmd *cobra.Command, generation *int, none string) {
	cmd.Flags().IntVar(generation, "generation", 0, "`number` of one, as 'innate app ps' shows it; without it "+none)
}

// execCommand opens a console in an app's surroundings.
func (s *session) execCommand() *cobra.Command {
	var app, socket string
	var generation int
	cmd := &cobra.Command{
		Use: "exec --app NAME -- PROGRAM [ARGUMENT]...", Short: "Run a program inside a running app's surroundings",
		Long: `Runs a program beside a running app: in its cgroup and network, under its uid,
with its files and its very variables, so that it is the app to its endpoint. It
ends with the app at the latest. Who may: root, and the uids in the app's
consoleFor. It is recorded who did.`,
		Example: "  innate exec --app api -- sh\n  innate exec --app api -- innate token show",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signals := make(chan os.Signal, 8)
			signal.Notify(signals, passedOn...)
			defer signal.Stop(signals)
			status, err := agent.Exec(socket, agent.ConsoleRequest{
				App: app, Generation: generation, Args: args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
			})
			if err == nil && status != 0 {
				err = exitCode(status)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&app, "app", "", "`name` or id of the app")
	generationFlag(cmd, &generation, "the oldest")
	agentFlag(cmd, &socket)
	cmd.MarkFlagRequired("app")
	cmd.Flags().SetInterspersed(false)
	return cmd
}
