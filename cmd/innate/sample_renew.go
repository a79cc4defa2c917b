package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// sampleRenew is a program that says of each token it gets that a resource would
// not take it, and so has the next one fetched: what is made from tokens gets to
// see many of them. It ends with its standard input.
func (s *session) sampleRenew() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use: "renew AUDIENCE", Short: "Have a token for AUDIENCE replaced again and again", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := context.WithCancel(cmd.Context())
			go func() {
				defer stop()
				for in := bufio.NewScanner(s.in); in.Scan(); {
				}
			}()
			seen := map[string]bool{}
			pace := time.NewTicker(every)
			defer pace.Stop()
			for last := ""; ; {
				token, err := renewed(ctx, args[0], last)
				switch {
				case ctx.Err() != nil:
					fmt.Fprintf(s.out, "%d tokens\n", len(seen))
					return nil
				case err != nil:
					return err
				case token == last:
					return errors.New("a token that was refused came again")
				}
				seen[token], last = true, token
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		},
	}
	cmd.Flags().DurationVar(&every, "every", 10*time.Millisecond, "how often")
	return cmd
}

// renewed asks the app's endpoint for a token other than the one that was refused.
func renewed(ctx context.Context, audience, refused string) (string, error) {
	q := url.Values{"api-version": {"2019-08-01"}, "resource": {audience}}
	if refused != "" {
		q.Set("token_sha256_to_refresh", fmt.Sprintf("%x", sha256.Sum256([]byte(refused))))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, os.Getenv("IDENTITY_ENDPOINT")+"?"+q.Encode(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	token, _, err := answerOf(req)
	return token, err
}
