package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"innate"
	"innate/agent"
	"innate/platform"
)

// devGroup is the resource group that a declaration fills.
const devGroup = "dev"

// A keeper makes a platform be as a declaration says.
type keeper struct {
	session  *session
	platform *platform.Platform
	stub     string
	envFile  string

	made       []innate.ResourceID // by the last apply, in order of making
	granted    map[string]string   // what a grant says: path of its assignment
	registered map[string]registered
	attached   map[string]string // VM: namespace
}

// A registered is an app registration that the keeper made.
type registered struct {
	Object innate.ObjectID
	Client innate.ClientID
	Secret string
}

// apply makes what is declared, then removes what was declared before and is no more.
func (k *keeper) apply(ctx context.Context, d declaration) error {
	before := k.made
	k.made = nil
	for _, step := range []func(context.Context, declaration) error{
		k.known, k.group, k.identities, k.vaults, k.apps, k.vms, k.registrations, k.roles,
	} {
		if err := step(ctx, d); err != nil {
			k.made = union(before, k.made) // still ours to remove some day
			return err
		}
	}
	for _, id := range slices.Backward(before) {
		if !slices.Contains(k.made, id) {
			if err := k.platform.Admin.ARM(ctx, http.MethodDelete, string(id), nil, nil); err != nil {
				k.made = union(before, k.made)
				return err
			}
		}
	}
	return k.writeEnv(ctx, d)
}

func union(a, b []innate.ResourceID) []innate.ResourceID {
	for _, id := range b {
		if !slices.Contains(a, id) {
			a = append(a, id)
		}
	}
	return a
}

func (k *keeper) id(typ, name string) innate.ResourceID {
	return k.platform.Admin.Group(devGroup) + innate.ResourceID("/providers/"+typ+"/"+name)
}

func (k *keeper) put(ctx context.Context, id innate.ResourceID, body map[string]any) error {
	body["location"] = "local"
	if err := k.platform.Admin.ARM(ctx, http.MethodPut, string(id), body, nil); err != nil {
		return fmt.Errorf("%s: %w", id.Name(), err)
	}
	k.made = append(k.made, id)
	return nil
}

// known finds, before anything is changed, every role, holder and place of a
// grant that is neither declared nor there.
func (k *keeper) known(ctx context.Context, d declaration) error {
	a := k.platform.Admin
	declared := map[string]bool{}
	for _, names := range [][]string{
		slices.Collect(maps.Keys(d.Vaults)), slices.Collect(maps.Keys(d.Apps)), slices.Collect(maps.Keys(d.VMs)),
		d.Identities, slices.Collect(maps.Keys(d.Registrations)), {devGroup},
	} {
		for _, name := range names {
			declared[strings.ToLower(name)] = true
		}
	}
	var errs []error
	for i, r := range d.Roles {
		fault := func(key string, err error) {
			if err != nil {
				errs = append(errs, fmt.Errorf("roles[%d]: %s: %w", i, key, err))
			}
		}
		_, err := findRole(ctx, a, a.Group(devGroup).Scope(), r.Role)
		fault("role", err)
		if !declared[strings.ToLower(r.To)] {
			_, err := a.Identity(ctx, r.To)
			fault("to", err)
		}
		if !declared[strings.ToLower(r.At)] {
			_, err := a.Scope(ctx, r.At)
			fault("at", err)
		}
	}
	return errors.Join(errs...)
}

func (k *keeper) group(ctx context.Context, _ declaration) error {
	return ensureGroup(ctx, k.platform.Admin, devGroup)
}

