package postgres

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"innate/gateway/postgres/ldap"
)

// Alive sees whether the gateway answers, as PostgreSQL would: over a connection
// of its own, with StartTLS, by a bind that is refused for its form.
func (g *Gateway) Alive(ctx context.Context) error {
	err := g.ask(ctx)
	if err != nil && g.doors.busy() {
		return nil // there was no room for us, and others come and go
	}
	return err
}

func (g *Gateway) ask(ctx context.Context) error {
	return ask(ctx, g.config.Listener.Addr().(*net.TCPAddr).AddrPort(), g.authority.pool())
}

// Answers is nil when a gateway answers at that address, under the authority
// whose certificate is in the file ca.
func Answers(ctx context.Context, at netip.AddrPort, ca string) error {
	b, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return fmt.Errorf("%s holds no certificate", ca)
	}
	return ask(ctx, at, pool)
}

// answerWithin is how long a refusal for a request's form may take.
const answerWithin = time.Second

func ask(ctx context.Context, at netip.AddrPort, pool *x509.CertPool) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	startTLS := []byte("\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + ldap.StartTLS)
	if err := exchange(conn, startTLS, 0x78, byte(ldap.Success)); err != nil {
		return fmt.Errorf("StartTLS: %w", err)
	}
	secure := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: at.Addr().Unmap().String()})
	if err := secure.Handshake(); err != nil {
		return err
	}
	anonymous := []byte("\x30\x0c\x02\x01\x02\x60\x07\x02\x01\x03\x04\x00\x80\x00")
	if err := exchange(secure, anonymous, 0x61, byte(ldap.InvalidCredentials)); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// exchange sends a request and reads an answer that must have that tag and result.
func exchange(conn io.ReadWriter, request []byte, tag, result byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	r := bufio.NewReader(conn)
	head := make([]byte, 10) // envelope, message id of one byte, tag and length, result
	if _, err := io.ReadFull(r, head); err != nil {
		return err
	}
	if head[5] != tag || head[9] != result {
		return fmt.Errorf("the answer begins with %x", head)
	}
	_, err := io.CopyN(io.Discard, r, int64(head[1])-8)
	return err
}

// watch feeds the service manager's watchdog, or our own Supervise, for as long
// as the gateway answers. A gateway that is stuck holds every log-in that hangs
// on it; killed, it frees them at once (postgres.md §3.3).
func (g *Gateway) watch(ctx context.Context) error {
	daemon.SdNotify(false, daemon.SdNotifyReady) // it listens: whatever comes is answered, if only by a refusal
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("postgres: the watchdog's environment: %w", err)
	}
	if limit == 0 {
		return nil // nobody watches
	}
	tick := time.NewTicker(limit / 5)
	defer tick.Stop()
	for {
		if err := g.Alive(ctx); err == nil {
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			g.config.Log.Error("the gateway does not answer itself; it will be killed", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			daemon.SdNotify(false, daemon.SdNotifyStopping)
			return nil
		}
	}
}
