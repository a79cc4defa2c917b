package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
)

// A hostStatus is what the server knows of a joined machine.
type hostStatus struct {
	Joined     bool      `json:"joined"`
	Thumbprint string    `json:"thumbprint,omitempty"`
	NotAfter   time.Time `json:"notAfter,omitzero"`
	LastSeen   time.Time `json:"lastSeen,omitzero"`
	Placements []struct {
		Resource   innate.ResourceID `json:"resource"`
		Identities []struct {
			Object     innate.ObjectID `json:"object"`
			Thumbprint string          `json:"thumbprint,omitempty"`
			NotAfter   time.Time       `json:"notAfter,omitzero"`
		} `json:"identities"`
	} `json:"placements"`
}

func (s *session) hostCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "host", Short: "Machines that run the agent"}
	var p placing
	add := &cobra.Command{
		Use: "add NAME", Short: "Make a machine and print the line that joins it, once; also to join it again", Args: cobra.ExactArgs(1),
		Example: "  innate host add node-1 -g hosts | ssh node-1 innate agent join",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			ctx := cmd.Context()
			if err := ensureGroup(ctx, c, p.group); err != nil {
				return err
			}
			id := c.Group(p.group) + innate.ResourceID("/providers/"+typeMachine+"/"+args[0])
			if err := c.ARM(ctx, http.MethodPut, string(id), map[string]any{
				"location": "local", "identity": map[string]string{"type": "SystemAssigned"},
			}, nil); err != nil {
				return err
			}
			var ticket struct {
				Join string `json:"join"`
			}
			if err := c.ARM(ctx, http.MethodPost, string(id)+"/join", nil, &ticket); err != nil {
				return err
			}
			return s.say(ticket, "%s", ticket.Join)
		}),
	}
	p.flags(add, false)
	show := &cobra.Command{
		Use: "show NAME", Short: "Show what is placed on it and which certificates it holds", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := c.Resource(cmd.Context(), typeMachine, args[0])
			if err != nil {
				return err
			}
			var st hostStatus
			if err := c.ARM(cmd.Context(), http.MethodPost, string(id)+"/status", nil, &st); err != nil {
				return err
			}
			rows := [][]string{{id.Name(), "(host)", st.Thumbprint, stamp(st.NotAfter)}}
			for _, pl := range st.Placements {
				for _, i := range pl.Identities {
					rows = append(rows, []string{pl.Resource.Name(), string(i.Object), i.Thumbprint, stamp(i.NotAfter)})
				}
				if len(pl.Identities) == 0 {
					rows = append(rows, []string{pl.Resource.Name(), "", "", ""})
				}
			}
			return s.print(st, "RESOURCE IDENTITY CERTIFICATE UNTIL", rows)
		}),
	}
	evict := &cobra.Command{
		Use: "evict NAME", Short: "Shut a machine out: its certificates and every token issued on it end now", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := c.Resource(cmd.Context(), typeMachine, args[0])
			if err != nil {
				return err
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, string(id)+"/evict", nil, nil); err != nil {
				return err
			}
			return s.say(map[string]any{"evicted": id}, "%s is shut out. 'innate host add %s' lets it join again.", args[0], args[0])
		}),
	}
	cmd.AddCommand(add, s.listCommand(typeMachine), show, evict, s.deleteCommand(typeMachine, "its identity and what it was trusted with"))
	return cmd
}

// stamp is a time for a table, or nothing.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
