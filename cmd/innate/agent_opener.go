package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"

	"innate/agent"
	"innate/agent/opener"
)

// open is the agent when root runs it: the opener, which keeps a worker running.
func (s *session) open(ctx context.Context, h hosting) error {
	asked := make(chan os.Signal, 1)
	defer signal.Stop(asked)
	listen := func() {
		signal.Notify(asked, opener.Restart)
		if opener.Managed() {
			signal.Notify(asked, opener.Leave)
		}
	}
	listen()
	records := filepath.Clean(h.state) + "-opener"
	if err := os.MkdirAll(records, 0o700); err != nil {
		return err
	}
	if err := opener.HandOver(h.state, records, h.uidBase, s.log()); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("this host has not joined (no %s): join it with the line that 'innate host add NAME' prints", h.state)
	} else if err != nil {
		return err
	}
	o, err := opener.Open(opener.Config{
		Runtime: h.runtime, Records: records, Held: filepath.Join(h.runtime, "held"), UIDBase: h.uidBase,
		Lend: h.lend, TakeOver: h.takeOver, TPM: h.tpm, Log: s.log(),
		Hide: []string{filepath.Dir(s.socket)}, // of a server on the same host
	})
	if err != nil {
		return err
	}
	folder, err := o.WorkerFolder(h.uidBase)
	if err != nil {
		return err
	}
	worker := opener.Worker{
		Args: []string{"/proc/self/exe", "agent", "worker", "--state", h.state, "--runtime", folder, fmt.Sprintf("--verbose=%t", s.verbose)},
		Env:  os.Environ(), UID: h.uidBase, Groups: []uint32{h.uidBase}, Output: os.Stderr,
	}
	for {
		err := o.Run(ctx, worker, asked)
		switch {
		case errors.Is(err, opener.ErrLeft):
			return nil
		case !errors.Is(err, opener.ErrRestart):
			return err
		}
		// Until the next program listens, a Restart would be its end, and is not needed:
		// one is under way. A Leave may end it, for what is held is kept.
		signal.Ignore(opener.Restart)
		signal.Reset(opener.Leave)
		select {
		case sig := <-asked:
			if sig == opener.Leave {
				return nil
			}
		default:
		}
		if ctx.Err() == nil {
			program, err := os.Executable()
			if err == nil {
				err = o.Exec(append([]string{program}, os.Args[1:]...), os.Environ())
			}
			s.log().Error("becoming the program that is installed now; this one goes on", "err", err)
		}
		listen()
	}
}

// workerCommand is the other half, which the opener starts.
func (s *session) workerCommand(state *string) *cobra.Command {
	var runtime string
	cmd := &cobra.Command{
		Use: "worker", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := opener.Connect(os.Stdin)
			if err != nil {
				return err
			}
			a, err := agent.New(agent.Config{
				State: *state, Runtime: runtime, Log: s.log(), Opener: o,
				Leave: cmd.Context().Done(), // SIGTERM: what runs goes on
			})
			if err != nil {
				return err
			}
			s.tellProof(a)
			ctx, end := context.WithCancel(context.WithoutCancel(cmd.Context()))
			defer end()
			go func() {
				select {
				case <-o.End():
					end()
				case <-o.Gone():
					fmt.Fprintln(s.diagnostics, "innate agent: the opener is gone; the worker ends with it")
					os.Exit(1) // nothing is served on what it held
				}
			}()
			return a.Run(ctx)
		},
	}
	cmd.Flags().StringVar(&runtime, "runtime", "", "the worker's own folder")
	return cmd
}
