package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"innate/admin"
)

func (v *vaultSecrets) diff() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "diff NAME [OLD [NEW]]", Short: "Say how two versions differ, without showing a value",
		Long: `Say how two versions of a secret differ, without showing a value: how long each
is and whether they are the same, and what stands beside them. By default the
latest version is compared with the one before it; with OLD, with that one.
With --file, the latest value or OLD's is compared with a file's.

The exit code is 0 when nothing differs and 1 when something does.`,
		Example: "  innate secret diff db-password --vault kv1\n  innate secret diff tls-key --vault kv1 --file /etc/ssl/key.pem",
		Args:    cobra.RangeArgs(1, 3),
		RunE: v.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			if file != "" {
				return v.diffFile(cmd, c, args, file)
			}
			return v.diffVersions(cmd, c, args)
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "compare with the value in a `file`")
	return cmd
}

// A difference is what one thing about a secret was, and is. Of a value it says
// the length alone.
type difference struct {
	What string `json:"what"`
	Old  string `json:"old"`
	New  string `json:"new"`
}

func (v *vaultSecrets) diffVersions(cmd *cobra.Command, c *admin.Client, args []string) error {
	name, versions := args[0], args[1:]
	if len(versions) == 0 {
		all, err := v.pages(cmd, c, secretPath(name)+"/versions")
		if err != nil {
			return err
		}
		if len(all) < 2 {
			return fmt.Errorf("%s has one version, and nothing to compare it with", name)
		}
		_, before := all[len(all)-2].named()
		versions = []string{before}
	}
	old, err := v.read(cmd, c, name, versions[0])
	if err != nil {
		return err
	}
	newer := ""
	if len(versions) == 2 {
		newer = versions[1]
	}
	now, err := v.read(cmd, c, name, newer)
	if err != nil {
		return err
	}
	return v.sayDifferences(differences(old, now))
}

func (v *vaultSecrets) diffFile(cmd *cobra.Command, c *admin.Client, args []string, file string) error {
	if len(args) > 2 {
		return fmt.Errorf("%d versions and a file: want one version at most", len(args)-1)
	}
	old, err := v.read(cmd, c, args[0], strings.Join(args[1:], ""))
	if err != nil {
		return err
	}
	value, err := v.value(cmd.Context(), file)
	if err != nil {
		return err
	}
	return v.sayDifferences(valueDifference(old.Value, value))
}

// sayDifferences ends as diff(1) does.
func (v *vaultSecrets) sayDifferences(all []difference) error {
	if len(all) == 0 {
		return v.say([]difference{}, "Nothing differs.")
	}
	var rows [][]string
	for _, d := range all {
		rows = append(rows, []string{d.What, d.Old, d.New})
	}
	if err := v.print(all, "WHAT OLD NEW", rows); err != nil {
		return err
	}
	return exitCode(1)
}

// differences are those of two versions but when they were made.
func differences(old, now secretBundle) []difference {
	all := valueDifference(old.Value, now.Value)
	add := func(what, old, now string) {
		if old != now {
			all = append(all, difference{what, old, now})
		}
	}
	add("content type", old.ContentType, now.ContentType)
	add("expires", when(old.Attributes.Expires), when(now.Attributes.Expires))
	names := maps.Clone(old.Tags)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, now.Tags)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add("tag "+name, old.Tags[name], now.Tags[name])
	}
	return all
}

func valueDifference(old, now string) []difference {
	if old == now {
		return nil
	}
	long := func(value string) string { return fmt.Sprintf("%d bytes", len(value)) }
	return []difference{{"value", long(old), long(now)}}
}
