// Package databases is who may log in at which PostgreSQL server, and as what:
// administrators and principals mapped to roles, what this comes to for each
// principal through all its groups, the feed that tells a server's gateway, and
// how far the gateway's audit log was received.
//
// It leaves to resources that a server exists (PutServer and DeleteServer run in
// the transactions that write and remove one), to directory who is in which
// group, to hosts how a workload hears where it may log in, and to the gateway,
// beside the server, to let in and to end sessions.
//
// What each principal may log in as is a row, kept in the transaction that
// changes anything it follows from: Member, Enabled and Gone must run in every
// transaction that changes a membership, enables, disables or removes a
// principal. A change that passes them by leaves somebody logged in.
package databases

import (
	"context"
	"errors"
	"strings"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/audit/ship"
	"innate/feed/client"
	"innate/rest"
	"innate/store"
)

// Config says what Databases needs. DB, Audit, Access and Tenant are required.
type Config struct {
	DB     *store.DB
	Audit  *audit.Log
	Access *access.Access
	Tenant innate.TenantID
	// OnLogin runs in the transaction that changes where, or as what, a principal may log in. nil means nobody asks.
	OnLogin func(tx store.Tx, id innate.ObjectID) error
	// Revoked says whether the token that somebody came with is revoked, and why; nil means that none is.
	Revoked func(who innate.Principal) (why string, revoked bool)
	Now     func() time.Time // nil means time.Now
}

// Databases knows the servers and who may log in there.
type Databases struct {
	config   Config
	shipping ship.Allowance // of gateways' audit logs
}

// New checks c. It starts nothing.
func New(c Config) (*Databases, error) {
	switch {
	case c.DB == nil:
		return nil, errors.New("databases: Config needs DB")
	case c.Audit == nil:
		return nil, errors.New("databases: Config needs Audit")
	case c.Access == nil:
		return nil, errors.New("databases: Config needs Access")
	case c.Tenant == "":
		return nil, errors.New("databases: Config needs Tenant")
	}
	if c.OnLogin == nil {
		c.OnLogin = func(store.Tx, innate.ObjectID) error { return nil }
	}
	if c.Revoked == nil {
		c.Revoked = func(innate.Principal) (string, bool) { return "", false }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Databases{config: c, shipping: ship.Allowance{Rate: shippedRate}}, nil
}

// A Server is what its resource says of one.
type Server struct {
	Resource    innate.ResourceID `json:"resource"`
	Host        string            `json:"host"` // as clients connect
	Port        int               `json:"port"`
	Audience    string            `json:"audience"`              // its own
	AcceptAzure bool              `json:"acceptAzure,omitempty"` // tokens for Azure's audiences are good there too
	Authorities string            `json:"authorities,omitempty"` // PEM; empty: the platform's own
	Certificate bool              `json:"certificate,omitempty"` // clients log in by certificate
}

// azureAudiences are what Azure's documentation has clients of PostgreSQL ask
// tokens for. They are the same at every server that accepts them.
var azureAudiences = []string{"https://ossrdbms-aad.database.windows.net", "https://database.windows.net"}

// The rows. Ids of resources stand in keys in lower case; none has a doubled
// slash, so that no server's prefix begins another's.
const (
	servers store.Table[Server]            = "databases/servers/" // rowOf(server)
	mapped  store.Table[mapping]           = "databases/mapped/"  // rowOf(server)//kind/principal
	holding store.Table[innate.ResourceID] = "databases/holding/" // principal/kind/rowOf(server): where it is mapped itself
	logins  store.Table[innate.ResourceID] = "databases/logins/"  // principal/rowOf(server): where it may log in
	shipped store.Table[audit.Place]       = "databases/shipped/" // rowOf(server)//principal/host: how far a gateway's audit log was received
)

func rowOf(server innate.ResourceID) string { return strings.TrimPrefix(server.Key(), "/") }

// told begins the rows that a server's gateway hears.
func told(server innate.ResourceID) string { return "databases/told" + server.Key() + "//" }

// loginsAt are the rows of who may log in at a server, by object id.
func loginsAt(server innate.ResourceID) store.Table[client.DatabaseLogin] {
	return store.Table[client.DatabaseLogin](told(server) + client.DatabaseLoginKey(""))
}

// PutServer makes a server, or changes it, with its resource.
func (d *Databases) PutServer(tx store.Tx, now Server) error {
	old, known, err := servers.Get(tx, rowOf(now.Resource))
	if err != nil || known && old == now {
		return err
	}
	if err := servers.Put(tx, rowOf(now.Resource), now); err != nil {
		return err
	}
	row := client.DatabaseServer{Resource: now.Resource, Audiences: []string{now.Audience}, Certificate: now.Certificate}
	if now.AcceptAzure {
		row.Audiences = append(row.Audiences, azureAudiences...)
	}
	if err := store.Table[client.DatabaseServer](told(now.Resource)).Put(tx, client.DatabaseServerKey, row); err != nil {
		return err
	}
	for id := range loginsAt(now.Resource).All(tx, "", "") {
		if err := d.config.OnLogin(tx, innate.ObjectID(id)); err != nil {
			return err
		}
	}
	return nil
}

// DeleteServer removes a server and all that is known of it, with its resource.
func (d *Databases) DeleteServer(tx store.Tx, server innate.ResourceID) error {
	under := rowOf(server) + "//"
	for row, m := range mapped.All(tx, under, "") {
		mapped.Delete(tx, row)
		kind, _, _ := strings.Cut(row[len(under):], "/")
		holding.Delete(tx, holdingRow(m.Object, kind, server))
	}
	var could []innate.ObjectID
	for id := range loginsAt(server).All(tx, "", "") {
		could = append(could, innate.ObjectID(id))
		loginsAt(server).Delete(tx, id)
		logins.Delete(tx, id+"/"+rowOf(server))
	}
	for row := range shipped.All(tx, under, "") {
		shipped.Delete(tx, row)
	}
	for id, p := range placesAt(server).All(tx, "", "") {
		placedRows.Delete(tx, placedAt(p)+rowOf(server))
		placesAt(server).Delete(tx, id)
	}
	tx.Delete(told(server) + client.DatabaseServerKey)
	servers.Delete(tx, rowOf(server))
	for _, id := range could {
		if err := d.config.OnLogin(tx, id); err != nil {
			return err
		}
	}
	return nil
}

// LoginsOf lists where a principal may log in and as what, a row for each
// server and role, in order of both.
func LoginsOf(r store.Reader, id innate.ObjectID) (all []client.Login, err error) {
	for _, at := range logins.All(r, string(id)+"/", "") {
		server, ok, err := servers.Get(r, rowOf(at))
		if err != nil {
			return nil, err
		}
		row, may, err := loginsAt(at).Get(r, string(id))
		if err != nil {
			return nil, err
		}
		if !ok || !may {
			continue
		}
		for _, role := range row.Roles {
			all = append(all, client.Login{
				Server: server.Resource, Host: server.Host, Port: server.Port, Role: role, Audience: server.Audience,
				Identity: id, Authorities: server.Authorities, Certificate: server.Certificate,
			})
		}
	}
	return all, nil
}

// event is the record of who did what to which server, or to what is below it.
func (d *Databases) event(ctx context.Context, who innate.Principal, action, target string) audit.Event {
	return audit.Event{
		Time: d.config.Now(), Action: action, Allowed: true, Target: target,
		Principal: who.Object, Name: who.Name, Client: who.Client,
		Hosting: string(who.Hosting), Host: string(who.Host), Assurance: who.Assurance, Token: who.Token,
		Trace: rest.RequestID(ctx),
	}
}
