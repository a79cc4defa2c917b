// Package opener is the privileged half of a host's agent: it opens what only
// root may open, starts apps under their uids, and holds all of it, so that the
// other half, the worker, can end and come back without an app noticing.
//
// It owns the homes of generations (cgroup, port, network namespace, files,
// processes and how they ended) and the spots where VMs are met. It knows no
// tokens, speaks no HTTP and decides nothing about identity: that is the
// worker's, package agent.
//
// Local carries orders out in this process: a laptop's agent is one process, and
// so is an ordinary user's. In production the opener is a process of its own
// (Serve) and the worker, an ordinary user with no capability, asks by Remote.
// Then the worker is believed as little as it can be. One that an attacker has
// taken over has the tokens and the connection to the control plane anyway; by
// its orders it can
//
//   - start programs under the uids of apps, which the opener gives out itself,
//     and under those users of the host whom the operator lends, in cgroups and
//     network namespaces that the opener made;
//   - signal and end what was started so, and read its environment;
//   - serve units of the host's service manager, and put variables into those that
//     root has made apps; their processes it cannot touch;
//   - put files in the folders of generations, owned by the app, under plain
//     names, and take them away;
//   - listen on 127.0.0.1 at ports of the kernel's choosing, and at
//     169.254.169.254:80 in network namespaces whose open file it can show, at
//     devices there and at ports of bridges there, with rules that the opener
//     writes; in the host's own namespace only where the operator said so;
//   - use the host's TPM, where the key is that it renews with.
//
// It cannot start anything under another uid, root's least of all; signal or
// look into any other process; name a path that is written or opened; run a
// program, enter a namespace or write a rule as root; or hold more than so many
// homes, spots and records at a time. What it sends is parsed by one reader of
// JSON, bounded in size.
package opener

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
)

// An Opener carries out orders.
type Opener interface {
	// Do carries out one order. It takes none of the files over; those that it
	// returns are the caller's. An order that waits ends with ctx.
	Do(ctx context.Context, o Order, files ...*os.File) (Answer, []*os.File, error)
}

// Config says what a Local needs. Runtime and Records are required.
type Config struct {
	Runtime  string   // directory, 0711: agent.sock, and the files of generations
	Records  string   // directory, 0700: which app has which uid
	Held     string   // directory, 0700: what is held, written down for a restart; empty: nothing outlives us
	Hosts    string   // file that apps see as /etc/hosts; empty: the system's
	Hide     []string // directories that apps see empty
	Cgroups  string   // what the name of the cgroup subtree begins with; empty means "innate-"
	UIDBase  uint32   // apps' uids begin above it when we are root; 0 means 1 900 000 000
	Lend     []string // users of the host under whom apps may run, by name or uid
	AnyUser  bool     // ... or under any who is not root: for who need not fear its worker
	TakeOver bool     // VMs may be served in our own network namespace
	TPM      string   // device of the host's TPM, or the socket of an emulator; empty: the worker has none
	Stub     []string // see launch.Spec
	Log      *slog.Logger
}

// DefaultUIDBase is far from what systemd, /etc/subuid and people use (host-attestation §3).
const DefaultUIDBase = 1_900_000_000

// How much one worker may have at a time.
const (
	mostHomes = 4096
	mostSpots = 4096
)

// A Local carries orders out in this process.
type Local struct {
	config  Config
	root    bool
	uids    *uids
	bridges bridges
	taking  sync.Mutex // held while the address is put on our own namespace, or taken off it
	ground  func() *ground

	removals launch.Removals // of units' cgroups
	manager  *manager        // of Open's; nil: none keeps anything
	alive    atomic.Bool     // the worker has said so since somebody looked
	served   sync.Once       // ... for the first time

	mu      sync.Mutex
	control *os.File         // the agent's socket; nil: it was not asked for
	homes   map[string]*home // by id
	spots   map[string]*spot // by id
	kept    map[string]*kept // by name
}

// New checks c. It makes nothing yet.
func New(c Config) (*Local, error) {
	if c.Runtime == "" || c.Records == "" {
		return nil, errors.New("opener: Config needs Runtime and Records")
	}
	c.Cgroups = cmp.Or(c.Cgroups, "innate-")
	c.UIDBase = cmp.Or(c.UIDBase, DefaultUIDBase)
	c.Log = cmp.Or(c.Log, slog.Default())
	l := &Local{
		config: c, root: os.Getuid() == 0, homes: map[string]*home{}, spots: map[string]*spot{}, kept: map[string]*kept{},
		bridges: bridges{all: map[bridgeKey]*bridge{}},
	}
	var err error
	if l.uids, err = openUIDs(filepath.Join(c.Records, uidsFile), c.UIDBase); err != nil {
		return nil, err
	}
	l.ground = sync.OnceValue(l.look)
	return l, nil
}

// Do carries out one order.
func (l *Local) Do(ctx context.Context, o Order, files ...*os.File) (Answer, []*os.File, error) {
	carryOut, known := orders[o.Op]
	if !known {
		return Answer{}, nil, fmt.Errorf("the opener knows no order %.40q", o.Op)
	}
	return carryOut(l, ctx, o, files)
}

