package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"innate/audit"
)

const (
	// patience is how long a client may take to say what it wants, and to take an answer.
	patience = 5 * time.Second
	// mostClients bounds one user's connections; root and the agent's own uid have no bound.
	mostClients = 32
)

// serveControl answers clients until ctx ends.
func (a *Agent) serveControl(ctx context.Context, l *net.UnixListener) error {
	stop := context.AfterFunc(ctx, func() { a.refuseFrom(l) })
	defer stop()
	defer l.Close()
	go func() {
		select {
		case <-a.leaving:
			a.refuseFrom(l)
		case <-ctx.Done():
		}
	}()
	defer close(a.quiet)
	var running sync.WaitGroup
	defer running.Wait()
	crowd := crowd{by: map[uint32]int{}}
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil || err != nil && a.leaves():
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED):
			a.config.Log.Warn("accepting on the agent's socket", "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		case err != nil:
			return fmt.Errorf("accepting on the agent's socket: %w", err)
		}
		by, err := peer(c)
		if err != nil || !crowd.enter(by) {
			c.Close()
			continue
		}
		running.Go(func() {
			defer crowd.leave(by)
			a.serveClient(ctx, &line{conn: c}, by)
		})
	}
}

// refuseFrom closes a listener, and has whoever comes from now on refused, though
// the opener holds it still; when a next agent comes, it waits for that.
func (a *Agent) refuseFrom(l *net.UnixListener) {
	if raw, err := l.SyscallConn(); err == nil && !a.leaves() {
		raw.Control(func(fd uintptr) { unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
	l.Close()
}

// peer is the uid that the kernel says connected.
func peer(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return cred.Uid, nil
}

// A crowd counts connections by user.
type crowd struct {
	mu sync.Mutex
	by map[uint32]int
}

func (c *crowd) enter(uid uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[uid] >= mostClients && !trusted(uid) {
		return false
	}
	c.by[uid]++
	return true
}

func (c *crowd) leave(uid uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[uid]--; c.by[uid] == 0 {
		delete(c.by, uid)
	}
}

// trusted reports whether a user rules this agent anyway.
func trusted(uid uint32) bool { return uid == 0 || uid == uint32(os.Getuid()) }

// serveClient answers one request.
func (a *Agent) serveClient(ctx context.Context, l *line, by uint32) {
	defer l.close()
	stop := context.AfterFunc(ctx, func() { l.conn.SetReadDeadline(time.Now()) })
	defer stop()
	l.conn.SetReadDeadline(time.Now().Add(patience))
	var q request
	if err := l.receive(&q); err != nil {
		a.answer(l, report{}, fmt.Errorf("the agent could not read the request: %w", err))
		return
	}
	switch q.Op {
	case "run":
		a.serveRun(ctx, l, q, by)
	case "rejoin":
		a.serveRejoin(l, q, by)
	case "exec":
		a.serveConsole(ctx, l, q, by)
	case "logs":
		a.serveLogs(ctx, l, q, by)
	case "end", "rotate", "env", "ps":
		r, err := a.tend(ctx, q, by)
		a.answer(l, r, err)
	case "attach-unit", "start-unit", "detach-unit":
		if r, err := a.tendUnit(ctx, q, by); !errors.Is(err, errLeaves) { // hung up, the client comes again
			a.answer(l, r, err)
		}
	case "attach", "detach", "status":
		r, err := a.manage(ctx, l, q, by)
		a.answer(l, r, err)
	default:
		a.answer(l, report{}, fmt.Errorf("the agent knows no %q: want run, rejoin, exec, logs, end, rotate, env, ps, attach-unit, start-unit, detach-unit, attach, detach or status", q.Op))
	}
}

// answer sends r, or err. A client that is gone is no fault of ours.
func (a *Agent) answer(l *line, r report, err error) {
	if err != nil {
		r = report{Error: err.Error()}
	}
	l.conn.SetWriteDeadline(time.Now().Add(patience))
	if err := l.send(r); err != nil {
		a.config.Log.Debug("answering on the agent's socket", "err", err)
	}
}

// manage does what is for root and the agent's own uid.
func (a *Agent) manage(ctx context.Context, l *line, q request, by uint32) (report, error) {
	allowed := trusted(by)
	if q.Op != "status" {
		ev := audit.Event{
			Time: a.config.Now(), Action: q.Op + "-vm", Allowed: allowed, Target: q.VM, Host: string(a.machine.Machine),
			Detail: map[string]string{"uid": fmt.Sprint(by)},
		}
		if err := a.audit.Record(ctx, ev); err != nil {
			return report{}, fmt.Errorf("recording the request: %w", err)
		}
	}
	if !allowed {
		return report{}, fmt.Errorf("%s is for root and the agent's own user: you are uid %d", q.Op, by)
	}
	switch q.Op {
	case "attach":
		if q.Place == nil {
			return report{}, errors.New("attach wants a place: where the VM is met")
		}
		var ns *os.File
		switch len(l.files) {
		case 0:
		case 1:
			ns, l.files = l.files[0], nil
		default:
			return report{}, fmt.Errorf("attach wants one open file at most, the network namespace: %d came", len(l.files))
		}
		return report{Done: true}, a.Attach(ctx, q.VM, *q.Place, ns)
	case "detach":
		return report{Done: true}, a.Detach(q.VM)
	}
	st := a.Status()
	return report{Status: &st}, nil
}
