package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"innate"
	"innate/agent"
	"innate/agent/launch"
	"innate/platform"
)

// A workload is this program as an app, 'sample serve' or 'bench load', that
// does what it is told over a pipe.
type workload struct {
	orders  *os.File
	reports *bufio.Scanner
	started agent.Started
	env     map[string]string
	ended   chan struct{}
	err     error // how it ended; read after ended
}

// do gives 'sample serve' an order and reads its report.
func (w *workload) do(o sampleOrder) (r sampleReport, err error) {
	return r, w.exchange(o, &r)
}

// exchange writes an order and reads the report on it; both are one line of JSON.
func (w *workload) exchange(order, report any) error {
	line, err := json.Marshal(order)
	if err != nil {
		return err
	}
	if _, err := w.orders.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("telling the app: %w", err)
	}
	if !w.reports.Scan() {
		return errors.New("the app ended without an answer")
	}
	return json.Unmarshal(w.reports.Bytes(), report)
}

// end closes its standard input, upon which it ends.
func (w *workload) end() { w.orders.Close() }

// wait returns when it and its generation have ended.
func (w *workload) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select {
	case <-w.ended:
		return nil
	case <-ctx.Done():
		return errors.New("it did not end within 10 s")
	}
}

func (w *workload) describe() string {
	s := w.started
	text := fmt.Sprintf("generation %d: pid %d, uid %d, port %d", s.Generation, s.PID, s.UID, s.Port)
	if s.Cgroup != "" {
		text += ", cgroup " + s.Cgroup
	}
	return text + "; callers are proved by " + s.Assurance.String()
}

// pipes makes the two pipes of a workload.
func pipes() (in, orders, reports, out *os.File, err error) {
	if in, orders, err = os.Pipe(); err != nil {
		return
	}
	reports, out, err = os.Pipe()
	return
}

// launch starts a generation of the tour's app.
func (t *tour) launch(ctx context.Context) (*workload, error) {
	return startWorkload(ctx, t.platform, t.app, t.program, "sample", "serve")
}

// startWorkload starts a generation of an app through the agent's socket, as 'innate run' does.
func startWorkload(ctx context.Context, p *platform.Platform, app innate.ResourceID, args ...string) (*workload, error) {
	in, orders, reports, out, err := pipes()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	defer out.Close()
	w := &workload{orders: orders, reports: bufio.NewScanner(reports), ended: make(chan struct{})}
	started := make(chan agent.Started, 1)
	go func() {
		defer close(w.ended)
		_, w.err = agent.Run(p.Dir.AgentSocket(), agent.RunRequest{
			App: string(app), Args: args, Dir: "/", Env: os.Environ(),
			Stdin: in, Stdout: out, Stderr: os.Stderr, OnStart: func(s agent.Started) { started <- s },
		})
	}()
	select {
	case w.started = <-started:
		return w, nil
	case <-w.ended:
		orders.Close()
		return nil, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// rotate starts a second generation beside the first; both work; then the first ends.
func (t *tour) rotate(ctx context.Context) error {
	second, err := t.launch(ctx)
	if err != nil {
		return err
	}
	r, err := second.do(sampleOrder{Do: "env"})
	if err != nil {
		return err
	}
	second.env = r.Env
	t.tell("%s", second.describe())
	for _, w := range []*workload{t.first, second} {
		r, err := w.do(sampleOrder{Do: "ask", Resource: "https://vault.azure.net"})
		if err != nil {
			return err
		}
		if r.Token == "" {
			return fmt.Errorf("generation %d: want a token, got %d %s", w.started.Generation, r.Status, r.Error)
		}
	}
	t.tell("both get tokens, each at its own port with its own secret")
	old := t.first
	old.end()
	if err := old.wait(ctx); err != nil {
		return err
	}
	t.first = second
	if status, text, err := knock(ctx, old.env["IDENTITY_ENDPOINT"], old.env["IDENTITY_HEADER"]); err == nil {
		return fmt.Errorf("the first generation's endpoint still answers: %d %s", status, text)
	}
	t.tell("the first ended with its process: its port refuses connections")
	status, text, err := knock(ctx, second.env["IDENTITY_ENDPOINT"], old.env["IDENTITY_HEADER"])
	if err != nil {
		return err
	}
	if status != http.StatusUnauthorized {
		return fmt.Errorf("the first generation's secret at the second's port: want 401, got %d %s", status, text)
	}
	t.tell("its secret at the second's port: %d %s", status, text)
	if r, err := second.do(sampleOrder{Do: "ask", Resource: "https://vault.azure.net"}); err != nil || r.Token == "" {
		return fmt.Errorf("the second generation after the first's end: %d %s %w", r.Status, r.Error, err)
	}
	return nil
}

// machine gives the VM a network namespace of its own and asks from inside it.
func (t *tour) machine(ctx context.Context) error {
	if os.Getuid() != 0 {
		t.tell("not shown: a VM's endpoint is opened inside its network namespace, and only root may enter one")
		t.weaker = append(t.weaker, "the VM's endpoint at 169.254.169.254 was not opened")
		return nil
	}
	ns, err := launch.NewNamespace()
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := agent.Attach(t.platform.Dir.AgentSocket(), string(t.vm), agent.Place{NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.Fd())}); err != nil {
		return err
	}
	in, orders, reports, out, err := pipes()
	if err != nil {
		return err
	}
	defer orders.Close()
	proc, err := launch.Start(launch.Spec{
		Args: []string{t.program, "sample", "serve"}, Dir: "/", Env: os.Environ(),
		Stdin: in, Stdout: out, Stderr: os.Stderr, NetNS: ns, Stub: []string{t.program, "launch"},
	})
	in.Close()
	out.Close()
	if err != nil {
		return err
	}
	w := &workload{orders: orders, reports: bufio.NewScanner(reports)}
	r, err := w.do(sampleOrder{Do: "ask", Resource: "https://vault.azure.net", IMDS: true})
	if err != nil {
		return err
	}
	if r.Token == "" {
		return fmt.Errorf("want a token, got %d %s", r.Status, r.Error)
	}
	t.tell("from its own network namespace, with Metadata: true; the namespace is the proof")
	if err := t.claims(r.Token, map[string]string{
		"oid": string(t.vmIdentity.Principal), "xms_az_rid": string(t.vm), "innate_assurance": innate.NetNS.String(),
	}); err != nil {
		return err
	}
	w.end()
	_, err = proc.Wait()
	return err
}
