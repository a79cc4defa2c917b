package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"innate/agent/caller"
)

// The roles of the server's that the gateway knows. Whoever may log in by token
// is a member of Managed, and of nothing that would make it a superuser.
const (
	Managed    = "innate_managed"
	Management = "innate_gateway"
)

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	sweepPause = 200 * time.Millisecond // between looks while a log-in that was let in may still begin
	tidyPause  = 5 * time.Second
	queryTime  = 5 * time.Second
)

// A manager ends sessions, over a connection of its own to the server.
type manager struct {
	g          *Gateway
	connection string
	wake       chan struct{} // a right may have ended
	connected  chan struct{} // closed when the server was first reached

	// Of the goroutine that keeps the connection:
	maps    string    // path of pg_ident.conf; empty: not known, for the role may not see it, or not have it read
	inForce *[]string // the rows that the server was last told to read over this connection; nil: not known
	fault   string    // what was last said to be wrong with them

	once sync.Once
	mu   sync.Mutex
	// The server as it was last reached.
	postmaster caller.Process
	uid        uint32
	timeout    time.Duration // authentication_timeout
	reached    time.Time     // when it last answered; zero: never
}

// look makes the manager look at the sessions.
func (m *manager) look() {
	select {
	case m.wake <- struct{}{}:
	default: // it is going to
	}
}

// run keeps the connection until ctx ends.
func (m *manager) run(ctx context.Context) error {
	defer m.clearRows(ctx, nil)
	pause, said := firstPause, ""
	for {
		begun := time.Now()
		err := m.manage(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err.Error() != said {
			said = err.Error()
			m.g.config.Log.Error("the server is not reached by "+Management+"; connecting again", "err", err)
		}
		if time.Since(begun) > lastPause {
			pause, said = firstPause, ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// manage is one connection's life.
func (m *manager) manage(ctx context.Context) error {
	conn, err := m.connect(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ending := context.WithoutCancel(ctx)
		if ctx.Err() != nil {
			m.clearRows(ending, conn)
		}
		conn.Close(ending)
	}()
	m.maps, m.inForce = "", nil
	var until time.Time // a log-in that was let in before the last change may begin before then
	tidy := time.NewTicker(tidyPause)
	defer tidy.Stop()
	for {
		kept, err := m.keepRows(ctx, conn)
		if err != nil {
			return err
		}
		if err := m.sweep(ctx, conn); err != nil {
			return err
		}
		m.once.Do(func() { close(m.connected) })
		var again <-chan time.Time
		if !kept || time.Now().Before(until) {
			again = time.After(sweepPause)
		}
		lost := make(chan error, 1)
		waiting, stop := context.WithCancel(ctx)
		go func() { lost <- hangUp(waiting, conn) }()
		select {
		case <-m.wake:
			until = time.Now().Add(m.loginTime())
		case <-again:
		case <-tidy.C:
		case err := <-lost:
			stop()
			return cmp.Or(ctx.Err(), err)
		}
		stop()
		if err := <-lost; err != nil {
			return cmp.Or(ctx.Err(), err)
		}
	}
}

// hangUp returns when the server ends the connection, or nil when ctx ends.
func hangUp(ctx context.Context, conn *pgx.Conn) error {
	for {
		_, err := conn.WaitForNotification(ctx)
		if ctx.Err() != nil && !conn.IsClosed() {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the connection was lost: %w", err)
		}
	}
}

// connect reaches the server and sees whether the role may do what it is for.
func (m *manager) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, m.connection)
	if err != nil {
		return nil, err
	}
	var mayEnd, maySee, managed bool
	var seconds int
	err = conn.QueryRow(ctx, `SELECT pg_has_role('pg_signal_backend', 'MEMBER'), pg_has_role('pg_read_all_stats', 'MEMBER'),
		EXISTS (SELECT FROM pg_roles WHERE rolname = $1), (SELECT setting::int FROM pg_settings WHERE name = 'authentication_timeout')`, Managed).
		Scan(&mayEnd, &maySee, &managed, &seconds)
	switch {
	case err != nil:
	case !mayEnd || !maySee:
		err = fmt.Errorf("its role may not end sessions: GRANT pg_signal_backend, pg_read_all_stats TO %s", Management)
	case !managed:
		err = fmt.Errorf("the server has no role %s: 'innate postgres prepare' makes it", Managed)
	}
	if err != nil {
		conn.Close(ctx)
		return nil, err
	}
	postmaster, uid, err := listener(conn)
	if err != nil {
		m.g.config.Log.Warn("the server's process is not to be found, so sessions are known by their role alone; the gateway belongs on the server's host, as its user",
			"err", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.postmaster, m.uid, m.timeout = postmaster, uid, time.Duration(seconds)*time.Second
	return conn, nil
}

// listener is the process that listens at the other end of a connection over a
// Unix socket: the postmaster, by the kernel's word.
func listener(conn *pgx.Conn) (caller.Process, uint32, error) {
	c, ok := conn.PgConn().Conn().(*net.UnixConn)
	if !ok {
		return caller.Process{}, 0, errors.New("it is not reached over a Unix socket")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return caller.Process{}, 0, err
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return caller.Process{}, 0, err
	}
	if peerErr != nil {
		return caller.Process{}, 0, peerErr
	}
	p, err := caller.ProcessOf(int(peer.Pid))
	return p, peer.Uid, err
}

func (m *manager) loginTime() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.timeout
}

// current reports whether the server answered within the last while: what began
// now could be ended.
func (m *manager) current(within time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.reached.IsZero() && time.Since(m.reached) < within
}

// isServer reports whether uid is the user that the server runs as.
func (m *manager) isServer(uid uint32) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.postmaster.PID == 0 || uid == m.uid // not known: everybody may be
}

// backend is the process of the server's at the other end of a connection: it
// will serve the session. It is zero where it cannot be found; session is false
// when the connection is surely not the server's.
func (m *manager) backend(f caller.Facts) (p caller.Process, session bool) {
	m.mu.Lock()
	postmaster, uid := m.postmaster, m.uid
	m.mu.Unlock()
	switch {
	case postmaster.PID == 0 || f.Inode == 0:
		return p, true
	case f.UID != uid:
		return p, false
	}
	children, err := caller.Children(postmaster.PID)
	if err == nil {
		p, err = caller.Holder(f, children)
	}
	if err != nil {
		m.g.config.Log.Warn("the process of a log-in was not found; should it lose its right, all on its role end", "err", err)
		return caller.Process{}, true
	}
	return p, true
}
