// Package platform is the whole in one process: control plane, one host's agent
// joined to it, and a client of the administrators' socket. It is what a laptop,
// a CI job and a test run; production runs the same two parts apart.
//
// It owns the folder they live in and the names that apps on it resolve. It
// listens on loopback only, and its store is marked so that 'innate server'
// refuses it.
package platform

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/admin"
	"innate/agent"
	"innate/discovery"
	"innate/server"
)

// DefaultDomain is under a top-level domain reserved for tests (RFC 6761 §6.2).
const DefaultDomain = "innate.test"

// Config says where a Platform lives. Dir is required.
type Config struct {
	Dir    string                          // an empty folder, or one that a Platform made before; others may pass through it (0711)
	Domain string                          // empty means DefaultDomain
	Port   int                             // 0 means any free one
	Stub   []string                        // how to start launch.Main; nil means this program with the argument "launch"
	NewKey func() (*rsa.PrivateKey, error) // see tokens.Config
	Now    func() time.Time
	Log    *slog.Logger

	Outside discovery.Outside // see tokens.Config
}

// A Platform is a control plane and an agent in this process.
type Platform struct {
	Server  *server.Server
	Agent   *agent.Agent      // after Ready
	Admin   *admin.Client     // after Ready
	Machine innate.ResourceID // this host, after Ready
	Dir     Dir

	config Config
	client *http.Client
	ready  chan struct{}
}

// A Dir is the folder of a Platform.
type Dir string

// Socket is the administrators' socket; its folder is closed to everybody else.
func (d Dir) Socket() string { return filepath.Join(string(d), "admin", "admin.sock") }

// AgentSocket is where 'innate run' asks to run as an app.
func (d Dir) AgentSocket() string { return filepath.Join(string(d), "run", "agent.sock") }

// CA is the certificate of the platform's server authority, PEM.
func (d Dir) CA() string { return filepath.Join(string(d), "run", "ca.pem") }

// Bundle is the system's roots and CA, PEM: for programs that take one file only.
func (d Dir) Bundle() string { return filepath.Join(string(d), "run", "bundle.pem") }

// Hosts is what apps see as /etc/hosts: the system's, and the platform's names.
func (d Dir) Hosts() string { return filepath.Join(string(d), "run", "hosts") }

func (d Dir) control() string { return filepath.Join(string(d), "control") }
func (d Dir) agent() string   { return filepath.Join(string(d), "agent") }
func (d Dir) run() string     { return filepath.Join(string(d), "run") }

// Open makes or opens the platform in c.Dir and takes a port; Run serves it.
func Open(ctx context.Context, c Config) (_ *Platform, err error) {
	if c.Dir == "" {
		return nil, errors.New("platform: Config needs Dir")
	}
	if c.Domain == "" {
		c.Domain = DefaultDomain
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	p := &Platform{Dir: Dir(c.Dir), config: c, ready: make(chan struct{})}
	if err := p.folders(ctx); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", c.Port))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	names := &names{path: p.Dir.Hosts()}
	if p.Server, err = server.New(ctx, server.Config{
		Dir: p.Dir.control(), Listener: l, Socket: p.Dir.Socket(), Operator: os.Getuid(), Dev: true,
		Names: names.add, Outside: c.Outside, NewKey: c.NewKey, Now: c.Now, Log: c.Log,
	}); err != nil {
		return nil, err
	}
	p.client = p.newClient()
	if err := p.writeTrust(); err != nil {
		p.Server.Close()
		return nil, err
	}
	return p, nil
}

func (p *Platform) folders(ctx context.Context) error {
	for dir, mode := range map[string]fs.FileMode{
		string(p.Dir): 0o711, p.Dir.run(): 0o711, p.Dir.agent(): 0o700, filepath.Dir(p.Dir.Socket()): 0o700,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return err
		}
		if err := os.Chmod(dir, mode); err != nil { // MkdirAll is subject to the umask
			return err
		}
	}
	if _, err := os.Stat(p.Dir.control()); err == nil {
		return nil
	}
	return server.Create(ctx, p.Dir.control(), p.config.Domain, true, p.config.Now())
}

