package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"innate"
	"innate/admin"
	"innate/feed/client"
)

// vmEventCommand announces to a VM what is going to happen to it.
func (s *session) vmEventCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "event", Short: "Announce to a VM what is going to happen to it, and see whether it is ready",
		Long: `A program in a VM reads at 169.254.169.254/metadata/scheduledevents what is going to
happen to the VM, and may approve it: it is ready now. Announce what you are about to
do, wait until 'list' shows that it is approved, or until it is due, and do it; then
complete the event. Completing one that has not begun calls it off.`,
	}
	cmd.AddCommand(s.eventAnnounce(), s.eventList(), s.eventComplete())
	return cmd
}

func (s *session) eventAnnounce() *cobra.Command {
	var kind, description, source string
	var in, duration time.Duration
	cmd := &cobra.Command{
		Use: "announce NAME...", Short: "Announce an event to VMs", Args: cobra.MinimumNArgs(1),
		Example: "  innate vm event announce web-1 web-2 --type Reboot --in 30m --duration 2m --description 'a new kernel'",
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			body := map[string]any{"eventType": kind, "description": description, "eventSource": source}
			if in != 0 {
				body["notBefore"] = time.Now().Add(in)
			}
			if duration >= 0 {
				body["durationInSeconds"] = int(duration.Seconds())
			}
			var all []client.ScheduledEvent
			for _, name := range args {
				vm, err := c.Resource(cmd.Context(), typeVM, name)
				if err != nil {
					return err
				}
				var ev client.ScheduledEvent
				if err := c.ARM(cmd.Context(), http.MethodPost, string(vm)+"/announceEvent", body, &ev); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				all = append(all, ev)
			}
			rows := make([][]string, len(all))
			for i, ev := range all {
				rows[i] = append([]string{args[i]}, eventRow(ev)...)
			}
			return s.print(all, "VM "+eventHeads, rows)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&kind, "type", "", "`what`: Freeze, Reboot, Redeploy, Preempt or Terminate")
	f.DurationVar(&in, "in", 0, "after what `time`; empty: the shortest notice that programs rely on")
	f.DurationVar(&duration, "duration", -1, "for how `long` the VM will notice; empty: nobody knows")
	f.StringVar(&description, "description", "", "one `line` for people")
	f.StringVar(&source, "source", "Platform", "`who` causes it: Platform or User")
	cmd.MarkFlagRequired("type")
	return cmd
}

func (s *session) eventList() *cobra.Command {
	return &cobra.Command{
		Use: "list NAME", Short: "List what is going to happen to a VM, and what it is ready for", Args: cobra.ExactArgs(1),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			vm, err := c.Resource(cmd.Context(), typeVM, args[0])
			if err != nil {
				return err
			}
			var all client.Scheduled
			if err := c.ARM(cmd.Context(), http.MethodPost, string(vm)+"/events", nil, &all); err != nil {
				return err
			}
			rows := make([][]string, len(all.Events))
			for i, ev := range all.Events {
				rows[i] = eventRow(ev)
			}
			return s.print(all, eventHeads, rows)
		}),
	}
}

func (s *session) eventComplete() *cobra.Command {
	return &cobra.Command{
		Use: "complete NAME EVENT", Short: "End an event, or call it off", Args: cobra.ExactArgs(2),
		RunE: s.asking(func(cmd *cobra.Command, c *admin.Client, args []string) error {
			id, err := innate.ParseGUID(args[1])
			if err != nil {
				return fmt.Errorf("%w: 'innate vm event list %s' shows the ids", err, args[0])
			}
			vm, err := c.Resource(cmd.Context(), typeVM, args[0])
			if err != nil {
				return err
			}
			if err := c.ARM(cmd.Context(), http.MethodPost, string(vm)+"/completeEvent", map[string]any{"eventId": id}, nil); err != nil {
				return err
			}
			return s.say(map[string]string{"completed": id}, "%s is over for %s.", id, args[0])
		}),
	}
}

const eventHeads = "EVENT TYPE STATE NOT-BEFORE DURATION DESCRIPTION"

func eventRow(ev client.ScheduledEvent) []string {
	state := "scheduled"
	switch {
	case !ev.Approved.IsZero():
		state = "approved " + ev.Approved.UTC().Format(time.RFC3339)
	case ev.Started(time.Now()):
		state = "due"
	}
	duration := "unknown"
	if ev.Duration >= 0 {
		duration = (time.Duration(ev.Duration) * time.Second).String()
	}
	return []string{ev.ID, ev.Type, state, ev.NotBefore.UTC().Format(time.RFC3339), duration, ev.Description}
}
