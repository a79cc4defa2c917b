// Command innate is the platform in one binary, a file per role: quickstart and
// dev for a laptop or CI, server and agent for production, run and attach on a
// host, and the administrators' commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	var code exitCode
	if errors.As(err, &code) {
		os.Exit(int(code))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "innate:", err)
		os.Exit(1)
	}
}

// An exitCode ends the program without a word: the program that it stands for has spoken.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit status %d", int(c)) }

// run is the program with everything that it touches of the process passed in.
func run(ctx context.Context, args []string, in io.Reader, out, diagnostics io.Writer) error {
	root := newRoot(&session{in: in, out: out, diagnostics: diagnostics})
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(diagnostics)
	return root.ExecuteContext(ctx)
}
