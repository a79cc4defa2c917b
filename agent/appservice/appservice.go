// Package appservice is what an app sees at IDENTITY_ENDPOINT: the managed
// identity endpoint of App Service (managed-identity-endpoints §2) or, for a
// program that knows only one of the others, of Service Fabric, Azure ML or
// Azure Arc (§3).
//
// It owns one port for one generation of one app: who may speak there, the
// dialect and the record of what was answered. Making the generation (its
// cgroup, uid and process) and getting tokens is its caller's.
//
// The secret is not the authority, the kernel's word is; both are required. The
// secret stops requests that the app was tricked into making, the kernel's word
// those of everybody else.
package appservice

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"innate"
	"innate/agent/caller"
	"innate/agent/endpoint"
	"innate/audit"
)

// Tokens is where tokens come from. An error that is an *innate.Refusal is answered as it says.
type Tokens interface {
	Token(ctx context.Context, workload innate.ResourceID, which innate.Selector, resource string, proof innate.Assurance) (innate.Token, error)
	// Refused tells that a resource refused the workload's token with that SHA-256.
	Refused(workload innate.ResourceID, sum [sha256.Size]byte)
}

// Attestor states kernel facts about a connection's peer; *caller.Diag is one.
type Attestor interface {
	Attest(c *net.TCPConn) (caller.Facts, error)
}

// A Generation is one run of an app: port, secret, cgroup and uid, created together, ended together
// (host-attestation §7).
type Generation struct {
	App    innate.ResourceID
	Number int
	UID    uint32 // never 0: a vanished socket would report that
	Cgroup uint64 // 0 where the agent may not make cgroups: then the proof is the uid's or the secret's
	// Held is set where the kernel names no cgroup of a socket: callers are then
	// proved by which processes hold it (caller.HeldIn).
	Held func(caller.Facts) error
	// Below is set where the app makes cgroups of its own below Cgroup: it reports
	// whether one with that id is among them. It is called in the accept loop.
	Below func(cgroup uint64) bool
	// Proof is the assurance reached when every check passes; netns when the listener is in a namespace that is the app's alone.
	Proof innate.Assurance
}

// A Folder has files that only the app may read; opener.Folder is one.
type Folder interface {
	Write(name string, content []byte) (changed bool, err error)
	Remove(name string) error
}

// Config says what an endpoint needs. Log and Now may be nil.
type Config struct {
	Generation Generation
	Shape      Shape            // empty means AppService
	Listener   *net.TCPListener // 127.0.0.1:0, by caller.Listen
	Secret     string           // 256 bits; kept as its SHA-256 only; Arc has none
	Kept       *Kept            // by which an earlier endpoint of the generation knew its app; nil: there was none
	Challenges Folder           // Arc: empty; the app sees it as ChallengeDir
	Client     innate.ClientID  // AzureML: of the identity that a program means that names none; may be empty
	Attestor   Attestor         // nil only where nothing more than the secret is proved
	Tokens     Tokens
	Audit      *audit.Log
	Log        *slog.Logger
	Now        func() time.Time
}

// An Endpoint serves one generation.
type Endpoint struct {
	generation  Generation
	shape       Shape
	dialect     *dialect
	listener    *net.TCPListener
	secret      secret
	challenges  *challenges      // Arc: the secret
	certificate *tls.Certificate // ServiceFabric
	client      innate.ClientID
	attestor    Attestor
	tokens      Tokens
	ledger      endpoint.Ledger
	log         *slog.Logger
	now         func() time.Time
	hosts       []string // what Host may be
	server      *endpoint.Service
	leaving     atomic.Bool
	left        chan struct{} // closed when the last request after Leave was answered
}

// Kept is by what an endpoint knows its app, and the app it. An endpoint that has
// it goes on where another ended, for the same processes.
type Kept struct {
	Secret      [sha256.Size]byte `json:"secret"`                // the SHA-256
	Certificate []byte            `json:"certificate,omitempty"` // ServiceFabric: with its key, PEM
	Client      innate.ClientID   `json:"client,omitempty"`      // Config's
}

// Kept is what another endpoint for the same processes needs.
func (e *Endpoint) Kept() (k Kept, err error) {
	k.Client = e.client
	if f, ok := e.secret.(fixed); ok {
		k.Secret = f
	}
	if e.certificate != nil {
		k.Certificate, err = encodeCertificate(e.certificate)
	}
	return k, err
}

// A secret is what a request must show, beside coming from the app.
type secret interface {
	knows(presented []string) bool
}

