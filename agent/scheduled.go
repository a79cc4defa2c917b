package agent

import (
	"context"
	"net/http"
	"time"

	"innate"
	"innate/agent/imds"
	"innate/feed/client"
)

// scheduled is what is going to happen to a VM as its metadata service tells it.
func (a *Agent) scheduled(s *client.Scheduled) imds.Scheduled {
	if s == nil {
		return imds.Scheduled{Incarnation: 1}
	}
	now := a.config.Now()
	told := imds.Scheduled{Incarnation: s.Incarnation(now)}
	for _, ev := range s.Events {
		told.Events = append(told.Events, imds.Event{
			ID: ev.ID, Type: ev.Type, Source: ev.Source, Description: ev.Description,
			NotBefore: ev.NotBefore, Duration: ev.Duration, Started: ev.Started(now),
		})
	}
	return told
}

// approve tells the control plane for which events a VM is ready.
func (a *Agent) approve(vm innate.ResourceID) func(context.Context, []string) error {
	return func(ctx context.Context, events []string) error {
		err := a.upstream.post(ctx, "/v1/events/approve", map[string]any{"resource": vm, "events": events}, new(struct{}))
		if err != nil && transient(err) {
			return &innate.Refusal{
				Status: http.StatusServiceUnavailable, RetryAfter: 2 * time.Second, Cause: err,
				Text: "the control plane cannot be told now; the event goes on as announced",
			}
		}
		return err
	}
}