// orders is all that can be ordered.
var orders = map[string]func(*Local, context.Context, Order, []*os.File) (Answer, []*os.File, error){
	"facts":      (*Local).tellFacts,
	"search":     (*Local).probeSearch,
	"control":    (*Local).openControl,
	"alive":      (*Local).hearAlive,
	"lends":      (*Local).tellLends,
	"tpm":        (*Local).openTPM,
	"make":       (*Local).make,
	"folder":     inHome((*home).makeFolder),
	"write":      inHome((*home).write),
	"unlink":     inHome((*home).unlink),
	"start":      inHome((*home).start),
	"wait":       inHome((*home).wait),
	"empty":      inHome((*home).empty),
	"environ":    inHome((*home).environ),
	"signal":     inHome((*home).signal),
	"kill":       inHome((*home).kill),
	"members":    inHome((*home).members),
	"dial":       inHome((*home).dial),
	"port":       inHome((*home).freePort),
	"diag":       inHome((*home).diag),
	"note":       inHome((*home).note),
	"again":      inHome((*home).again),
	"keep":       (*Local).keep,
	"kept":       (*Local).tellKept,
	"forget":     (*Local).forget,
	"left":       (*Local).left,
	"held":       inHome((*home).held),
	"remove":     (*Local).remove,
	"find":       (*Local).find,
	"listen":     atSpot((*spot).open),
	"over":       atSpot((*spot).tellOver),
	"interfaces": atSpot((*spot).tellInterfaces),
	"leave":      (*Local).leave,
}

// A ground is what this machine lets us do.
type ground struct {
	cgroups *launch.Cgroups // nil: none may be made
	process string          // directory above it, which other agents of this process share
	facts   Facts
}

// Facts are what the opener found out about the machine and itself, by trying.
// What is empty can be done.
type Facts struct {
	UID          uint32 `json:"uid"` // the opener's own: 0, or apps run under it too
	NoCgroups    string `json:"noCgroups,omitempty"`
	NoNamespaces string `json:"noNamespaces,omitempty"` // why it cannot serve in them
	NoDevices    string `json:"noDevices,omitempty"`    // why callers cannot be told apart by them
	NoRules      string `json:"noRules,omitempty"`      // why there can be none at the ports of bridges
	NoMounts     string `json:"noMounts,omitempty"`     // why apps cannot have a mount namespace
	Swept        string `json:"swept,omitempty"`        // what an earlier agent left and could not be removed
}

// look finds out.
func (l *Local) look() *ground {
	g := &ground{facts: Facts{UID: uint32(os.Getuid())}}
	if l.config.Held == "" {
		g.facts.NoCgroups = text(g.openCgroups(l.config.Cgroups))
	} else {
		g.facts.NoCgroups = text(g.openLasting(l.config))
	}
	g.facts.NoNamespaces = text(caller.ProbeNamespaces())
	g.facts.NoDevices = text(caller.ProbeDevices())
	_, err := nft()
	g.facts.NoRules = text(err)
	if !l.root && (l.config.Hosts != "" || len(l.config.Hide) > 0) {
		g.facts.NoMounts = text(launch.UserNamespaces(l.config.Stub))
	}
	return g
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// openCgroups makes a subtree of our own below one of this process's own, whose
// name tells the next run when it may be swept away. Whether cgroups may be made
// is found out by making one.
func (g *ground) openCgroups(prefix string) error {
	g.facts.Swept = text(launch.Sweep(prefix))
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
	g.cgroups, g.process = subtree, filepath.Dir(filepath.Dir(probe.Path()))
	return nil
}

// openLasting opens the subtree that outlives us: below our own cgroup where the
// service manager has given us that (Delegate=), else at the top.
func (g *ground) openLasting(c Config) (err error) {
	g.facts.Swept = text(launch.Sweep(c.Cgroups))
	sum := sha256.Sum256([]byte(c.Held))
	if g.cgroups, err = launch.OpenLasting(c.Cgroups + "held-" + hex.EncodeToString(sum[:4])); err == nil {
		g.process = g.cgroups.Path()
	}
	return err
}

func (l *Local) tellFacts(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	return Answer{Facts: &l.ground().facts}, nil, nil
}

// probeSearch says why callers cannot be searched for where the kernel names no
// cgroup of a socket.
func (l *Local) probeSearch(context.Context, Order, []*os.File) (Answer, []*os.File, error) {
	dir, err := launch.OwnDirectory()
	if err != nil {
		return Answer{}, nil, err
	}
	d, err := caller.NewDiag()
	if err != nil {
		return Answer{}, nil, err
	}
	defer d.Close()
	return Answer{}, nil, d.ProbeHolders(dir)
}

// Close ends every process that was started and removes what was made.
func (l *Local) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	if l.control != nil {
		errs = append(errs, os.Remove(filepath.Join(l.config.Runtime, SocketFile)), l.control.Close())
		l.manager.drop(SocketFile)
		l.control = nil
	}
	for id, s := range l.spots {
		errs = append(errs, s.close(), l.unsave(spotRecords, id))
		delete(l.spots, id)
	}
	if g := l.ground(); g.cgroups != nil {
		errs = append(errs, g.cgroups.Close())
		os.Remove(g.process) // the last agent succeeds
	}
	for id, h := range l.homes {
		errs = append(errs, h.close(), l.unsave(homeRecords, id))
		delete(l.homes, id)
	}
	errs = append(errs, l.removals.Close())
	for n, k := range l.kept {
		k.close()
		errs = append(errs, l.unsave(keptRecords, n))
		delete(l.kept, n)
	}
	return errors.Join(errs...)
}
