// Package innatetest is the whole platform on loopback for a Go test: control
// plane and host agent, real, in this process, on a store in the test's own
// folder.
//
//	func TestTheServiceReadsItsPassword(t *testing.T) {
//		p := innatetest.Start(t)
//		api, kv := p.App("api"), p.Vault("kv1")
//		kv.Put("db-password", "hunter2")
//		p.Grant(api, "Key Vault Secrets User", kv)
//		for _, v := range api.Env() { … } // give these to the program under test
//	}
//
// An App's or VM's Env serves this process and its children, which is proved by
// its secret alone (assurance secret-only): a test is one program. To have the
// kernel prove a caller, as in production, start a program with App.Run.
//
// The helpers fail the test on any error; what a test wants to see refused it
// asks for by itself, with Admin, Client or GetWith.
package innatetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/admin"
	"innate/platform"
)

// Group is the resource group of what a Platform makes.
const Group = "test"

// A Platform is a running control plane and agent.
type Platform struct {
	*platform.Platform
	t testing.TB
}

// An Option changes what Start does.
type Option func(*platform.Config)

// WithClock gives the platform another clock.
func WithClock(now func() time.Time) Option {
	return func(c *platform.Config) { c.Now = now }
}

// WithIssuer lets federated credentials name an issuer at host, a name or
// name:port, which is on loopback or a private network; roots are the
// authorities its server's certificate may be of.
func WithIssuer(host string, roots *x509.CertPool) Option {
	return func(c *platform.Config) {
		c.Outside.Allow, c.Outside.Roots = append(c.Outside.Allow, host), roots
	}
}

// Start runs a platform until the test ends.
func Start(t testing.TB, options ...Option) *Platform {
	t.Helper()
	c := platform.Config{
		Dir: folder(t), NewKey: signingKey, Stub: []string{"/nonexistent: see App.Run"},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, o := range options {
		o(&c)
	}
	ctx, stop := context.WithCancel(context.Background())
	p, err := platform.Open(ctx, c)
	if err != nil {
		stop()
		t.Fatalf("innatetest: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("innatetest: the platform ended with: %v", err)
		}
	})
	select {
	case <-p.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatalf("innatetest: %v", err)
	}
	tp := &Platform{p, t}
	tp.put(p.Admin.Group(Group), map[string]any{})
	return tp
}

// signingKey is made once a test process: of all that a platform's start does it
// takes longest, and no test is surer for doing it again.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// folder is a temporary folder that programs under another uid may pass through.
// Unix sockets live in it, so its path is short.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "innatetest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "platform")
}

// ARM sends a request to the resource manager as the administrator and fails the test on a refusal.
func (p *Platform) ARM(method, path string, in, out any) {
	p.t.Helper()
	if err := p.Admin.ARM(p.t.Context(), method, path, in, out); err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
}

func (p *Platform) put(id innate.ResourceID, body map[string]any) {
	p.t.Helper()
	body["location"] = "local"
	p.ARM(http.MethodPut, string(id), body, nil)
}

func (p *Platform) id(typ, name string) innate.ResourceID {
	return p.Admin.Group(Group) + innate.ResourceID("/providers/"+typ+"/"+name)
}

// A Resource is anything that the platform made.
type Resource interface {
	ID() innate.ResourceID
}

// A Holder is who can be granted a role.
type Holder interface {
	Principal() innate.ObjectID
}

// resource is what VM, App, Identity and Vault have in common.
type resource struct {
	p  *Platform
	id innate.ResourceID
}

// ID is its resource id.
func (r resource) ID() innate.ResourceID { return r.id }

// Principal is the object id of its own identity, as it is now.
func (r resource) Principal() innate.ObjectID {
	r.p.t.Helper()
	var got admin.Listed
	r.p.ARM(http.MethodGet, string(r.id), nil, &got)
	if id, ok := got.Properties["principalId"].(string); ok {
		return innate.ObjectID(id)
	}
	if got.Identity == nil || got.Identity.Principal == "" {
		r.p.t.Fatalf("%s has no identity of its own", r.id)
	}
	return got.Identity.Principal
}

// Delete deletes a resource and what lives with it.
func (p *Platform) Delete(r Resource) {
	p.t.Helper()
	p.ARM(http.MethodDelete, string(r.ID()), nil, nil)
}

