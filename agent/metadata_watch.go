package agent

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"innate/agent/endpoint"
)

// glance is how often it is looked at whether a VM's place still is: a matter of
// two or three system calls.
const glance = 250 * time.Millisecond

// listen opens a listener at a VM's spot.
func (m *metadata) listen(s *spot) (l endpoint.Listener, err error) {
	if s.Port != "" {
		l, err = m.bridges.listen(m.agent, s)
	} else {
		l, err = s.listen()
	}
	if err != nil {
		return nil, err
	}
	if over := s.over(); over != nil { // its name may be another's by now
		return nil, errors.Join(over, l.Close())
	}
	return l, nil
}

// watch ends the service of a VM whose place is no more, until ctx ends.
func (m *metadata) watch(ctx context.Context, at *attachment) {
	log := m.agent.config.Log.With("vm", at.vm)
	if at.spot.NetNS != "" && !at.spot.named {
		log.Warn("the end of a VM's network namespace cannot be seen from here: detach the VM when it ends", "netns", at.spot.NetNS)
	}
	tick := time.NewTicker(glance)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if over := at.spot.over(); over != nil {
			log.Info("a VM's metadata service ends", "because", over)
			at.end()
			return
		}
	}
}

// leave closes a spot whose listener is closed, and takes the address off the
// agent's own namespace behind the last VM that was met there; m.taking is held.
func (m *metadata) leave(s *spot) error {
	if s.own && !m.meetsHere() {
		if err := giveBack(); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) { // it was not taken yet
			return errors.Join(err, s.close())
		}
	}
	return s.close()
}

// meetsHere reports whether a VM is met in the agent's own namespace.
func (m *metadata) meetsHere() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.attached {
		if at.spot.own {
			return true
		}
	}
	return false
}