func (k *keeper) identities(ctx context.Context, d declaration) error {
	for _, name := range d.Identities {
		if err := k.put(ctx, k.id(typeIdentity, name), map[string]any{}); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) vaults(ctx context.Context, d declaration) error {
	a := k.platform.Admin
	for _, name := range slices.Sorted(maps.Keys(d.Vaults)) {
		if err := k.put(ctx, k.id(typeVault, name), map[string]any{"properties": map[string]any{
			"tenantId": a.Info.Tenant, "sku": map[string]string{"family": "A", "name": "standard"}, "enableRbacAuthorization": true,
		}}); err != nil {
			return err
		}
		for _, secret := range slices.Sorted(maps.Keys(d.Vaults[name].Secrets)) {
			value, err := expand(d.Vaults[name].Secrets[secret])
			if err != nil {
				return err
			}
			if err := k.secret(ctx, name, secret, value); err != nil {
				return fmt.Errorf("vaults.%s.secrets.%s: %w", name, secret, err)
			}
		}
	}
	return nil
}

// secret sets a secret, unless it has that value already: no version for nothing.
func (k *keeper) secret(ctx context.Context, vault, name, value string) error {
	var now secretBundle
	a := k.platform.Admin
	if err := a.Vault(ctx, vault, http.MethodGet, "/secrets/"+url.PathEscape(name)+"/", nil, &now); err == nil && now.Value == value {
		return nil
	}
	return a.Vault(ctx, vault, http.MethodPut, "/secrets/"+url.PathEscape(name), map[string]string{"value": value}, nil)
}

// block is the identity block of something with its own identity and shared ones.
func (k *keeper) block(shared []string) map[string]any {
	b := map[string]any{"type": "SystemAssigned"}
	if len(shared) > 0 {
		user := map[string]any{}
		for _, name := range shared {
			user[string(k.id(typeIdentity, name))] = map[string]any{}
		}
		b["type"], b["userAssignedIdentities"] = "SystemAssigned, UserAssigned", user
	}
	return b
}

func (k *keeper) apps(ctx context.Context, d declaration) error {
	if len(d.Apps) == 0 {
		return nil
	}
	plan, err := ensurePlan(ctx, k.platform.Admin, devGroup, k.platform.Machine)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.Apps)) {
		app := d.Apps[name]
		kind := app.Kind
		if kind == "" {
			kind = "app"
		}
		id := k.id(typeSite, name)
		if err := k.put(ctx, id, map[string]any{
			"kind": kind, "identity": k.block(app.Identities), "properties": map[string]any{"serverFarmId": plan},
		}); err != nil {
			return err
		}
		settings := app.Settings
		if settings == nil {
			settings = map[string]string{}
		}
		if err := k.platform.Admin.ARM(ctx, http.MethodPut, string(id)+"/config/appsettings", map[string]any{"properties": settings}, nil); err != nil {
			return fmt.Errorf("settings of %s: %w", name, err)
		}
	}
	return nil
}

func (k *keeper) vms(ctx context.Context, d declaration) error {
	if k.attached == nil {
		k.attached = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(d.VMs)) {
		vm := d.VMs[name]
		id := k.id(typeVM, name)
		if err := k.put(ctx, id, map[string]any{
			"identity": k.block(vm.Identities), "properties": map[string]any{"host": map[string]any{"id": k.platform.Machine}},
		}); err != nil {
			return err
		}
		if vm.NetNS == "" || k.attached[name] == vm.NetNS {
			continue
		}
		if err := agent.Attach(k.platform.Dir.AgentSocket(), string(id), agent.Place{NetNS: "/run/netns/" + vm.NetNS}); err != nil {
			return fmt.Errorf("vms.%s: %w", name, err)
		}
		k.attached[name] = vm.NetNS
	}
	return nil
}

func (k *keeper) registrations(ctx context.Context, d declaration) error {
	a := k.platform.Admin
	for _, name := range slices.Sorted(maps.Keys(d.Registrations)) {
		want := d.Registrations[name]
		have, ok := k.registered[name]
		if !ok {
			made, err := register(ctx, a, newApplication{Name: name, URIs: want.URIs})
			if err != nil {
				return fmt.Errorf("registrations.%s: %w", name, err)
			}
			have = registered{Object: made.ID, Client: made.Client}
		}
		if want.Secret && have.Secret == "" {
			secret, err := addSecret(ctx, a, have.Object, clientSecret{Name: "innate dev"})
			if err != nil {
				return err
			}
			have.Secret = secret.Text
		}
		k.registered[name] = have
	}
	for name, have := range k.registered {
		if _, ok := d.Registrations[name]; !ok {
			if err := a.Graph(ctx, http.MethodDelete, "/v1.0/applications/"+string(have.Object), nil, nil); err != nil {
				return err
			}
			delete(k.registered, name)
		}
	}
	return nil
}

