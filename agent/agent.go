// Package agent is the host agent: its own certificate, who lives on this host,
// the endpoints they ask at, tokens fetched and kept. It speaks to the control
// plane by HTTP alone.
//
// It owns what is true of one host: which workloads are placed here (as the feed
// tells), under which uid and cgroup each app runs, which certificates and
// tokens it holds for them, in memory. It leaves the dialects to agent/imds and
// agent/appservice, the kernel's word to agent/caller, processes to agent/launch.
//
// A token belongs to the workload it was fetched for: nothing here may hand it
// to a caller before that caller was proved to be this workload, as surely as
// the workload demands.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
	"innate/audit"
	"innate/feed/client"
)

const (
	defaultUIDBase = 1_900_000_000 // far from what systemd, /etc/subuid and people use (host-attestation §3)
	defaultGrace   = 5 * time.Second
	defaultWell    = time.Minute
)

// Config says what an Agent needs. State and Runtime are required.
type Config struct {
	State    string                       // directory, 0700: what Join wrote, the uid map, the audit log
	Runtime  string                       // directory, 0711: agent.sock, and the logs of apps that run detached
	Dev      bool                         // quickstart and dev: secret-only will do, and the agent's own uid may run apps
	Hosts    string                       // file that apps see as /etc/hosts; empty: the system's
	Hide     []string                     // directories that apps see empty
	Env      []string                     // further variables for apps; an app's own settings win
	Cgroups  string                       // what the name of the cgroup subtree begins with; empty means "innate-"
	UIDBase  uint32                       // apps' uids begin above it when the agent is root; 0 means 1 900 000 000
	TakeOver bool                         // VMs may be served in the agent's own network namespace: hides the cloud's metadata service
	Grace    time.Duration                // between an app's SIGTERM and SIGKILL; 0 means 5 s
	Well     time.Duration                // within which a new generation is to be well before it replaces the old one; 0 means 1 min
	Stub     []string                     // see launch.Spec
	NewDiag  func() (*caller.Diag, error) // asks the kernel about callers; nil means caller.NewDiag
	Now      func() time.Time
	Log      *slog.Logger
}

// Agent is one host's agent.
type Agent struct {
	config   Config
	machine  joined
	upstream *upstream
	vaults   *vaults
	audit    *audit.Log
	placed   *placements
	tokens   *cache
	memory   *memory
	uids     *uids
	apps     *apps
	journals *journals
	metadata *metadata
	host     func() *host // what this host can do, found out when first asked
	ready    chan struct{}
}

