// Package agent is the host agent: its own certificate, who lives on this host,
// the endpoints they ask at, tokens fetched and kept. It speaks to the control
// plane by HTTP alone.
//
// It owns what is true of one host: which workloads are placed here (as the feed
// tells), under which uid and cgroup each app runs, which certificates and
// tokens it holds for them, in memory. It leaves the dialects to agent/imds and
// agent/appservice, the kernel's word to agent/caller, and whatever takes root to
// agent/opener, which may be another process.
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
	"innate/agent/opener"
	"innate/agent/tpm"
	"innate/audit"
	"innate/audit/ship"
	"innate/feed/client"
)

const (
	defaultGrace = 5 * time.Second
	defaultWell  = time.Minute
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
	Opener   opener.Opener                // opens what takes root; nil means this process, by the fields above
	Leave    <-chan struct{}              // closed to have Run return and leave everything that Opener holds to a next agent; nil: never
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
	shipping *ship.Sender
	feed     *client.Client
	placed   *placements
	tokens   *cache
	memory   *memory
	opener   opener.Opener
	local    *opener.Local // the same, when it is in this process
	apps     *apps
	journals *journals
	metadata *metadata
	host     func() *host // what this host can do, found out when first asked
	ready    chan struct{}
	leaving  chan struct{} // closed when Run leaves
	quiet    chan struct{} // closed when nobody is served on the socket any more
}

// New opens what Join wrote, and the audit log. It serves nothing yet.
func New(c Config) (*Agent, error) {
	if c.State == "" || c.Runtime == "" {
		return nil, errors.New("agent: Config needs State and Runtime")
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
	find := tpm.Find
	if c.Opener != nil {
		find = func(path string) (*tpm.Device, error) {
			return tpm.Lent(path, func() (*os.File, error) { return opener.TPM(c.Opener) })
		}
	}
	machine, key, err := readState(c.State, find)
	if err != nil {
		return nil, err
	}
	a := &Agent{config: c, machine: machine, opener: c.Opener, ready: make(chan struct{}), leaving: make(chan struct{}), quiet: make(chan struct{})}
	if a.opener == nil {
		if a.local, err = opener.New(opener.Config{
			Runtime: c.Runtime, Records: c.State, Hosts: c.Hosts, Hide: c.Hide, Cgroups: c.Cgroups, UIDBase: c.UIDBase,
			AnyUser: true, TakeOver: c.TakeOver, Stub: c.Stub, Log: c.Log,
		}); err != nil {
			return nil, err
		}
		a.opener = a.local
	}
	if a.upstream, err = newUpstream(machine, key); err != nil {
		return nil, err
	}
	a.vaults = newVaults(a.upstream)
	if a.audit, err = audit.Open(filepath.Join(c.State, auditFile)); err != nil {
		return nil, err
	}
	a.shipping = &ship.Sender{URL: a.upstream.url("/v1/audit"), HTTP: a.upstream.http, Log: a.audit, Logger: c.Log}
	a.host = sync.OnceValue(func() *host { return look(c, a.opener) })
	if a.memory, err = newMemory(c.Runtime, a.upstream, c.Log); err != nil {
		return nil, err
	}
	a.tokens = newCache(a.upstream, a.memory, c.Now, c.Log)
	a.apps = newApps(a)
	a.journals = &journals{dir: filepath.Join(c.Runtime, journalsDir), now: c.Now, log: c.Log, by: map[string]*journal{}}
	a.metadata = newMetadata(a)
	a.placed = newPlacements(a.changed, a.tokens.revoke, a.tokens.revokeAll)
	if a.feed, err = client.New(client.Config{
		URL: a.upstream.url("/v1/feed"), HTTP: a.upstream.http, Apply: a.placed.apply, Log: c.Log,
	}); err != nil {
		return nil, err
	}
	return a, nil
}

// Machine is the resource that this host joined as.
func (a *Agent) Machine() innate.ResourceID { return a.machine.Machine }

// Ready is closed when the agent knows what is placed on this host and answers on its socket.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Assurance is the best proof of an app's caller that this host allows.
func (a *Agent) Assurance() innate.Assurance { return a.host().assurance }

// Run serves until ctx ends. Then it ends the apps that it started, and has
// stopped everything when it returns. When Config.Leave is closed it returns too,
// and apps and VMs go on: the next agent takes them up. It is called once.
func (a *Agent) Run(ctx context.Context) error {
	defer a.audit.Close()
	here := a.host()
	defer a.shut(here)
	here.describe(a.config.Log)

	a.recall() // before anybody can ask
	control, err := opener.Control(a.opener)
	if err != nil {
		return err
	}
	// What a next agent does not go on with ends with this. It is not ctx's: that may
	// end behind the agent that has left, while this process is still there.
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if !a.leaves() {
			end()
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	a.apps.open(lasting)
	a.metadata.open(lasting)
	if err := a.takeUp(lasting); err != nil {
		return err
	}
	context.AfterFunc(ctx, func() {
		if !a.leaves() {
			end()
		}
	})
	g.Go(func() error {
		select {
		case <-a.config.Leave:
			close(a.leaving)
			a.finish()
			stop()
		case <-ctx.Done():
		}
		return nil
	})
	g.Go(func() error { return a.feed.Run(ctx) })
	g.Go(func() error { return a.renew(ctx) })
	g.Go(func() error { return a.shipping.Run(ctx) })
	g.Go(func() error { return a.tokens.refreshing(ctx) })
	g.Go(func() error { return a.memory.keeping(ctx, a.know) })
	g.Go(func() error { return a.serveControl(ctx, control) })
	g.Go(func() error { return a.tellAlive(ctx) })
	g.Go(func() error {
		select {
		case <-a.feed.Synced():
			a.apps.endUnplaced()
			close(a.ready)
		case <-ctx.Done():
		}
		return nil
	})
	err = g.Wait()
	if a.leaves() {
		return err
	}
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

// describe says at the start what can be proved here, and what cannot be done.
func (h *host) describe(log *slog.Logger) {
	log.Info("callers of apps are proved", "assurance", h.assurance, "notBetterBecause", h.why())
	for _, c := range h.capabilities() {
		if c.Note != "" {
			log.Info("a proof of callers", "assurance", c.Assurance, "available", c.Available, "note", c.Note)
		}
	}
	if h.facts.Swept != "" {
		log.Warn("removing what an earlier agent left", "err", h.facts.Swept)
	}
	if h.facts.NoMounts != "" {
		log.Warn("apps run without a mount namespace: the platform's own names do not resolve in them", "err", h.facts.NoMounts)
	}
}

// shut closes what the agent asks the kernel by, and its opener if that is its own.
func (a *Agent) shut(h *host) {
	if h.diag != nil {
		h.diag.Close()
	}
	if a.local == nil {
		return
	}
	if err := a.local.Close(); err != nil {
		a.config.Log.Warn("removing what was made for apps and VMs", "err", err)
	}
}
