package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/agent/imds"
	"innate/agent/opener"
)

const (
	firstReopen   = 50 * time.Millisecond
	longestReopen = 500 * time.Millisecond // a tenant may destroy our listener (host-attestation §4.1): its own harm, and not for long
)

// metadata is the metadata service of the VMs on this host: one listener at each
// VM's place, which is the proof of who is calling.
type metadata struct {
	agent   *Agent
	running sync.WaitGroup
	bridges bridges

	mu       sync.Mutex
	ctx      context.Context // of Agent.Run; nil when it is not running
	attached map[string]*attachment
}

// An attachment is the metadata service of one VM.
type attachment struct {
	vm   innate.ResourceID
	spot *opener.Spot
	http *endpoint.Service
	end  context.CancelFunc
	over chan struct{} // closed when the listener is
}

func newMetadata(a *Agent) *metadata {
	m := &metadata{agent: a, attached: map[string]*attachment{}}
	m.bridges = bridges{log: a.config.Log, running: &m.running, all: map[string]*bridge{}}
	return m
}

func (m *metadata) open(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ctx = ctx
}

func (m *metadata) wait() {
	m.mu.Lock()
	m.ctx = nil
	m.mu.Unlock()
	m.running.Wait()
}

// gone ends the service of a VM that is no longer placed here.
func (m *metadata) gone(vm innate.ResourceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at := m.attached[vm.Key()]; at != nil {
		at.end()
	}
}

// list returns the VMs that are served, by id.
func (m *metadata) list() []Met {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := []Met{}
	for _, at := range m.attached {
		all = append(all, Met{VM: at.vm, Place: at.spot.Place, Assurance: at.spot.Place.Assurance()})
	}
	slices.SortFunc(all, func(a, b Met) int { return strings.Compare(a.VM.Key(), b.VM.Key()) })
	return all
}

// Attach serves the metadata service to a VM (name or id) at a place, until the
// agent, the placement or the place itself ends, or Detach is called; a service
// that the VM had before ends. It takes over ns, the open network namespace that
// the place names; nil means the agent's own, which is refused unless
// Config.TakeOver says otherwise.
func (a *Agent) Attach(ctx context.Context, vm string, at Place, ns *os.File) error {
	if ns != nil {
		defer ns.Close()
	}
	if err := at.Check(); err != nil {
		return err
	}
	p, err := a.named(ctx, typeVM, vm)
	if err != nil {
		return err
	}
	s, err := opener.Find(ctx, a.opener, at, ns, string(p.Resource))
	if err != nil {
		return err
	}
	if err := a.suffices(p, s.Place.Assurance()); err != nil {
		return errors.Join(err, s.Leave())
	}
	return a.metadata.attach(p.Resource, s)
}

// Detach ends the metadata service of a VM and waits until it has.
func (a *Agent) Detach(vm string) error {
	a.metadata.mu.Lock()
	var found *attachment
	for key, at := range a.metadata.attached {
		if key == innate.ResourceID(vm).Key() || strings.EqualFold(at.vm.Name(), vm) {
			found = at
		}
	}
	a.metadata.mu.Unlock()
	if found == nil {
		return fmt.Errorf("%q is not attached", vm)
	}
	found.end()
	<-found.over
	return nil
}

// attach opens the first listener, so that whoever asked hears why it cannot be, and keeps one open from there on.
func (m *metadata) attach(vm innate.ResourceID, s *opener.Spot) (err error) {
	a := m.agent
	server, err := imds.New(imds.Config{
		Tokens: a, Machine: a.describe(vm), Assurance: s.Place.Assurance(), Audit: a.audit, Log: a.config.Log, Now: a.config.Now,
		Interfaces: interfacesOf(s), Voucher: (&voucher{agent: a, vm: vm}).certificate,
		Approve: a.approve(vm),
	})
	if err != nil {
		return errors.Join(err, s.Leave())
	}
	m.mu.Lock()
	old := m.attached[vm.Key()]
	m.mu.Unlock()
	if old != nil {
		old.end()
		<-old.over
	}
	l, err := m.listen(s)
	if err != nil {
		return errors.Join(fmt.Errorf("opening %s:80 for %s: %w", opener.Metadata, vm.Name(), err), s.Leave())
	}
	if err := m.begin(vm, s, server, l); err != nil {
		return errors.Join(err, l.Close(), s.Leave())
	}
	return nil
}