// Grant gives who a role at a resource, by the role's name.
func (p *Platform) Grant(who Holder, role string, at Resource) {
	p.t.Helper()
	var found struct {
		Value []struct {
			ID string `json:"id"`
		} `json:"value"`
	}
	p.ARM(http.MethodGet, string(at.ID())+"/providers/Microsoft.Authorization/roleDefinitions?$filter="+
		url.QueryEscape("roleName eq '"+strings.ReplaceAll(role, "'", "''")+"'"), nil, &found)
	if len(found.Value) != 1 {
		p.t.Fatalf("%d roles are called %q", len(found.Value), role)
	}
	p.ARM(http.MethodPut, string(at.ID())+"/providers/Microsoft.Authorization/roleAssignments/"+innate.NewGUID(),
		map[string]any{"properties": map[string]any{"roleDefinitionId": found.Value[0].ID, "principalId": who.Principal()}}, nil)
}

// An Identity is user-assigned: several resources may share it.
type Identity struct{ resource }

// Identity makes one.
func (p *Platform) Identity(name string) *Identity {
	p.t.Helper()
	id := p.id("Microsoft.ManagedIdentity/userAssignedIdentities", name)
	p.put(id, map[string]any{})
	return &Identity{resource{p, id}}
}

// Client is its client id.
func (i *Identity) Client() innate.ClientID {
	i.p.t.Helper()
	var got struct {
		Properties struct {
			Client innate.ClientID `json:"clientId"`
		} `json:"properties"`
	}
	i.p.ARM(http.MethodGet, string(i.id), nil, &got)
	return got.Properties.Client
}

// block is the identity block of something with its own identity and shared ones.
func block(shared []*Identity) map[string]any {
	b := map[string]any{"type": "SystemAssigned"}
	if len(shared) > 0 {
		user := map[string]any{}
		for _, i := range shared {
			user[string(i.id)] = map[string]any{}
		}
		b["type"], b["userAssignedIdentities"] = "SystemAssigned, UserAssigned", user
	}
	return b
}

// A VM is a virtual machine, placed on this host.
type VM struct{ resource }

// VM makes one, with an identity of its own and those shared.
func (p *Platform) VM(name string, shared ...*Identity) *VM {
	p.t.Helper()
	id := p.id("Microsoft.Compute/virtualMachines", name)
	p.put(id, map[string]any{"identity": block(shared), "properties": map[string]any{"host": map[string]any{"id": p.Machine}}})
	return &VM{resource{p, id}}
}

// An App is a web app, function or API, placed on this host.
type App struct{ resource }

// App makes one, with an identity of its own and those shared.
func (p *Platform) App(name string, shared ...*Identity) *App {
	p.t.Helper()
	plan := p.id("Microsoft.Web/serverfarms", "plan")
	p.put(plan, map[string]any{"properties": map[string]any{"workers": []innate.ResourceID{p.Machine}}})
	id := p.id("Microsoft.Web/sites", name)
	p.put(id, map[string]any{"kind": "app", "identity": block(shared), "properties": map[string]any{"serverFarmId": plan}})
	return &App{resource{p, id}}
}

// A Vault keeps secrets.
type Vault struct{ resource }

// Vault makes one. Vault names are unique on a platform.
func (p *Platform) Vault(name string) *Vault {
	p.t.Helper()
	id := p.id("Microsoft.KeyVault/vaults", name)
	p.put(id, map[string]any{"properties": map[string]any{
		"tenantId": p.Admin.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
	}})
	return &Vault{resource{p, id}}
}

// URL is the vault as an SDK is told it. The name resolves in programs started
// by App.Run, and for the platform's Client.
func (v *Vault) URL() string {
	return "https://" + v.id.Name() + "." + v.p.Admin.Info.VaultSuffix
}

// Put stores a secret, as the administrator.
func (v *Vault) Put(name, value string) {
	v.p.t.Helper()
	if err := v.p.Admin.Vault(v.p.t.Context(), v.id.Name(), http.MethodPut, "/secrets/"+name, map[string]string{"value": value}, nil); err != nil {
		v.p.t.Fatalf("put %s: %v", name, err)
	}
}

// GetWith asks for a secret with a token, and returns the status and the value
// or, when refused, the whole body.
func (v *Vault) GetWith(token, name string) (status int, value string) {
	v.p.t.Helper()
	req, err := http.NewRequestWithContext(v.p.t.Context(), http.MethodGet, v.URL()+"/secrets/"+name+"?api-version=7.4", nil)
	if err != nil {
		v.p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := v.p.Client().Do(req)
	if err != nil {
		v.p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.p.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, string(body)
	}
	var b struct {
		Value string `json:"value"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&b); err != nil {
		v.p.t.Fatalf("secret %s: %v", name, err)
	}
	return resp.StatusCode, b.Value
}
