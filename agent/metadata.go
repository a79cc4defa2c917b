package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
	"innate/agent/endpoint"
	"innate/agent/imds"
)

// address is where every SDK looks for the metadata service.
const address = "169.254.169.254"

const (
	firstReopen   = 50 * time.Millisecond
	longestReopen = time.Second // a tenant may destroy our listener (host-attestation §4.1): its own harm, and not for long
)

// metadata is the metadata service of the VMs on this host: one listener inside
// each VM's network namespace. The namespace is the proof of who is calling.
type metadata struct {
	agent   *Agent
	running sync.WaitGroup

	mu       sync.Mutex
	ctx      context.Context // of Agent.Run; nil when it is not running
	attached map[string]*attachment
}

// An attachment is the metadata service of one VM.
type attachment struct {
	vm    innate.ResourceID
	ns    *os.File
	links *links // of ns
	own   bool   // ns is the agent's own
	end   context.CancelFunc
	over  chan struct{} // closed when the listener is
}

func newMetadata(a *Agent) *metadata {
	return &metadata{agent: a, attached: map[string]*attachment{}}
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

// list returns the VMs that are served.
func (m *metadata) list() (vms []innate.ResourceID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.attached {
		vms = append(vms, at.vm)
	}
	slices.Sort(vms)
	return vms
}

// Attach serves the metadata service to a VM (name or id) inside a network
// namespace, until the agent or the placement ends or Detach is called; a
// service that the VM had before ends. It takes ns over, and an open namespace
// lives on: detach when the VM goes.
//
// The agent's own namespace is refused unless Config.TakeOver says otherwise.
func (a *Agent) Attach(ctx context.Context, vm string, ns *os.File) error {
	p, err := a.placed.named(ctx, typeVM, vm)
	if err == nil {
		err = a.suffices(p, innate.NetNS)
	}
	own := false
	if err == nil {
		own, err = isOwn(ns)
	}
	if err == nil && own && !a.config.TakeOver {
		err = errors.New("this is the network namespace of the host itself: every process in it would be the VM, and a cloud's own metadata service would be hidden; give the VM a namespace of its own, or start the agent so that it takes the address over")
	}
	if err != nil {
		ns.Close()
		return err
	}
	return a.metadata.attach(p.Resource, ns, own)
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

// isOwn reports whether ns is the network namespace that the agent is in; what
// is no network namespace is an error.
func isOwn(ns *os.File) (bool, error) {
	if typ, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		return false, fmt.Errorf("%s is no network namespace: want a file such as /run/netns/NAME or /proc/PID/ns/net", ns.Name())
	}
	// Not /proc/self: that is the first thread, which may be away in another namespace.
	var theirs, ours unix.Stat_t
	if err := errors.Join(unix.Fstat(int(ns.Fd()), &theirs), unix.Stat("/proc/thread-self/ns/net", &ours)); err != nil {
		return false, fmt.Errorf("comparing network namespaces: %w", err)
	}
	return theirs.Dev == ours.Dev && theirs.Ino == ours.Ino, nil
}

// attach opens the first listener, so that whoever asked hears why it cannot be, and keeps one open from there on.
func (m *metadata) attach(vm innate.ResourceID, ns *os.File, own bool) (err error) {
	a := m.agent
	wires, err := openLinks(ns)
	if err != nil {
		ns.Close()
		return fmt.Errorf("reading the network interfaces of %s: %w", vm.Name(), err)
	}
	kept := false
	defer func() {
		if !kept {
			wires.close()
			ns.Close()
		}
	}()
	server, err := imds.New(imds.Config{
		Tokens: a, Machine: a.describe(vm), Assurance: innate.NetNS, Audit: a.audit, Log: a.config.Log, Now: a.config.Now,
		Interfaces: wires.read, Voucher: (&voucher{agent: a, vm: vm}).certificate,
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	old := m.attached[vm.Key()]
	m.mu.Unlock()
	if old != nil {
		old.end()
		<-old.over
	}
	l, err := openIn(ns)
	if err != nil {
		return fmt.Errorf("opening %s:80 for %s: %w", address, vm.Name(), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, placed := a.placed.get(vm) // from here on, gone finds it
	if !placed || m.ctx == nil || m.ctx.Err() != nil || m.attached[vm.Key()] != nil {
		l.Close()
		return fmt.Errorf("the agent is ending, or %s was just attached by another or taken off this host: try again", vm.Name())
	}
	ctx, end := context.WithCancel(m.ctx)
	at := &attachment{vm: vm, ns: ns, links: wires, own: own, end: end, over: make(chan struct{})}
	m.attached[vm.Key()], kept = at, true
	m.running.Go(func() { m.serve(ctx, at, server, l) })
	return nil
}

// serve answers on l and, when that ends by anybody else's doing, on a new listener.
func (m *metadata) serve(ctx context.Context, at *attachment, server *imds.Server, l *net.TCPListener) {
	log := m.agent.config.Log.With("vm", at.vm)
	defer func() {
		at.end()
		err := server.Close()
		if at.own {
			err = errors.Join(err, giveBack(at.ns))
		}
		at.links.close()
		if err = errors.Join(err, at.ns.Close()); err != nil {
			log.Warn("closing a VM's metadata service", "err", err)
		}
		m.mu.Lock()
		delete(m.attached, at.vm.Key())
		m.mu.Unlock()
		close(at.over)
	}()
	listening := endpoint.Server(server, log)
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
			case <-time.After(pause):
			}
			pause = min(2*pause, longestReopen)
			if l, err = openIn(at.ns); err != nil {
				log.Warn("opening a VM's metadata service again", "err", err)
			}
		}
	}
}

// finish ends a server whose requests have been told to end: it lets them answer first.
func finish(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		s.Close()
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
			Tenant: a.machine.Tenant, HasIdentity: len(p.Identities) > 0,
		}, true
	}
}

// openIn gives a namespace the metadata address on its loopback device and
// listens there, for that namespace's own processes alone: a container routed
// through it comes in by another device.
func openIn(ns *os.File) (l *net.TCPListener, err error) {
	err = caller.InNamespace(ns, func() error {
		if err := withLoopback(func(h *netlink.Handle, lo netlink.Link, addr *netlink.Addr) error {
			return errors.Join(h.AddrReplace(lo, addr), h.LinkSetUp(lo))
		}); err != nil {
			return err
		}
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // as caller.Listen
		lc.Control = onLoopback
		opened, err := lc.Listen(context.Background(), "tcp4", address+":80")
		if err != nil {
			return err
		}
		l = opened.(*net.TCPListener)
		return nil
	})
	return l, err
}

// onLoopback binds a socket to the loopback device before it listens.
func onLoopback(_, _ string, c syscall.RawConn) error {
	var err error
	if ctl := c.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }); ctl != nil {
		return ctl
	}
	return err
}

// giveBack takes the address off the host's own namespace, where it may be a
// cloud's. A VM's own namespace keeps it: there, what nobody answers is refused
// at once, and never leaves for whoever owns the address outside.
func giveBack(ns *os.File) error {
	return caller.InNamespace(ns, func() error {
		return withLoopback(func(h *netlink.Handle, lo netlink.Link, addr *netlink.Addr) error { return h.AddrDel(lo, addr) })
	})
}

// withLoopback calls fn with the loopback device of the thread's namespace.
func withLoopback(fn func(*netlink.Handle, netlink.Link, *netlink.Addr) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return fn(h, lo, &netlink.Addr{
		IPNet: &net.IPNet{IP: net.ParseIP(address).To4(), Mask: net.CIDRMask(32, 32)},
		Scope: int(netlink.SCOPE_HOST),
	})
}
