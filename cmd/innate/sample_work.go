package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

const warm = 50 // calls after which the sample service says that it is well

// sampleWork is a service: it listens where PORT says, is well at /health once
// it is warm, gets tokens one after the other until it is asked to end, and then
// says how that went.
func (s *session) sampleWork(credential func() (azcore.TokenCredential, error)) *cobra.Command {
	return &cobra.Command{
		Use: "work AUDIENCE COUNT", Short: "Serve, and get tokens for AUDIENCE0, AUDIENCE1 and so on to COUNT, again and again", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			count, err := strconv.Atoi(args[1])
			if err != nil {
				return err
			}
			cred, err := credential()
			if err != nil {
				return err
			}
			l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
			if err != nil {
				return err
			}
			begun := make(chan struct{})
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-begun:
				default:
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			})}
			g, ctx := errgroup.WithContext(cmd.Context())
			context.AfterFunc(ctx, func() { server.Close() })
			g.Go(func() error {
				server.Serve(l) // until it is closed
				return nil
			})
			g.Go(func() error { return s.work(ctx, cred, args[0], count, begun) })
			return g.Wait()
		},
	}
}

// work gets tokens until ctx ends. A call that has begun is not cut off.
func (s *session) work(ctx context.Context, cred azcore.TokenCredential, audience string, count int, begun chan<- struct{}) error {
	calls, failed := 0, 0
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for ; ctx.Err() == nil; calls++ {
		scope := fmt.Sprintf("%s%d/.default", audience, calls%count)
		if _, err := cred.GetToken(context.WithoutCancel(ctx), policy.TokenRequestOptions{Scopes: []string{scope}}); err != nil {
			failed++
			fmt.Fprintf(s.diagnostics, "call %d: %v\n", calls, err)
		}
		if calls == warm {
			close(begun)
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
	fmt.Fprintf(s.out, "%d calls, %d failed\n", calls, failed)
	return nil
}
