package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"innate/admin"
	"innate/rest"
)

// A secretChange is a line of 'secret watch --output json'.
type secretChange struct {
	Revision uint64 `json:"revision"`
	Change   string `json:"change"` // set, updated, deleted, recovered or purged
	Name     string `json:"name"`
	Version  string `json:"version,omitempty"`
}

func (v *vaultSecrets) watch() *cobra.Command {
	var since uint64
	cmd := &cobra.Command{
		Use: "watch [NAME]", Short: "Print what changes as it changes, until interrupted",
		Long: `Print what happens to the secrets of a vault, or to one of them, as it happens:
set, updated, deleted, recovered or purged, the name and the version, never a
value. With --output json each is an object on a line of its own.

Nothing is missed while the server restarts; with --since, nothing since the
revision of a line that was printed before.`,
		Args: cobra.MaximumNArgs(1),
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			path := "/changes"
			for _, name := range args {
				path += "/" + url.PathEscape(name)
			}
			err := v.follow(cmd, c, path, since)
			switch {
			case cmd.Context().Err() != nil:
				return nil // it was to end so
			case code(err) == "HistoryGone":
				return errors.New("what changed after that revision is not known here any more: look with 'innate secret list', and watch without --since")
			}
			return err
		}),
	}
	cmd.Flags().Uint64Var(&since, "since", 0, "`revision` to go on from")
	return cmd
}

// follow prints changes until the context ends or the vault refuses.
func (v *vaultSecrets) follow(cmd *cobra.Command, c *admin.Client, path string, since uint64) error {
	answer, err := v.changes(cmd, c, path, since)
	if err != nil {
		return err
	}
	if since == 0 {
		fmt.Fprintf(v.diagnostics, "Watching %s from revision %d.\n", v.vault, answer.Revision)
	}
	for away := false; ; {
		if err == nil {
			away, since = false, answer.Revision
			if err := v.printChanges(answer.Changes); err != nil {
				return err
			}
		} else {
			if !passing(err) {
				return err
			}
			if !away {
				fmt.Fprintf(v.diagnostics, "innate: %v: trying again\n", err)
			}
			away = true
			if err := pause(cmd.Context(), time.Second); err != nil {
				return err
			}
		}
		answer, err = v.changes(cmd, c, path, since)
	}
}

type secretChanges struct {
	Revision uint64         `json:"revision"`
	Changes  []secretChange `json:"changes"`
}

func (v *vaultSecrets) changes(cmd *cobra.Command, c *admin.Client, path string, since uint64) (answer secretChanges, err error) {
	if since > 0 {
		path += "?since=" + strconv.FormatUint(since, 10)
	}
	err = v.ask(cmd, c, http.MethodGet, path, nil, &answer)
	return answer, err
}

func (v *vaultSecrets) printChanges(all []secretChange) error {
	for _, one := range all {
		var err error
		if v.output == "json" {
			err = json.NewEncoder(v.out).Encode(one)
		} else {
			_, err = fmt.Fprintf(v.out, "%-9s %s %s\n", one.Change, one.Name, one.Version)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// passing reports whether what failed may be well in a moment: anything but a refusal.
func passing(err error) bool {
	var e *rest.Error
	return !errors.As(err, &e) || e.Status >= http.StatusInternalServerError ||
		e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
