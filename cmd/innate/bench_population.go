package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/audit"
	"innate/ca"
	"innate/directory"
	"innate/seal"
	"innate/store"
	"innate/tokens"
)

// A population is a token service without the network, over a directory of as
// many managed identities as a row wants.
type population struct {
	tenant  innate.TenantID
	db      *store.DB
	handler http.Handler
	asking  []resident
	close   func() error
}

// A resident is one of the population that asks for tokens.
type resident struct {
	form string
	cert *x509.Certificate
}

// residents is how many of a population ask, in turns.
const residents = 256

// issueOf is the CPU of a fresh ES256 token in a directory of n principals,
// without the network, audited. The row fails when the store changes meanwhile:
// a token must not cost a write.
func issueOf(n int) func(context.Context, *bench) (contest, error) {
	return func(ctx context.Context, b *bench) (contest, error) {
		p, err := b.openPopulation(ctx, n)
		if err != nil {
			return contest{}, err
		}
		c := contest{less: true, end: p.close, cost: new(cost)}
		c.ours = func(ctx context.Context, d time.Duration) (float64, error) {
			before, revision := spentNow(), p.revision(ctx)
			issued, err := p.issue(ctx, d)
			if err != nil {
				return 0, err
			}
			if now := p.revision(ctx); now != revision {
				return 0, fmt.Errorf("the store went from revision %d to %d while tokens were issued: want none written", revision, now)
			}
			var round cost
			round.add(before, issued)
			c.cost.add(before, issued)
			return round.micros(), nil
		}
		return c, nil
	}
}

func (p *population) revision(ctx context.Context) (rev store.Revision) {
	p.db.View(ctx, func(r store.Reader) error { // its one error is the function's
		rev = r.Revision()
		return nil
	})
	return rev
}

// issue returns how many tokens were issued in d.
func (p *population) issue(ctx context.Context, d time.Duration) (issued int, err error) {
	end := time.Now().Add(d)
	counts := make([]int, benchConnections)
	var g errgroup.Group
	for i := range counts {
		g.Go(func() error {
			for ; time.Now().Before(end); counts[i]++ {
				if err := p.ask(ctx, p.asking[(i*residents/len(counts)+counts[i])%residents]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	for _, n := range counts {
		issued += n
	}
	return issued, err
}

func (p *population) ask(ctx context.Context, by resident) error {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/"+string(p.tenant)+"/oauth2/v2.0/token", strings.NewReader(by.form))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{by.cert}}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("%d: %s", w.Code, refusalText(w.Body.Bytes()))
	}
	return nil
}

// openPopulation makes a store with n identities and opens a token service on it.
func (b *bench) openPopulation(ctx context.Context, n int) (_ *population, err error) {
	dir := filepath.Join(b.dir, fmt.Sprint("population-", n))
	p := &population{tenant: innate.TenantID(innate.NewGUID())}
	if p.db, err = newStore(ctx, dir); err != nil {
		return nil, err
	}
	log, err := audit.Open(filepath.Join(dir, "audit"))
	if err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	p.close = func() error { return errors.Join(p.db.Close(), log.Close()) }
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	dirs, err := directory.New(directory.Config{
		DB: p.db, Audit: log, Tenant: p.tenant, Graph: "https://graph." + bareName,
		MayEdit: func(context.Context, innate.Principal, string) error { return nil },
	})
	if err != nil {
		return nil, err
	}
	before := heap()
	identities, err := b.populate(ctx, p.db, n)
	if err != nil {
		return nil, err
	}
	b.progress("%d principals take %d bytes of memory each", n, int(heap()-before)/n)

	master, err := seal.CreateMaster(filepath.Join(dir, "master.key"))
	if err != nil {
		return nil, err
	}
	authorities, err := ca.Open(ctx, ca.Config{DB: p.db, Seal: master, Domain: bareName})
	if err != nil {
		return nil, err
	}
	service, err := tokens.New(ctx, tokens.Config{
		DB: p.db, Audit: log, Seal: master, CA: authorities, Directory: dirs, Tenant: p.tenant,
		Domain: bareName, Login: "https://login." + bareName, Mutual: "https://hosts." + bareName,
		Services: tokens.FirstParties("https://management."+bareName, "https://graph."+bareName, "https://vault."+bareName, bareName),
	})
	if err != nil {
		return nil, err
	}
	p.handler = service.MutualHandler()
	return p, p.settle(ctx, authorities, identities)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// populate makes n identities and returns those that will ask, which are
// spread over all of them. While one transaction is made durable, the next is made.
func (b *bench) populate(ctx context.Context, db *store.DB, n int) ([]directory.Object, error) {
	asking := make([]directory.Object, residents)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for from := 0; from < n && ctx.Err() == nil; from += perTransaction {
		if from%(20*perTransaction) == 0 {
			b.progress("writing principals: %d of %d", from, n)
		}
		g.Go(func() error {
			_, err := db.Update(ctx, func(tx store.Tx) error {
				for i := from; i < min(from+perTransaction, n); i++ {
					o, err := directory.CreateIdentity(tx, fmt.Sprint("bench-", i), benchOwner(i), false, time.Now())
					if err != nil {
						return err
					}
					if every := n / residents; i%every == 0 && i/every < residents {
						asking[i/every] = o
					}
				}
				return nil
			})
			return err
		})
	}
	return asking, g.Wait()
}

// benchScope is below what a population's resources are.
const benchScope = "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/bench/providers/"

// benchOwner is the resource that an identity of a population lives with.
func benchOwner(i int) innate.ResourceID {
	return innate.ResourceID(fmt.Sprintf(benchScope+"%s/%07d", typeSite, i))
}

// settle gives the residents their certificates, and registers the service that they ask for.
func (p *population) settle(ctx context.Context, authorities *ca.Authorities, identities []directory.Object) error {
	const uri, host = "api://bench", innate.ResourceID(benchScope + typeMachine + "/bench")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = p.db.Update(ctx, func(tx store.Tx) error {
		p.asking = p.asking[:0]
		for _, o := range identities {
			der, err := authorities.Issue(ca.Identities, key.Public(), ca.Subject{
				URIs: ca.IdentityURIs(bareName, o.ID, o.Owner, host), Life: 24 * time.Hour,
			})
			if err != nil {
				return err
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			if err := directory.AddKey(tx, directory.Key{
				Thumbprint: ca.Thumbprint(der), Principal: o.ID, Hosting: o.Owner, Host: host,
				NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
			}, time.Now()); err != nil {
				return err
			}
			p.asking = append(p.asking, resident{cert: cert, form: url.Values{
				"grant_type": {"client_credentials"}, "client_id": {string(o.Client)},
				"resource": {uri}, "assurance": {innate.CgroupUID.String()},
			}.Encode()})
		}
		_, _, err := directory.CreateRegistration(tx, directory.Registration{
			Name: "bench", IdentifierURIs: []string{uri}, SigningAlg: "ES256",
		}, time.Now())
		return err
	})
	return err
}