// begin serves a VM from here on, unless it is too late for that.
func (m *metadata) begin(vm innate.ResourceID, s *opener.Spot, server *imds.Server, l endpoint.Listener) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, placed := m.agent.placed.get(vm) // from here on, gone finds it
	if !placed || m.ctx == nil || m.ctx.Err() != nil || m.attached[vm.Key()] != nil {
		return fmt.Errorf("the agent is ending, or %s was just attached by another or taken off this host: try again", vm.Name())
	}
	ctx, end := context.WithCancel(m.ctx)
	at := &attachment{vm: vm, spot: s, http: endpoint.Server(server, m.agent.config.Log.With("vm", vm)), end: end, over: make(chan struct{})}
	m.attached[vm.Key()] = at
	m.running.Go(func() { m.serve(ctx, at, server, l) })
	return nil
}

// serve answers on l and, when that ends by anybody else's doing, on a new listener.
func (m *metadata) serve(ctx context.Context, at *attachment, server *imds.Server, l endpoint.Listener) {
	log := m.agent.config.Log.With("vm", at.vm)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		m.watch(ctx, at)
	}()
	defer func() {
		if m.agent.leaves() {
			return
		}
		at.end()
		<-watched
		err := server.Close()
		m.mu.Lock()
		delete(m.attached, at.vm.Key())
		m.mu.Unlock()
		err = errors.Join(err, at.spot.Leave())
		if err != nil {
			log.Warn("closing a VM's metadata service", "err", err)
		}
		close(at.over)
	}()
	listening := at.http
	listening.BaseContext = func(net.Listener) context.Context { return ctx }
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(closed)
		finish(listening)
	})
	pause := firstReopen
	for {
		begun := time.Now()
		err := listening.Serve(endpoint.NewDoor(l, endpoint.Connections))
		l.Close()
		if m.agent.leaves() {
			return
		}
		if ctx.Err() != nil {
			<-closed
			return
		}
		if time.Since(begun) > longestReopen {
			pause = firstReopen
		}
		log.Warn("a VM's metadata service was interrupted; opening it again", "err", err)
		for l = nil; l == nil; {
			select {
			case <-closed:
				return
			case <-m.agent.leaving:
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, longestReopen)
			if l, err = m.listen(at.spot); err != nil {
				log.Warn("opening a VM's metadata service again", "err", err)
			}
		}
	}
}

// finish ends a server whose requests have been told to end: it lets them answer first.
func finish(s *endpoint.Service) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
	}
}

// interfacesOf reads the network interfaces of a VM; nil where nobody can say.
func interfacesOf(s *opener.Spot) func() ([]imds.Interface, error) {
	if !s.Sees {
		return nil
	}
	return func() ([]imds.Interface, error) {
		told, err := s.Interfaces()
		all := make([]imds.Interface, 0, len(told))
		for _, i := range told {
			all = append(all, imds.Interface(i))
		}
		return all, err
	}
}

// describe says what instance metadata tells of a VM, as the feed has it at each request.
func (a *Agent) describe(vm innate.ResourceID) func() (imds.Machine, bool) {
	return func() (imds.Machine, bool) {
		p, ok := a.placed.get(vm)
		if !ok {
			return imds.Machine{}, false
		}
		return imds.Machine{
			Resource: p.Resource, VMID: p.VMID, Location: p.Location, Tags: p.Tags, Told: p.Instance,
			Tenant: a.machine.Tenant, HasIdentity: len(p.Identities) > 0, Scheduled: a.scheduled(p.Scheduled),
		}, true
	}
}
