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
	ByTPM      bool      `json:"byTpm,omitempty"`
	EK         string    `json:"ek,omitempty"`
	Thumbprint string    `json:"thumbprint,omitempty"`
	NotAfter   time.Time `json:"notAfter,omitzero"`
	LastSeen   time.Time `json:"lastSeen,omitzero"`
	Evicted    time.Time `json:"evicted,omitzero"`
	Placements []struct {
		Resource   innate.ResourceID `json:"resource"`
		Identities []struct {
			Object     innate.ObjectID `json:"object"`
			Thumbprint string          `json:"thumbprint,omitempty"`
			NotAfter   time.Time       `json:"notAfter,omitzero"`
		} `json:"identities"`
	} `json:"placements"`
}

// state is that of the machine in a word or two.
func (st hostStatus) state() string {
	switch {
	case !st.Evicted.IsZero():
		return "evicted " + stamp(st.Evicted)
	case st.ByTPM:
		return "joined by TPM"
	case st.Joined:
		return "joined"
	case st.EK != "":
		return "allowed"
	}
	return "not joined"
}

func (s *session) hostCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "host", Short: "Machines that run the agent"}
	cmd.AddCommand(s.addHostCommand(), s.allowCommand(), s.disallowCommand(), s.listCommand(typeMachine), s.showHostCommand(),
		s.evictCommand(), s.deleteCommand(typeMachine, "its identity and what it was trusted with"))
	return cmd
}

// makeMachine makes the resource of a machine, and its group when there is none.
func makeMachine(cmd *cobra.Command, c *admin.Client, group, name string) (innate.ResourceID, error) {
	ctx := cmd.Context()
	if err := ensureGroup(ctx, c, group); err != nil {
		return "", err
	}
	id := c.Group(group) + innate.ResourceID("/providers/"+typeMachine+"/"+name)
	return id, c.ARM(ctx, http.MethodPut, string(id), map[string]any{
		"location": "local", "identity": map[string]string{"type": "SystemAssigned"},
	}, nil)
}

func (s *session) addHostCommand() *cobra.Command {
	var p placing
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make a machine and print the line that joins it, once; also to join it again", Args: cobra.ExactArgs(1),
		Example: "  innate host add node-1 -g hosts | ssh node-1 innate agent join",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := makeMachine(cmd, c, p.group, args[0])
			if err != nil {
				return err
			}
			var ticket struct {
				Join string `json:"join"`
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, string(id)+"/join", nil, &ticket); err != nil {
				return err
			}
			return s.say(ticket, "%s", ticket.Join)
		}),
	}
	p.flags(cmd, false)
	return cmd
}

func (s *session) allowCommand() *cobra.Command {
	var p placing
	var ek string
	cmd := &cobra.Command{
		Use: "allow NAME --ek HASH", Short: "Make a machine that only one TPM may join as, and print the line for it", Args: cobra.ExactArgs(1),
		Long: `Makes a machine that only the host with one TPM may join as, without a one-time
token: the line that is printed holds no secret. HASH is what 'innate agent tpm'
prints there: the SHA-256 of the TPM's endorsement key (RSA 2048, public, DER),
which a vendor's delivery note may have too. Lets an evicted one in again.`,
		Example: "  innate host allow node-1 -g hosts --ek $(ssh node-1 innate agent tpm) | ssh node-1 innate agent join --tpm",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := makeMachine(cmd, c, p.group, args[0])
			if err != nil {
				return err
			}
			var allowed struct {
				Join string `json:"join"`
				EK   string `json:"ek"`
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, string(id)+"/allow", map[string]string{"ek": ek}, &allowed); err != nil {
				return err
			}
			return s.say(allowed, "%s", allowed.Join)
		}),
	}
	p.flags(cmd, false)
	cmd.Flags().StringVar(&ek, "ek", "", "`hash` of the TPM's endorsement key")
	cmd.MarkFlagRequired("ek")
	return cmd
}

func (s *session) disallowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "disallow NAME", Short: "Part a machine from its TPM; if it joined by it, its certificates end now", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := c.Resource(cmd.Context(), typeMachine, args[0])
			if err != nil {
				return err
			}
			var was struct {
				EK string `json:"ek"`
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, string(id)+"/disallow", nil, &was); err != nil {
				return err
			}
			return s.say(was, "%s is the TPM %s no longer.", args[0], was.EK)
		}),
	}
}

func (s *session) showHostCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show how it joined, what is placed on it and which certificates it holds", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := c.Resource(cmd.Context(), typeMachine, args[0])
			if err != nil {
				return err
			}
			var st hostStatus
			if err := c.ARM(cmd.Context(), http.MethodPost, string(id)+"/status", nil, &st); err != nil {
				return err
			}
			rows := [][]string{{id.Name(), "(" + st.state() + ")", st.Thumbprint, stamp(st.NotAfter)}}
			if st.EK != "" {
				rows = append(rows, []string{id.Name(), "(TPM)", st.EK, ""})
			}
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
}

func (s *session) evictCommand() *cobra.Command {
	return &cobra.Command{
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
}

// stamp is a time for a table, or nothing.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