// New opens what Join wrote, and the audit log. It serves nothing yet.
func New(c Config) (*Agent, error) {
	if c.State == "" || c.Runtime == "" {
		return nil, errors.New("agent: Config needs State and Runtime")
	}
	if c.Cgroups == "" {
		c.Cgroups = "innate-"
	}
	if c.UIDBase == 0 {
		c.UIDBase = defaultUIDBase
	}
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.NewDiag == nil {
		c.NewDiag = caller.NewDiag
	}
	if c.Well == 0 {
		c.Well = defaultWell
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	machine, key, err := readState(c.State)
	if err != nil {
		return nil, err
	}
	a := &Agent{config: c, machine: machine, ready: make(chan struct{})}
	if a.upstream, err = newUpstream(machine, key); err != nil {
		return nil, err
	}
	a.vaults = newVaults(a.upstream)
	if a.uids, err = openUIDs(filepath.Join(c.State, uidsFile), c.UIDBase); err != nil {
		return nil, err
	}
	if a.audit, err = audit.Open(filepath.Join(c.State, auditFile)); err != nil {
		return nil, err
	}
	a.host = sync.OnceValue(func() *host { return look(c) })
	if a.memory, err = newMemory(c.Runtime, a.upstream, c.Log); err != nil {
		return nil, err
	}
	a.tokens = newCache(a.upstream, a.memory, c.Now, c.Log)
	a.apps = newApps(a)
	a.journals = &journals{dir: filepath.Join(c.Runtime, journalsDir), now: c.Now, log: c.Log, by: map[string]*journal{}}
	a.metadata = newMetadata(a)
	a.placed = newPlacements(a.changed, a.tokens.revoke, a.tokens.revokeAll)
	return a, nil
}

// Machine is the resource that this host joined as.
func (a *Agent) Machine() innate.ResourceID { return a.machine.Machine }

// Ready is closed when the agent knows what is placed on this host and answers on its socket.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Assurance is the best proof of an app's caller that this host allows.
func (a *Agent) Assurance() innate.Assurance { return a.host().assurance }

// Run serves until ctx ends. Then it ends the apps that it started, and has
// stopped everything when it returns. It is called once.
func (a *Agent) Run(ctx context.Context) error {
	defer a.audit.Close()
	here := a.host()
	defer here.close(a.config.Log)
	here.describe(a.config.Log)

	feed, err := client.New(client.Config{
		URL: a.upstream.url("/v1/feed"), HTTP: a.upstream.http, Apply: a.placed.apply, Log: a.config.Log,
	})
	if err != nil {
		return err
	}
	control, err := a.listen()
	if err != nil {
		return err
	}
	if err := a.sweepFolders(); err != nil {
		control.Close()
		return err
	}
	a.recall()
	g, ctx := errgroup.WithContext(ctx)
	a.apps.open(ctx)
	a.metadata.open(ctx)
	g.Go(func() error { return feed.Run(ctx) })
	g.Go(func() error { return a.renew(ctx) })
	g.Go(func() error { return a.tokens.refreshing(ctx) })
	g.Go(func() error { return a.memory.keeping(ctx, a.know) })
	g.Go(func() error { return a.serveControl(ctx, control) })
	g.Go(func() error {
		select {
		case <-feed.Synced():
			close(a.ready)
		case <-ctx.Done():
		}
		return nil
	})
	err = g.Wait()
	a.apps.wait()
	a.metadata.wait()
	a.tokens.close()
	a.upstream.close()
	a.vaults.close()
	return err
}

// changed ends what a change of placement ends: what was fetched for an
// identity that a workload no longer has, and everything of a workload that is
// gone. It is called in the feed's order and does not wait.
func (a *Agent) changed(was, now *client.Placement) {
	if now == nil {
		a.tokens.forget(was.Resource)
		a.apps.gone(was.Resource)
		a.journals.forget(was.Resource)
		a.metadata.gone(was.Resource)
		return
	}
	if was == nil {
		return
	}
	for _, id := range was.Identities {
		if _, still := holds(now, id.Object); !still {
			a.tokens.detach(was.Resource, id.Object)
		}
	}
}

// openCgroups makes a subtree of this agent's own below one of this process's
// own, whose name tells the next run when it may be swept away. Whether cgroups
// may be made is found out by making one.
func (h *host) openCgroups(prefix string) error {
	h.swept = launch.Sweep(prefix)
	name, err := launch.OwnName(prefix)
	if err != nil {
		return err
	}
	subtree, err := launch.OpenCgroups(filepath.Join(name, innate.NewGUID()[:8]))
	if err != nil {
		return err
	}
	probe, err := subtree.Make("probe")
	if err == nil {
		err = probe.Remove()
	}
	if err != nil {
		return err
	}
	h.cgroups, h.process = subtree, filepath.Dir(filepath.Dir(probe.Path()))
	return nil
}

// describe says at the start what can be proved here, and what cannot be done.
func (h *host) describe(log *slog.Logger) {
	log.Info("callers of apps are proved", "assurance", h.assurance, "notBetterBecause", h.why())
	for _, c := range h.capabilities() {
		if c.Note != "" {
			log.Info("a proof of callers", "assurance", c.Assurance, "available", c.Available, "note", c.Note)
		}
	}
	if h.swept != nil {
		log.Warn("removing what an earlier agent left", "err", h.swept)
	}
	if h.mounts != nil {
		log.Warn("apps run without a mount namespace: the platform's own names do not resolve in them", "err", h.mounts)
	}
}

func (h *host) close(log *slog.Logger) {
	if h.cgroups != nil {
		if err := h.cgroups.Close(); err != nil {
			log.Warn("removing our cgroups", "err", err)
		}
		os.Remove(h.process) // the last agent succeeds
	}
	if h.diag != nil {
		h.diag.Close()
	}
}
