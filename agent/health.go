package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"innate/agent/caller"
	"innate/agent/opener"
)

const (
	settled     = time.Second            // a program that nobody can ask is well when it goes on so long
	firstAsk    = 50 * time.Millisecond  // until a new generation is asked again; doubled each time
	longestAsk  = time.Second            // ... up to this
	askPatience = 10 * time.Second       // for one answer
	acceptance  = 500 * time.Millisecond // within which a program takes a connection that it is offered
	mostAnswer  = 64 << 10               // bytes of an answer's head that are looked at
	mostTries   = 64                     // connections until one is the generation's own
)

// getsWell returns nil once a new generation is well; the error says why it
// was not within Config.Well.
func (i *Instance) getsWell(ctx context.Context, g *Generation) error {
	ask := i.question(g)
	if ask == nil {
		if within(g.exited, settled) {
			return fmt.Errorf("it ended at once, with exit code %d", g.status)
		}
		return ctx.Err()
	}
	limit := i.apps.agent.config.Well
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := firstAsk; ; pause = min(2*pause, longestAsk) {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
			continue
		case <-g.exited:
			err = fmt.Errorf("it ended with exit code %d before it was well", g.status)
		case <-ctx.Done():
			err = fmt.Errorf("after %s: %w", limit, err)
		}
		again.Stop()
		return err
	}
}

// question is how to ask a generation whether it is well: its command, else its
// app's path; nil when there is neither.
func (i *Instance) question(g *Generation) func(context.Context) error {
	s := i.apps
	p, placed := s.agent.placed.get(i.App)
	switch {
	case len(i.check) > 0:
		return func(ctx context.Context) error { return g.askCommand(ctx, i.check) }
	case placed && p.HealthCheck != "" && g.Serves != 0:
		return func(ctx context.Context) error { return s.askPath(ctx, g, p.HealthCheck) }
	}
	return nil
}

// askPath wants an answer of 2xx, as App Service does, from the generation itself.
func (s *apps) askPath(ctx context.Context, g *Generation, path string) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	c, err := s.reach(ctx, g)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer stop()
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", g.Serves, path), nil)
	if err != nil {
		return err
	}
	req.Close = true
	req.Header.Set("User-Agent", "innate-health-check")
	if err := req.Write(c); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, mostAnswer)), req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return nil
}

// reach connects to the generation's own program. Where it shares its port with
// the old generation (SO_REUSEPORT), the kernel chooses one of the two each time.
func (s *apps) reach(ctx context.Context, g *Generation) (*net.TCPConn, error) {
	for tries := 1; ; tries++ {
		c, err := g.home.Dial(ctx, g.Serves)
		if err != nil {
			return nil, err
		}
		if err = s.holds(g, c); err == nil {
			return c, nil
		}
		c.Close()
		if !errors.Is(err, errAnother) || tries == mostTries {
			return nil, err
		}
	}
}

var errAnother = errors.New("another program serves there")

// holds refuses a connection that we made to a program outside the generation: the
// old generation may still have the port, or anybody may have taken it.
func (s *apps) holds(g *Generation, c *net.TCPConn) error {
	diag := s.sees(g)
	if diag == nil || g.CgroupID == 0 {
		return nil
	}
	for late := time.Now().Add(acceptance); ; time.Sleep(time.Millisecond) {
		facts, err := diag.Attest(c)
		switch {
		case errors.Is(err, caller.ErrPeerGone) && time.Now().Before(late): // not accepted yet
		case err != nil:
			return fmt.Errorf("who answers at %s: %w", c.RemoteAddr(), err)
		case facts.Cgroup != g.CgroupID:
			return fmt.Errorf("who answers at %s: %w", c.RemoteAddr(), errAnother)
		default:
			return nil
		}
	}
}

// askCommand runs a command beside the generation and wants it to end with 0.
func (g *Generation) askCommand(ctx context.Context, command []string) error {
	p, err := g.beside(command, nil, nil, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	defer stop()
	status, err := p.Wait()
	if err == nil && status != 0 {
		err = fmt.Errorf("%s ended with exit code %d", command[0], status)
	}
	return err
}

// servesAt is the port at which a program is to listen: the one that its
// settings name, as App Service knows them, else a free one.
func servesAt(at *opener.Home, settings map[string]string) (int, error) {
	for _, name := range []string{"WEBSITES_PORT", "PORT"} {
		value, ok := settings[name]
		if !ok {
			continue
		}
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil || port == 0 {
			return 0, fmt.Errorf("the app's setting %s is %q: want a port", name, value)
		}
		return int(port), nil
	}
	port, err := at.FreePort()
	if err != nil {
		return 0, fmt.Errorf("finding a port for the app: %w", err)
	}
	return port, nil
}
