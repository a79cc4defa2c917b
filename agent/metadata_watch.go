package agent

import (
	"context"
	"time"

	"innate/agent/endpoint"
	"innate/agent/opener"
)

// glance is how often it is looked at whether a VM's place still is: a matter of
// two or three system calls.
const glance = 250 * time.Millisecond

// listen opens a listener at a VM's spot.
func (m *metadata) listen(s *opener.Spot) (endpoint.Listener, error) {
	l, at, err := s.Listen()
	if err != nil || at.Bridge == "" {
		return l, err
	}
	return m.bridges.listen(l, at, s.Place), nil
}

// watch ends the service of a VM whose place is no more, until ctx ends.
func (m *metadata) watch(ctx context.Context, at *attachment) {
	log := m.agent.config.Log.With("vm", at.vm)
	if !at.spot.Watched {
		log.Warn("the end of a VM's network namespace cannot be seen from here: detach the VM when it ends", "netns", at.spot.Place.NetNS)
	}
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if over := at.spot.Over(); over != nil {
			log.Info("a VM's metadata service ends", "because", over)
			at.end()
			return
		}
	}
}
