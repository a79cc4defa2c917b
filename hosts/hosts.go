// Package hosts is the machines that run the agent: how one joins, what is
// placed on it, the certificates of the identities placed there, and the feed
// that tells it so.
//
// Placement is permission: a host gets certificates for exactly what is placed
// on it when it asks, and hears of nothing else. Who may place, join or evict is
// decided elsewhere (Config.Require here, the guards of package resources); that
// a certificate is still good for a token is package tokens' to ask the directory.
//
// Placed and Gone must run in every transaction that writes or removes a
// resource. A change that passes them by leaves a host with an identity that it
// should have lost.
package hosts

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"innate"
	"innate/audit"
	"innate/audit/ship"
	"innate/ca"
	"innate/directory"
	"innate/feed/client"
	"innate/store"
)

const (
	ticketLife      = 15 * time.Minute
	certificateLife = 24 * time.Hour
	// expiredGrace is how long after its end a host certificate may still renew
	// itself: a machine that was switched off needs no operator (design §5).
	expiredGrace = 30 * 24 * time.Hour
	// longestToken is the longest life that a token may have (design §5); a
	// revocation is kept that long.
	longestToken = 24 * time.Hour
)

// Config says what Hosts needs. All but Address, TPMRoots, Logins, Place, Displace, Now and
// Log are required.
type Config struct {
	DB        *store.DB
	Audit     *audit.Log
	CA        *ca.Authorities
	Directory *directory.Directory
	Tenant    innate.TenantID
	Domain    string
	Mutual    string // origin where client certificates are asked for, https://hosts.example.org[:port]
	Address   string // host:port that agents dial; empty means Mutual's
	// Challenges seals what a TPM has been challenged with.
	Challenges Sealer
	TPMRoots   *x509.CertPool // vendors whose TPMs join by a one-time token; nil means none
	// Require says whether who may do a control action at a machine; nil when it
	// may, else the *rest.Error to answer with.
	Require func(ctx context.Context, who innate.Principal, action string, at innate.Scope) error
	// Logins lists the PostgreSQL servers at which an identity may log in; LoginsChanged has to run in every
	// transaction that changes its answer. nil means that there are none.
	Logins func(r store.Reader, id innate.ObjectID) ([]client.Login, error)
	// Place is the id of a place in certificates for a PostgreSQL server, and Displace ends the place at all servers.
	// Where Logins is given, so are they.
	Place    func(tx store.Tx, server innate.ResourceID, p client.DatabasePlace) (id string, err error)
	Displace func(tx store.Tx, p client.DatabasePlace) error
	Now      func() time.Time // nil means time.Now
	Log      *slog.Logger     // nil means slog.Default()
}

// Hosts knows the machines.
type Hosts struct {
	config     Config
	name       string // TLS server name of Mutual
	challenges *rate.Limiter
	shipping   ship.Allowance // of audit logs

	seen sync.Map // machine key → time.Time of its last request to this process

	mu    sync.Mutex
	feeds map[string]map[*stream]bool // being served, by machine key
}

// New checks c. It starts nothing.
func New(c Config) (*Hosts, error) {
	switch {
	case c.DB == nil:
		return nil, errors.New("hosts: Config needs DB")
	case c.Audit == nil:
		return nil, errors.New("hosts: Config needs Audit")
	case c.CA == nil:
		return nil, errors.New("hosts: Config needs CA")
	case c.Directory == nil:
		return nil, errors.New("hosts: Config needs Directory")
	case c.Tenant == "" || c.Domain == "":
		return nil, errors.New("hosts: Config needs Tenant and Domain")
	case c.Challenges == nil:
		return nil, errors.New("hosts: Config needs Challenges")
	case c.Require == nil:
		return nil, errors.New("hosts: Config needs Require")
	case c.Logins != nil && (c.Place == nil || c.Displace == nil):
		return nil, errors.New("hosts: Config with Logins needs Place and Displace")
	}
	origin, err := url.Parse(c.Mutual)
	if err != nil || origin.Scheme != "https" || origin.Host == "" {
		return nil, fmt.Errorf("hosts: Config.Mutual is %q: want an origin such as https://hosts.example.org", c.Mutual)
	}
	c.Mutual = strings.TrimSuffix(c.Mutual, "/")
	if c.Address == "" {
		if c.Address = origin.Host; origin.Port() == "" {
			c.Address += ":443"
		}
	}
	if c.Logins == nil {
		c.Logins = func(store.Reader, innate.ObjectID) ([]client.Login, error) { return nil, nil }
		c.Displace = func(store.Tx, client.DatabasePlace) error { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	h := &Hosts{
		config: c, name: origin.Hostname(), challenges: rate.NewLimiter(challengeRate, challengeBurst),
		shipping: ship.Allowance{Rate: shippedRate},
		feeds:    map[string]map[*stream]bool{},
	}
	members.Index(c.DB, h.cut)
	return h, nil
}

// insist runs a transaction whose refusal may come from a view that is behind:
// before it says no, this process sees all that was committed before the call.
func (h *Hosts) insist(ctx context.Context, fn func(store.Tx) error) error {
	_, err := h.config.DB.Update(ctx, fn)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := h.config.DB.Sync(ctx); err != nil {
		return err
	}
	_, err = h.config.DB.Update(ctx, fn)
	return err
}

// look reads, and before it says no sees what insist would see.
func (h *Hosts) look(ctx context.Context, fn func(store.Reader) error) error {
	err := h.config.DB.View(ctx, fn)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if err := h.config.DB.Sync(ctx); err != nil {
		return err
	}
	return h.config.DB.View(ctx, fn)
}
