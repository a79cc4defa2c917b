package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"innate/platform"
)

// quickstartCommand shows the whole flow, on real code, and leaves it running.
func (s *session) quickstartCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "quickstart", Short: "See a program with no password read a secret, station by station", Args: cobra.NoArgs,
		Long: `Starts a control plane and an agent in one process, on a temporary store, and
tells what happens from "turn identity on" to "delete the app". Nothing is
simulated: the app is a process of its own with the vendor's unmodified SDKs.

It touches nothing outside its temporary folder but, as root, a cgroup subtree
and a network namespace of its own, which go with it.

With --output json the tour goes to standard error, and its timings to standard
output.`,
		RunE: func(cmd *cobra.Command, args []string) error { return s.quickstart(cmd.Context(), once) },
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the last station; 0 only if every one did what it said")
	return cmd
}

func (s *session) quickstart(ctx context.Context, once bool) error {
	begin := time.Now()
	dir, err := temporary("innate-quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stub, err := publicCopy(dir)
	if err != nil {
		return err
	}
	p, err := platform.Open(ctx, platform.Config{Dir: filepath.Join(dir, "platform"), Stub: []string{stub, "launch"}, Log: s.log()})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Run(ctx) })
	g.Go(func() error {
		defer stop()
		select {
		case <-p.Ready():
		case <-ctx.Done():
			return nil
		}
		t := &tour{out: s.out, platform: p, program: stub, begin: begin}
		if s.output == "json" {
			t.out = s.diagnostics
		}
		if err := t.walk(ctx); err != nil {
			return err
		}
		if s.output == "json" {
			if err := s.print(t.summary(), "", nil); err != nil {
				return err
			}
		}
		if once {
			return nil
		}
		t.invite()
		<-ctx.Done()
		return nil
	})
	return g.Wait()
}

// temporary makes a folder that others may pass through but not list, after
// removing what a quickstart that was killed left behind. The name carries the
// pid of its owner.
func temporary(prefix string) (string, error) {
	left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		if pid, err := strconv.Atoi(owner); err == nil && gone(pid) {
			os.RemoveAll(dir) // somebody else's stays: we may not
		}
	}
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// gone reports whether no process has that pid.
func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// publicCopy puts this program where every uid may start it: 'go run' builds in
// a folder that only its user may enter, and apps have a uid of their own.
func publicCopy(dir string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	to := filepath.Join(dir, "innate")
	in, err := os.Open(self)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return "", err
	}
	if err := out.Chmod(0o755); err != nil {
		out.Close()
		return "", err
	}
	return to, out.Close()
}
