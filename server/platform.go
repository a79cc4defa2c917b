package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"innate"
	"innate/access"
	"innate/directory"
	"innate/resources"
	"innate/seal"
	"innate/store"
	"innate/store/file"
)

// The files of a platform's directory.
const (
	storeFile  = "store.db"
	masterFile = "master.key"
	auditFile  = "audit.log"
)

// A Platform is what was decided once, when it was created.
type Platform struct {
	Tenant       innate.TenantID `json:"tenant"`
	Subscription string          `json:"subscription"` // the first one
	Domain       string          `json:"domain"`
	Admin        innate.ObjectID `json:"admin"`         // who the administrators' socket speaks as
	Dev          bool            `json:"dev,omitempty"` // made by quickstart or dev: never for production
	Created      time.Time       `json:"created"`
}

var platforms = store.Table[Platform]("server/")

// adminName is the directory's name for whoever uses the administrators' socket.
const adminName = "local administrator"

// Create makes a new platform in dir, which must be empty or absent: a master
// key, a store, a tenant with one subscription, and the local administrator.
func Create(ctx context.Context, dir, domain string, dev bool, now time.Time) error {
	return CreateIn(ctx, dir, domain, dev, nil, now)
}

// CreateIn is Create with a keeper of the master key; nil means its file.
func CreateIn(ctx context.Context, dir, domain string, dev bool, in seal.Keeper, now time.Time) error {
	if err := checkDomain(domain); err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	if left, err := os.ReadDir(dir); err != nil {
		return err
	} else if len(left) > 0 {
		return fmt.Errorf("%s is not empty: a platform is created in a directory of its own", dir)
	}
	if _, err := seal.CreateMasterIn(filepath.Join(dir, masterFile), in); err != nil {
		return err
	}
	engine, err := file.Create(filepath.Join(dir, storeFile))
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, engine)
	if err != nil {
		engine.Close()
		return err
	}
	p := Platform{
		Tenant: innate.TenantID(innate.NewGUID()), Subscription: innate.NewGUID(),
		Domain: domain, Dev: dev, Created: now.UTC(),
	}
	_, err = db.Update(ctx, p.write)
	return errors.Join(err, db.Close())
}

// write puts a new platform's first rows in place. The administrator owns
// everything and, since owning grants no data action, also keeps its secrets.
func (p Platform) write(tx store.Tx) error {
	admin, err := directory.CreateUser(tx, adminName, "admin@"+p.Domain, p.Created)
	if err != nil {
		return err
	}
	p.Admin = admin.ID
	for _, role := range []string{access.Owner, access.KeyVaultAdministrator} {
		if err := access.Assign(tx, access.Assignment{
			ID: innate.NewGUID(), Scope: innate.Root, Role: role, Principal: admin.ID, CreatedOn: p.Created,
		}); err != nil {
			return err
		}
	}
	if err := resources.CreateSubscription(tx, p.Subscription, "Innate", p.Created); err != nil {
		return err
	}
	return platforms.Put(tx, "platform", p)
}

func readPlatform(ctx context.Context, db *store.DB) (p Platform, err error) {
	err = db.View(ctx, func(r store.Reader) error {
		var ok bool
		if p, ok, err = platforms.Get(r, "platform"); err != nil {
			return err
		} else if !ok {
			return errors.New("the store holds no platform: its creation did not finish; remove it and run 'innate server init' again")
		}
		return nil
	})
	return p, err
}

func wrongKind(dev bool) error {
	if dev {
		return errors.New("this platform was made by 'innate quickstart' or 'innate dev' and is not for production: make one with 'innate server init'")
	}
	return errors.New("this platform was made by 'innate server init'; quickstart and dev make their own")
}

// checkDomain accepts a DNS name of at least two labels.
func checkDomain(domain string) error {
	labels := 0
	start := 0
	for i := 0; i <= len(domain); i++ {
		if i < len(domain) && domain[i] != '.' {
			c := domain[i]
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
				return fmt.Errorf("domain %q: want lower-case letters, digits, hyphens and dots, such as id.example.org", domain)
			}
			continue
		}
		if l := domain[start:i]; l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
			return fmt.Errorf("domain %q: the label %q cannot stand in a DNS name", domain, l)
		}
		labels++
		start = i + 1
	}
	if labels < 2 || len(domain) > 200 {
		return fmt.Errorf("domain %q: want at least two labels, such as id.example.org", domain)
	}
	return nil
}

// origins names where each surface answers. In development one bare
// https://localhost:PORT serves login, management and graph, which needs no
// name service; vaults and hosts keep names of their own (design §6).
func origins(p Platform, addr net.Addr) (resources.Endpoints, string) {
	port := ""
	if tcp, ok := addr.(*net.TCPAddr); ok && tcp.Port != 443 {
		port = ":" + strconv.Itoa(tcp.Port)
	}
	at := func(name string) string { return "https://" + name + "." + p.Domain + port }
	e := resources.Endpoints{
		Login: at("login"), Management: at("management"), Graph: at("graph"), Portal: at("portal"),
		VaultSuffix: "vault." + p.Domain + port, PostgresSuffix: "postgres." + p.Domain,
	}
	if p.Dev {
		one := "https://localhost" + port
		e.Login, e.Management, e.Graph, e.Portal = one, one, one, one
	}
	return e, at("hosts")
}
