// Package imds is what a VM sees at 169.254.169.254: the Instance Metadata
// Service (managed-identity-endpoints §1).
//
// It owns the dialect: routes, headers, the instance tree, the shape of tokens
// and errors. The listener is its caller's, and with it the proof of who is
// calling: a Server answers everybody who reaches it as one VM. Serve it with
// endpoint.Server.
package imds

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/audit"
)

// Tokens is where tokens come from. An error that is an *innate.Refusal is answered as it says.
type Tokens interface {
	Token(ctx context.Context, workload innate.ResourceID, which innate.Selector, resource string, proof innate.Assurance) (innate.Token, error)
}

// A Machine is what instance metadata says of the VM; read at each request.
type Machine struct {
	Resource    innate.ResourceID
	VMID        string
	Location    string
	Tags        map[string]string
	Told        map[string]string // what the VM's own properties tell, by element, such as compute.vmSize
	Tenant      innate.TenantID
	HasIdentity bool
	Scheduled   Scheduled
}

// An Interface is a network interface of the VM.
type Interface struct {
	MAC  net.HardwareAddr
	IPv4 []netip.Prefix // address and length of its subnet
	IPv6 []netip.Addr
}

// Config says whom a Server serves. Interfaces, Voucher, Hosts, Log and Now may be empty.
type Config struct {
	Tokens    Tokens
	Machine   func() (Machine, bool) // false: not placed here any more
	Assurance innate.Assurance       // what the listener proves about every caller: netns or device
	// Interfaces reads the VM's network interfaces; nil means that nobody can say.
	Interfaces func() ([]Interface, error)
	// Voucher is what the VM's attested documents are signed with: a key and its
	// certificate, for at least documentLife more; nil means that there are none.
	// An error that is an *innate.Refusal is answered as it says.
	Voucher func(context.Context) (*tls.Certificate, error)
	// Approve tells whoever announced them that the VM is ready for events, which are
	// among those of Machine; nil means that nobody wants to know.
	Approve func(ctx context.Context, events []string) error
	Audit   *audit.Log
	Hosts   []string // further Host values beside 169.254.169.254
	Log     *slog.Logger
	Now     func() time.Time
}

// A Server is the metadata service of one VM.
type Server struct {
	tokens    Tokens
	machine   func() (Machine, bool)
	assurance innate.Assurance
	links     func() ([]Interface, error)
	voucher   func(context.Context) (*tls.Certificate, error)
	approved  func(context.Context, []string) error
	ledger    endpoint.Ledger
	allowance *endpoint.Allowance
	hosts     []string
	log       *slog.Logger
	now       func() time.Time
}

// New checks c.
func New(c Config) (*Server, error) {
	switch {
	case c.Tokens == nil:
		return nil, errors.New("imds: Tokens is missing")
	case c.Machine == nil:
		return nil, errors.New("imds: Machine is missing")
	case c.Audit == nil:
		return nil, errors.New("imds: Audit is missing")
	case c.Assurance == innate.Unproved:
		return nil, fmt.Errorf("imds: Assurance is %s: say what the listener proves", c.Assurance)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Approve == nil {
		c.Approve = func(context.Context, []string) error { return nil }
	}
	hosts := []string{"169.254.169.254", "169.254.169.254:80"}
	for _, h := range c.Hosts {
		hosts = append(hosts, strings.ToLower(h))
	}
	return &Server{
		tokens:    c.Tokens,
		machine:   c.Machine,
		assurance: c.Assurance,
		links:     c.Interfaces,
		voucher:   c.Voucher,
		approved:  c.Approve,
		ledger:    endpoint.Ledger{Log: c.Audit, Now: c.Now},
		allowance: endpoint.NewAllowance(c.Now),
		hosts:     hosts,
		log:       c.Log,
		now:       c.Now,
	}, nil
}

// Close writes what is still to be recorded, once nothing is served any more.
func (s *Server) Close() error { return s.ledger.Close() }

// ServeHTTP finds the route before it looks at any header: a client that probes
// for what we do not have must read 404 even without the Metadata header
// (managed-identity-endpoints §0.2).
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["Server"] = serverName
	if id := r.Header.Get("X-Ms-Client-Request-Id"); id != "" {
		h.Set("X-Ms-Request-Id", endpoint.RequestID(r))
	}
	switch path := endpoint.Path(r.URL.Path); {
	case path == "/metadata/identity/oauth2/token":
		s.serveToken(w, r)
	case path == "/metadata/identity/info":
		s.serveInfo(w, r)
	case path == "/metadata/versions":
		s.serveVersions(w, r)
	case path == "/metadata/attested/document":
		s.serveDocument(w, r)
	case path == "/metadata/scheduledevents":
		s.serveEvents(w, r)
	case path == "/metadata/loadbalancer":
		s.serveLoadBalancer(w, r)
	case path == "/metadata/instance" || strings.HasPrefix(path, "/metadata/instance/"):
		s.serveInstance(w, r, strings.TrimPrefix(path, "/metadata/instance"))
	default:
		s.refuse(w, r, innate.Refusal{Status: http.StatusNotFound, OAuth: "not_found", Text: "there is nothing here"})
	}
}

// serverName must contain IMDS: the clients of its second version reject other values.
var serverName = []string{"IMDS/1.0.0.0"}

// check is what every route that is got asks of a request first.
func (s *Server) check(r *http.Request, cost endpoint.Cost) error {
	if err := endpoint.Check(r, s.hosts); err != nil {
		return err
	}
	return s.admit(r, cost)
}

// admit refuses a request without Metadata: true, and one too many. The header
// comes first: a probe, which leaves it out, is answered whatever else is asked.
func (s *Server) admit(r *http.Request, cost endpoint.Cost) error {
	// A browser or a proxy that was tricked into asking sends no such header.
	if values := r.Header["Metadata"]; len(values) != 1 || !strings.EqualFold(strings.TrimSpace(values[0]), "true") {
		return &innate.Refusal{Status: http.StatusBadRequest, OAuth: "invalid_request", Text: missingHeader}
	}
	return s.allowance.Spend(cost)
}

const missingHeader = "Required metadata header not specified"