// New checks c. It takes the listener over: Run closes it.
func New(c Config) (*Endpoint, error) {
	if c.Shape == "" {
		c.Shape = AppService
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("app endpoint: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	e := &Endpoint{
		generation: c.Generation,
		shape:      c.Shape,
		dialect:    c.Shape.dialect(),
		listener:   c.Listener,
		secret:     fixed(sha256.Sum256([]byte(c.Secret))),
		client:     c.Client,
		attestor:   c.Attestor,
		tokens:     c.Tokens,
		ledger:     endpoint.Ledger{Log: c.Audit, Now: c.Now},
		log:        c.Log.With("app", c.Generation.App, "generation", c.Generation.Number),
		now:        c.Now,
		hosts:      hostsOf(c.Listener),
		left:       make(chan struct{}),
	}
	if c.Kept != nil {
		e.secret, e.client = fixed(c.Kept.Secret), c.Kept.Client
	}
	e.server = endpoint.Server(http.HandlerFunc(e.serve), e.log)
	var err error
	switch c.Shape {
	case ServiceFabric:
		if c.Kept != nil {
			e.certificate, err = decodeCertificate(c.Kept.Certificate)
		} else {
			e.certificate, err = newCertificate(c.Now())
		}
	case Arc:
		e.challenges = newChallenges(c.Challenges, c.Now)
		e.secret = e.challenges
	}
	if err != nil {
		return nil, fmt.Errorf("app endpoint: %w", err)
	}
	return e, nil
}

const (
	minSecret     = 43  // characters: 256 bits in base64, or more of hexadecimal
	longestSecret = 128 // SDKs keep it in a header
)

func (c Config) check() error {
	g := c.Generation
	switch {
	case g.App == "":
		return errors.New("Generation.App is missing")
	case c.Listener == nil:
		return errors.New("Listener is missing")
	case c.Shape.dialect() == nil:
		return fmt.Errorf("there is no shape %q: want %s, %s, %s or %s", c.Shape, AppService, ServiceFabric, AzureML, Arc)
	case c.Shape == Arc && c.Challenges == nil:
		return errors.New("Challenges is missing")
	case c.Shape != Arc && c.Kept == nil && (len(c.Secret) < minSecret || len(c.Secret) > longestSecret):
		return fmt.Errorf("Secret has %d characters: want %d to %d", len(c.Secret), minSecret, longestSecret)
	case c.Tokens == nil:
		return errors.New("Tokens is missing")
	case c.Audit == nil:
		return errors.New("Audit is missing")
	case g.Proof == innate.Unproved || g.Proof > innate.NetNS:
		return fmt.Errorf("Generation.Proof is %s: an app endpoint proves secret-only, uid, cgroup+uid or, beside that, netns", g.Proof)
	case g.Proof > innate.SecretOnly && c.Attestor == nil:
		return fmt.Errorf("Attestor is missing: without it nothing proves %s", g.Proof)
	case g.Proof >= innate.CgroupUID && g.Cgroup == 0:
		return errors.New("Generation.Cgroup is missing: without it nothing proves cgroup+uid")
	case c.Attestor != nil && g.UID == 0:
		return errors.New("Generation.UID is 0: an app needs a uid of its own, for 0 is also what a vanished socket reports")
	}
	return nil
}

// Run serves until ctx ends, then closes the listener and every connection.
func (e *Endpoint) Run(ctx context.Context) error {
	server := e.server
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, peerOf(c))
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	var l net.Listener = &door{TCPListener: e.listener, of: e}
	if e.certificate != nil {
		l = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*e.certificate}})
	}
	err := server.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	if e.leaving.Load() {
		<-e.left
	}
	err = errors.Join(err, server.Close(), e.ledger.Close())
	if e.challenges != nil {
		e.challenges.close()
	}
	return err
}

// Leave has Run return once the requests that are being answered are, or ctx ends.
// Whoever else holds the listener goes on accepting.
// It is called once.
func (e *Endpoint) Leave(ctx context.Context) error {
	defer close(e.left)
	e.leaving.Store(true)
	return e.server.Finish(ctx)
}

// A fixed secret is the SHA-256 of one that stays the same for all of a generation.
type fixed [sha256.Size]byte

// knows compares in constant time.
func (f fixed) knows(presented []string) bool {
	if len(presented) != 1 {
		return false
	}
	var b [longestSecret]byte // no memory of the heap
	if len(presented[0]) > len(b) {
		return false
	}
	sum := sha256.Sum256(b[:copy(b[:], presented[0])])
	return subtle.ConstantTimeCompare(sum[:], f[:]) == 1
}
