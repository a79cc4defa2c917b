package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/agent"
	"innate/agent/unit"
	"innate/audit/ship"
)

// agentStatusCommand shows what an agent can prove, holds and runs.
func (s *session) agentStatusCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use: "status", Short: "Show what the agent of this host can prove, and whom it serves", Args: cobra.NoArgs,
		Long: `Shows the agent of this host: by what it can prove who is calling, found out by
trying when it started, each with the reason where it cannot; whom it knows; the
apps that run, the VMs that have their metadata service, and the units that are apps.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := agent.ReadStatus(socket)
			if err != nil {
				return err
			}
			told := struct {
				agent.Status
				Units map[string]innate.ResourceID `json:"units"` // those that are apps from their next start on
			}{Status: st}
			told.Units, err = unit.All()
			rows := statusRows(st)
			for _, name := range slices.Sorted(maps.Keys(told.Units)) {
				rows = append(rows, []string{"unit", name, "attached", "the app " + told.Units[name].Name()})
			}
			return errors.Join(s.print(told, "WHAT WHICH STATE NOTE", rows), err)
		},
	}
	cmd.Flags().StringVar(&socket, "agent", defaultAgentSocket(), "the agent's `socket` (INNATE_AGENT_SOCKET)")
	return cmd
}

func statusRows(st agent.Status) [][]string {
	known := "complete"
	if !st.Whole {
		known = "still being told by the control plane"
	}
	rows := [][]string{{"machine", st.Machine.Name(), known, "certificate until " + st.Certificate.UTC().Format(time.RFC3339)}}
	rows = append(rows, auditRow(st.Audit))
	for _, p := range st.Proofs {
		state := "available"
		if !p.Available {
			state = "not available"
		}
		rows = append(rows, []string{"proof", p.Assurance.String(), state, p.Note})
	}
	for _, p := range st.Placements {
		rows = append(rows, []string{"placed", p.Resource.Name(), fmt.Sprintf("identities: %d", len(p.Identities)), "at least " + p.Minimum.String()})
	}
	for _, g := range st.Generations {
		runs := fmt.Sprintf("pid %d", g.PID)
		if g.Unit != "" {
			runs = "unit " + g.Unit
		}
		rows = append(rows, []string{"app", g.App.Name(), g.Assurance.String(), fmt.Sprintf("generation %d, %s, uid %d", g.Generation, runs, g.UID)})
	}
	for _, m := range st.Attached {
		rows = append(rows, []string{"vm", m.VM.Name(), m.Assurance.String(), m.Place.String()})
	}
	return rows
}

// auditRow says whether the control plane has what this host recorded.
func auditRow(st ship.State) []string {
	state, note := "sent", fmt.Sprintf("%d bytes", st.Sent)
	if st.Behind > 0 {
		state, note = "being sent", fmt.Sprintf("%d bytes to go", st.Behind)
	}
	if st.Problem != "" {
		state, note = "kept here", note+"; since "+st.Since.UTC().Format(time.RFC3339)+": "+st.Problem
	}
	return []string{"audit", "-", state, note}
}
