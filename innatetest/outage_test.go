package innatetest_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"innate"
	"innate/admin"
	"innate/agent"
	"innate/audit"
	"innate/server"
)

// A host is a control plane and an agent that start and stop apart, as in
// production; what the agent has joined stays joined.
type host struct {
	dir, address string
	log          *slog.Logger
}

// part runs until the function that it returns is called, or the test ends.
func part(t *testing.T, run func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stopped := false
	stop = func() {
		t.Helper()
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("a part of the platform ended with: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func newHost(t *testing.T) *host {
	t.Helper()
	dir := folder(t, 0o700)
	if err := server.Create(t.Context(), filepath.Join(dir, "control"), "innate.test", true, time.Now()); err != nil {
		t.Fatal(err)
	}
	return &host{dir: dir, address: "127.0.0.1:0", log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))}
}

// control starts the control plane, where it was before.
func (h *host) control(t *testing.T) (a *admin.Client, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	s, err := server.New(t.Context(), server.Config{
		Dir: filepath.Join(h.dir, "control"), Listener: l, Socket: filepath.Join(h.dir, "admin.sock"), Operator: os.Getuid(), Dev: true, Log: h.log,
	})
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	stop = part(t, s.Run)
	eventually(t, "the administrators' socket answers", func() bool {
		a, err = admin.Dial(t.Context(), filepath.Join(h.dir, "admin.sock"))
		return err == nil
	})
	return a, stop
}

// join makes the host a machine of the control plane.
func (h *host) join(t *testing.T, control *admin.Client, machine innate.ResourceID) {
	t.Helper()
	var ticket struct {
		Join string `json:"join"`
	}
	if err := control.ARM(t.Context(), http.MethodPost, string(machine)+"/join", nil, &ticket); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(h.dir, "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := agent.Join(t.Context(), filepath.Join(h.dir, "agent"), ticket.Join); err != nil {
		t.Fatal(err)
	}
}

// agent starts the agent; stub is how it starts programs.
func (h *host) agent(t *testing.T, stub ...string) *agent.Agent {
	t.Helper()
	a, err := agent.New(agent.Config{
		State: filepath.Join(h.dir, "agent"), Runtime: filepath.Join(h.dir, "run"), Dev: true, Log: h.log,
		Stub: stub,
	})
	if err != nil {
		t.Fatal(err)
	}
	part(t, a.Run)
	return a
}

// Design §7, truth 6.
func TestAnAgentServesWhatItHoldsWhileTheControlPlaneIsAwayAndHealsByItself(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	control, stop := h.control(t)
	put := func(id innate.ResourceID, body map[string]any) {
		t.Helper()
		body["location"] = "local"
		if err := control.ARM(t.Context(), http.MethodPut, string(id), body, nil); err != nil {
			t.Fatal(err)
		}
	}
	group := control.Group("rg1")
	machine, vm := group+"/providers/Microsoft.HybridCompute/machines/node-1", group+"/providers/Microsoft.Compute/virtualMachines/web-1"
	put(group, map[string]any{})
	put(machine, map[string]any{})
	put(vm, map[string]any{
		"identity": map[string]string{"type": "SystemAssigned"}, "properties": map[string]any{"host": map[string]any{"id": machine}},
	})
	h.join(t, control, machine)
	a := h.agent(t, "/nonexistent: this test starts no program")
	<-a.Ready()
	env, err := a.Lend(t.Context(), vm)
	if err != nil {
		t.Fatal(err)
	}
	d := doorOf(t, env)
	held := d.token(t, "https://vault.azure.net").Token
	if held == "" {
		t.Fatal("no token to begin with")
	}

	stop()
	if r := d.token(t, "https://vault.azure.net"); r.Token != held {
		t.Errorf("what it holds: got %d %s, want the token", r.Status, r.text())
	}
	// Never a 400: clients take that for good.
	if r := d.token(t, "https://graph.microsoft.com"); r.Token != "" || r.Status != http.StatusServiceUnavailable {
		t.Errorf("what it does not hold: got %d %s, want 503", r.Status, r.text())
	}

	control, _ = h.control(t)
	eventually(t, "the agent gets tokens again, and nobody has touched it", func() bool {
		return d.token(t, "https://graph.microsoft.com").Token != ""
	})
	// What the host decided meanwhile is told, each once.
	decided := func(all []audit.Event) (n int) {
		for _, ev := range all {
			if ev.Action == "get-token" && ev.Target == "https://graph.microsoft.com" && !ev.Allowed {
				n++
			}
		}
		return n
	}
	eventually(t, "the control plane has what the host recorded without it", func() bool {
		return decided(events(t, control, "from=node-1")) == 1 && a.Status().Audit.Behind == 0
	})
	put(vm, map[string]any{"properties": map[string]any{"host": map[string]any{"id": machine}}, "identity": map[string]string{"type": "None"}})
	eventually(t, "the agent hears of changes again", func() bool {
		return d.token(t, "https://vault.azure.net").Token == ""
	})
}
