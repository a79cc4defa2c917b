package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

// A deletedVault is one that can be recovered, as ARM shows it.
type deletedVault struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Properties struct {
		Vault    innate.ResourceID `json:"vaultId"`
		Location string            `json:"location"`
		Deleted  time.Time         `json:"deletionDate"`
		Purge    time.Time         `json:"scheduledPurgeDate"`
	} `json:"properties"`
}

func deletedVaults(ctx context.Context, c *admin.Client) (all []deletedVault, err error) {
	var page struct {
		Value []deletedVault `json:"value"`
	}
	err = c.ARM(ctx, http.MethodGet, "/subscriptions/"+c.Info.Subscription+"/providers/Microsoft.KeyVault/deletedVaults", nil, &page)
	return page.Value, err
}

func findDeletedVault(ctx context.Context, c *admin.Client, name string) (deletedVault, error) {
	all, err := deletedVaults(ctx, c)
	if err != nil {
		return deletedVault{}, err
	}
	for _, v := range all {
		if strings.EqualFold(v.Name, name) {
			return v, nil
		}
	}
	return deletedVault{}, fmt.Errorf("there is no deleted vault %q: 'innate vault deleted' lists them", name)
}

func (s *session) vaultDeleted() *cobra.Command {
	return &cobra.Command{
		Use: "deleted", Short: "List the deleted ones, which can be recovered", Args: cobra.NoArgs,
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			all, err := deletedVaults(cmd.Context(), c)
			if err != nil {
				return err
			}
			var rows [][]string
			for _, v := range all {
				rows = append(rows, []string{v.Name, stamp(v.Properties.Deleted), stamp(v.Properties.Purge)})
			}
			return s.print(all, "NAME DELETED GOES-BY-ITSELF", rows)
		}),
	}
}

func (s *session) vaultRecover() *cobra.Command {
	return &cobra.Command{
		Use: "recover NAME", Short: "Take a deletion back: the vault with every secret, without its grants", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			v, err := findDeletedVault(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			mode := map[string]any{"properties": map[string]string{"createMode": "recover"}}
			if err := c.ARM(cmd.Context(), http.MethodPut, string(v.Properties.Vault), mode, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"id": v.Properties.Vault, "recovered": true},
				"%s is back with every secret. Roles at it went with it: grant them again.", v.Name)
		}),
	}
}

func (s *session) vaultPurge() *cobra.Command {
	return &cobra.Command{
		Use: "purge NAME", Short: "Delete a deleted one for good, with every secret in it", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			v, err := findDeletedVault(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, v.ID+"/purge", nil, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"name": v.Name, "purged": true}, "%s is gone for good.", v.Name)
		}),
	}
}