// roles grants what is declared and takes back what this keeper granted before.
func (k *keeper) roles(ctx context.Context, d declaration) error {
	a := k.platform.Admin
	granted := map[string]string{}
	for _, r := range d.Roles {
		at, err := a.Scope(ctx, r.At)
		if err != nil {
			return fmt.Errorf("roles: at: %w", err)
		}
		who, err := a.Identity(ctx, r.To)
		if err != nil {
			return fmt.Errorf("roles: to: %w", err)
		}
		role, err := findRole(ctx, a, at, r.Role)
		if err != nil {
			return fmt.Errorf("roles: %w", err)
		}
		says := strings.Join([]string{string(who), role.Name, at.Key()}, " ")
		if path, ok := k.granted[says]; ok {
			granted[says] = path
			continue
		}
		path := under(at) + authorization + "roleAssignments/" + innate.NewGUID()
		err = a.ARM(ctx, http.MethodPut, path, map[string]any{"properties": map[string]any{"roleDefinitionId": role.ID, "principalId": who}}, nil)
		if code(err) == "RoleAssignmentExists" {
			continue // somebody granted it by hand: theirs to take back
		}
		if err != nil {
			return err
		}
		granted[says] = path
	}
	for says, path := range k.granted {
		if granted[says] == "" {
			if err := a.ARM(ctx, http.MethodDelete, path, nil, nil); err != nil {
				return err
			}
		}
	}
	k.granted = granted
	return nil
}

// writeEnv writes the env file in one step, since programs wait for it.
func (k *keeper) writeEnv(ctx context.Context, d declaration) error {
	if k.envFile == "" {
		return nil
	}
	env, err := k.env(ctx, d)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(k.envFile), ".innate-env-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(strings.Join(env, "\n") + "\n"); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), k.envFile)
}

// env is what other programs need, NAME=VALUE: addresses under the names that
// SDKs look for where there is one, trust, and the ids of what was declared.
func (k *keeper) env(ctx context.Context, d declaration) ([]string, error) {
	p, info := k.platform, k.platform.Admin.Info
	env := []string{
		"INNATE=" + k.stub,
		"INNATE_SOCKET=" + p.Dir.Socket(),
		"INNATE_AGENT_SOCKET=" + p.Dir.AgentSocket(),
		"AZURE_AUTHORITY_HOST=" + info.Login + "/",
		"AZURE_TENANT_ID=" + string(info.Tenant),
		"AZURE_SUBSCRIPTION_ID=" + info.Subscription,
		"INNATE_MANAGEMENT=" + info.Management,
		"INNATE_GRAPH=" + info.Graph,
		"INNATE_VAULT_SUFFIX=" + info.VaultSuffix,
	}
	env = append(env, p.Dir.Trust()...)
	for _, name := range slices.Sorted(maps.Keys(d.Vaults)) {
		env = append(env, variable("VAULT", name, "URL")+"=https://"+name+"."+info.VaultSuffix)
	}
	ids := func(kind, name string, id innate.ResourceID) error {
		var r struct {
			Identity   identityBlock `json:"identity"`
			Properties struct {
				Principal innate.ObjectID `json:"principalId"`
				Client    innate.ClientID `json:"clientId"`
			} `json:"properties"`
		}
		if err := p.Admin.ARM(ctx, http.MethodGet, string(id), nil, &r); err != nil {
			return err
		}
		principal := r.Identity.Principal
		if r.Properties.Principal != "" {
			principal = r.Properties.Principal
			env = append(env, variable(kind, name, "CLIENT_ID")+"="+string(r.Properties.Client))
		}
		env = append(env, variable(kind, name, "ID")+"="+string(id), variable(kind, name, "PRINCIPAL_ID")+"="+string(principal))
		return nil
	}
	for _, name := range d.Identities {
		if err := ids("IDENTITY", name, k.id(typeIdentity, name)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Apps)) {
		if err := ids("APP", name, k.id(typeSite, name)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.VMs)) {
		if err := ids("VM", name, k.id(typeVM, name)); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.registered)) {
		r := k.registered[name]
		env = append(env, variable("REGISTRATION", name, "CLIENT_ID")+"="+string(r.Client))
		if r.Secret != "" {
			env = append(env, variable("REGISTRATION", name, "CLIENT_SECRET")+"="+r.Secret)
		}
	}
	return env, nil
}

// variable is a name such as INNATE_APP_MY_API_ID.
func variable(kind, name, what string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(name))
	return "INNATE_" + kind + "_" + clean + "_" + what
}

// greet says that all is ready and how to go on.
func (k *keeper) greet(file string) {
	p := k.platform
	fmt.Fprintf(k.session.out, "innate dev: ready, as %s says. Ctrl-C ends it.\n\n", file)
	fmt.Fprintf(k.session.out, "  export INNATE_SOCKET=%s\n  %s run --app NAME -- PROGRAM\n\n", p.Dir.Socket(), k.stub)
	fmt.Fprintf(k.session.out, "  sign-in     %s\n  management  %s\n  vaults      https://NAME.%s\n  callers are proved by %s\n",
		p.Admin.Info.Login, p.Admin.Info.Management, p.Admin.Info.VaultSuffix, p.Agent.Assurance())
}
