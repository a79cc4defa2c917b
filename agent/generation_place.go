package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
)

// A place is where one generation lives and is heard: its cgroup, its network
// namespace if it has one of its own, the port of its endpoint and who asks the
// kernel about callers there. Beside starting processes, all that only root
// does for a generation is here.
type place struct {
	cgroup   *launch.Cgroup // nil: none may be made
	ns       *os.File       // nil: the agent's own network namespace
	listener *net.TCPListener
	diag     *caller.Diag     // nil: nothing can be asked of the kernel
	proof    innate.Assurance // of who calls at the listener
}

// newPlace makes a place; name is its cgroup's, such as "api/g1". With isolate
// it has a network namespace of its own, with nothing in it but loopback.
func (h *host) newPlace(name string, isolate bool) (_ *place, err error) {
	p := &place{proof: h.proofOf(isolate), diag: h.diag}
	if h.cgroups != nil {
		p.cgroup, err = h.cgroups.Make(name)
	}
	if err == nil && isolate {
		err = p.isolate()
	} else if err == nil {
		p.listener, err = openEndpoint()
	}
	if err != nil {
		return nil, errors.Join(err, p.remove(h))
	}
	return p, nil
}

// openEndpoint opens the port of an app's endpoint.
func openEndpoint() (*net.TCPListener, error) {
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("opening the app's endpoint: %w", err)
	}
	return l, nil
}

// isolate makes the network namespace, and in it what hears the app: nobody
// outside can so much as connect (host-attestation §3).
func (p *place) isolate() (err error) {
	p.diag = nil // not the host's: that sees the host's sockets only
	if p.ns, err = launch.NewNamespace(); err != nil {
		return err
	}
	err = caller.InNamespace(p.ns, func() (err error) {
		if err := loopbackUp(); err != nil {
			return err
		}
		if p.listener, err = openEndpoint(); err != nil {
			return err
		}
		p.diag, err = caller.NewDiag()
		return err
	})
	if err != nil {
		return fmt.Errorf("a network namespace of its own: %w", err)
	}
	return nil
}

// proofOf is how surely an app's callers are recognised: in a network namespace
// of its own its cgroup and uid still have to be right.
func (h *host) proofOf(isolated bool) innate.Assurance {
	if isolated && h.assurance == innate.CgroupUID {
		return innate.NetNS
	}
	return h.assurance
}

func loopbackUp() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	return h.LinkSetUp(lo)
}

// inside calls fn in the place's network namespace. Sockets stay where they were made.
func (p *place) inside(fn func() error) error {
	if p.ns == nil {
		return fn()
	}
	return caller.InNamespace(p.ns, fn)
}

// dial connects to a port of the place, where a program of it is to serve.
func (p *place) dial(ctx context.Context, port int) (c *net.TCPConn, err error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(patience)
	}
	err = p.inside(func() error {
		// One address, so that the dial stays on this thread, and not the
		// context's: waiting for that takes another.
		d := net.Dialer{Deadline: deadline}
		d.SetMultipathTCP(false) // as caller.Listen
		conn, err := d.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// freePort finds a port of the place that nobody has.
func (p *place) freePort() (port int, err error) {
	err = p.inside(func() error {
		l, err := caller.Listen("127.0.0.1:0")
		if err != nil {
			return err
		}
		port = l.Addr().(*net.TCPAddr).Port
		return l.Close()
	})
	return port, err
}

// signal asks every process of the place, p's first and what it started.
func (p *place) signal(first *launch.Process, sig syscall.Signal) error {
	if p.cgroup != nil {
		return p.cgroup.Signal(sig)
	}
	if err := first.Signal(sig); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// kill ends every process of the place.
func (p *place) kill(first *launch.Process) error {
	if p.cgroup != nil {
		err := p.cgroup.Kill()
		if err == nil {
			return nil
		}
		return errors.Join(err, p.cgroup.Signal(syscall.SIGKILL)) // Linux before 5.14
	}
	return p.signal(first, syscall.SIGKILL)
}

// members counts the processes; without a cgroup that is not known.
func (p *place) members() int {
	if p.cgroup == nil {
		return 0
	}
	pids, err := p.cgroup.Members()
	if err != nil {
		return 0
	}
	return len(pids)
}

// remove takes the place away, when its processes are gone.
func (p *place) remove(h *host) error {
	var errs []error
	if p.listener != nil {
		p.listener.Close() // the endpoint has, if there was one
	}
	if p.ns != nil {
		errs = append(errs, p.ns.Close())
	}
	if p.diag != nil && p.diag != h.diag {
		errs = append(errs, p.diag.Close())
	}
	if p.cgroup != nil {
		errs = append(errs, p.cgroup.Remove())
	}
	return errors.Join(errs...)
}