// writeTrust writes CA and Bundle.
func (p *Platform) writeTrust() error {
	own := p.Server.Bundle()
	if err := os.WriteFile(p.Dir.CA(), own, 0o644); err != nil {
		return err
	}
	system, _ := systemRoots() // a machine without any has ours alone
	return os.WriteFile(p.Dir.Bundle(), append(append(system, '\n'), own...), 0o644)
}

// systemRoots reads the first of the files where Linux distributions keep their
// roots (the list of crypto/x509).
func systemRoots() ([]byte, error) {
	var err error
	for _, path := range []string{
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem", "/etc/pki/tls/cacert.pem",
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	} {
		var b []byte
		if b, err = os.ReadFile(path); err == nil {
			return b, nil
		}
	}
	return nil, err
}

// Trust is the environment under which programs find the platform's
// authority: Go and OpenSSL, Node, Python's requests, curl.
func (d Dir) Trust() []string {
	return []string{
		"SSL_CERT_FILE=" + d.Bundle(),
		"NODE_EXTRA_CA_CERTS=" + d.CA(),
		"REQUESTS_CA_BUNDLE=" + d.Bundle(),
		"CURL_CA_BUNDLE=" + d.Bundle(),
	}
}

// Run serves until ctx ends, and has stopped everything when it returns.
func (p *Platform) Run(ctx context.Context) error {
	// The agent's apps are to end while the control plane still answers.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error { return p.Server.Run(serving) })
	g.Go(func() error {
		defer stop()
		defer p.client.CloseIdleConnections() // the server waits for those who might still ask
		host, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(serving, cancel)()
		return p.runAgent(host)
	})
	return g.Wait()
}

// runAgent joins this host to the control plane, anew at each start, and runs its agent.
func (p *Platform) runAgent(ctx context.Context) (err error) {
	if p.Admin, err = dial(ctx, p.Dir.Socket()); err != nil {
		return quiet(ctx, err)
	}
	if err := p.join(ctx); err != nil {
		return quiet(ctx, fmt.Errorf("joining this host: %w", err))
	}
	if p.Agent, err = agent.New(agent.Config{
		State: p.Dir.agent(), Runtime: p.Dir.run(), Dev: true,
		Hosts: p.Dir.Hosts(), Hide: []string{filepath.Dir(p.Dir.Socket())},
		Env: p.Dir.Trust(), Stub: p.config.Stub, Now: p.config.Now, Log: p.config.Log,
	}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.Agent.Run(ctx) })
	g.Go(func() error {
		select {
		case <-p.Agent.Ready():
			close(p.ready)
		case <-ctx.Done():
		}
		return nil
	})
	return g.Wait()
}

// quiet drops an error that is only the end of ctx.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// dial waits for the server, which is starting in this process.
func dial(ctx context.Context, socket string) (*admin.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := admin.Dial(ctx, socket)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Millisecond):
		}
	}
}

// Group is the resource group that holds this host.
const Group = "hosts"

func (p *Platform) join(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "localhost"
	}
	name, _, _ = strings.Cut(name, ".")
	group := p.Admin.Group(Group)
	if err := p.Admin.ARM(ctx, http.MethodPut, string(group), map[string]string{"location": "local"}, nil); err != nil {
		return err
	}
	p.Machine = group + innate.ResourceID("/providers/Microsoft.HybridCompute/machines/"+name)
	if err := p.Admin.ARM(ctx, http.MethodPut, string(p.Machine), map[string]any{
		"location": "local", "identity": map[string]string{"type": "SystemAssigned"},
	}, nil); err != nil {
		return err
	}
	var ticket struct {
		Join string `json:"join"`
	}
	if err := p.Admin.ARM(ctx, http.MethodPost, string(p.Machine)+"/join", nil, &ticket); err != nil {
		return err
	}
	return agent.Join(ctx, p.Dir.agent(), ticket.Join)
}

// Ready is closed when the agent has joined and heard what is placed on it.
func (p *Platform) Ready() <-chan struct{} { return p.ready }
