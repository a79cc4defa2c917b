package resources

import (
	"fmt"
	"slices"
	"strings"

	"innate"
)

// Properties of vaults that mean something to us.
const (
	propPolicies   = "accessPolicies"
	propByRole     = "enableRbacAuthorization"
	propSoftDelete = "enableSoftDelete" // always
	propRetention  = "softDeleteRetentionInDays"
	propProtection = "enablePurgeProtection"
	propCreateMode = "createMode"           // of a PUT alone: default or recover
	propInTime     = "enforceSecretsInTime" // ours: nbf and exp are enforced (control-plane §5.3)
)

const (
	defaultRetention = 90 // days
	shortRetention   = 7
	maxPolicies      = 1024 // as in Azure
)

// A VaultSettings is what a vault's properties say of its secrets.
type VaultSettings struct {
	Retention int // days
	Protected bool
	InTime    bool
	ByPolicy  bool // access policies decide, and roles do not
	Policies  []AccessPolicy
}

// An AccessPolicy is what one principal may do with secrets, in Azure's words.
type AccessPolicy struct {
	Object  innate.ObjectID
	Client  innate.ClientID // only through this application; empty means by itself
	Secrets []string
}

// Vault reads r's properties as those of a vault.
func (r *Resource) Vault() VaultSettings {
	v := VaultSettings{
		Retention: retentionOf(r), Protected: is(r, propProtection), InTime: is(r, propInTime), ByPolicy: r.ByPolicy(),
	}
	for _, p := range r.policies() {
		v.Policies = append(v.Policies, AccessPolicy{innate.ObjectID(p.Object), innate.ClientID(p.Client), p.Permissions["secrets"]})
	}
	return v
}

// ByPolicy reports whether r is a vault whose access policies decide. Azure's
// newest API says so only of those that ask for it, and so do we.
func (r *Resource) ByPolicy() bool { return r.ID.Is(TypeVault) && !says(r, propByRole) }

// is reads a switch that is off unless it is turned on.
func is(r *Resource, name string) bool {
	on, err := property[bool](r, name)
	return err == nil && on
}

func retentionOf(r *Resource) int {
	if days, err := property[int](r, propRetention); err == nil && days != 0 {
		return days
	}
	return defaultRetention
}

func (r *Resource) policies() []accessPolicy {
	if !r.ID.Is(TypeVault) {
		return nil
	}
	all, _ := property[[]accessPolicy](r, propPolicies)
	return all
}

// settleVault refuses what Azure refuses: a retention, once there, stays, and
// purge protection is never taken away. A PUT that does not speak of them leaves them.
func settleVault(old, now *Resource) error {
	if _, said := now.Properties[propRetention]; !said {
		if days, kept := old.Properties[propRetention]; kept {
			now.Properties[propRetention] = days
		}
	} else if retentionOf(now) != retentionOf(old) {
		return invalid(propRetention, "it is %d since the vault was made, and cannot be changed", retentionOf(old))
	}
	if !is(old, propProtection) {
		return nil
	}
	if _, said := now.Properties[propProtection]; said && !is(now, propProtection) {
		return invalid(propProtection, "it is on, and cannot be turned off")
	}
	keep(now, propProtection, true)
	return nil
}

func checkVault(s *Resources, r *Resource) error {
	tenant, err := property[string](r, "tenantId")
	if err != nil || tenant != "" && !strings.EqualFold(tenant, string(s.config.Tenant)) {
		return invalid("tenantId", "want %s, the only tenant here", s.config.Tenant)
	}
	days, err := property[*int](r, propRetention)
	if err != nil || days != nil && (*days < shortRetention || *days > defaultRetention) {
		return invalid(propRetention, "want a number from %d to %d", shortRetention, defaultRetention)
	}
	for _, name := range []string{propByRole, propProtection, propInTime} {
		if _, err := property[bool](r, name); err != nil {
			return invalid(name, "want true or false")
		}
	}
	if on, err := property[*bool](r, propSoftDelete); err != nil || on != nil && !*on {
		return invalid(propSoftDelete, "want true: what is deleted can be recovered in every vault, as in Azure")
	}
	if _, err := property[struct{ Family, Name string }](r, "sku"); err != nil {
		return invalid("sku", `want {"family": "A", "name": "standard"}`)
	}
	return s.checkPolicies(r)
}

func showVault(s *Resources, r *Resource, p map[string]any) {
	p["vaultUri"] = fmt.Sprintf("https://%s.%s/", strings.ToLower(r.ID.Name()), s.config.Endpoints.VaultSuffix)
	orElse(p, "tenantId", s.config.Tenant)
	orElse(p, "sku", map[string]string{"family": "A", "name": "standard"})
	orElse(p, propPolicies, []any{})
	orElse(p, propByRole, true)
	orElse(p, propSoftDelete, true)
	orElse(p, propRetention, defaultRetention)
	orElse(p, "publicNetworkAccess", "Enabled")
	if len(r.policies()) > 0 && !r.ByPolicy() {
		p["note"] = "role assignments decide who may read this vault: its access policies are kept, and count once " + propByRole + " is false"
	}
}

// An accessPolicy is one on the wire. What it says of keys, certificates and
// storage is kept as data.
type accessPolicy struct {
	Tenant      string              `json:"tenantId"`
	Object      string              `json:"objectId"`
	Client      string              `json:"applicationId,omitempty"`
	Permissions map[string][]string `json:"permissions"`
}

// secretPermissions are Azure's words, in its case.
var secretPermissions = []string{"all", "get", "list", "set", "delete", "backup", "restore", "recover", "purge"}

func (p accessPolicy) equal(o accessPolicy) bool {
	if !p.same(o) || len(p.Permissions) != len(o.Permissions) {
		return false
	}
	for kind, words := range p.Permissions {
		if !slices.Equal(words, o.Permissions[kind]) {
			return false
		}
	}
	return true
}

// same reports whether two policies are of one principal.
func (p accessPolicy) same(o accessPolicy) bool {
	return strings.EqualFold(p.Object, o.Object) && strings.EqualFold(p.Client, o.Client)
}

// checkPolicies checks a vault's access policies and puts their ids in the form
// that compares.
func (s *Resources) checkPolicies(r *Resource) error {
	all, err := property[[]accessPolicy](r, propPolicies)
	if err != nil {
		return invalid(propPolicies, "want a list of {tenantId, objectId, permissions: {secrets: [word, …]}}")
	}
	if len(all) > maxPolicies {
		return invalid(propPolicies, "there are %d: want at most %d", len(all), maxPolicies)
	}
	for i := range all {
		if err := s.checkPolicy(&all[i]); err != nil {
			return err
		}
		if slices.ContainsFunc(all[:i], all[i].same) {
			return invalid(propPolicies, "the object id %s stands twice", all[i].Object)
		}
	}
	if len(all) > 0 {
		keep(r, propPolicies, all)
	}
	return nil
}

func (s *Resources) checkPolicy(p *accessPolicy) (err error) {
	if p.Tenant == "" {
		p.Tenant = string(s.config.Tenant)
	}
	if !strings.EqualFold(p.Tenant, string(s.config.Tenant)) {
		return invalid(propPolicies, "the tenant %.40q: want %s, the only one here", p.Tenant, s.config.Tenant)
	}
	if p.Object, err = innate.ParseGUID(p.Object); err != nil {
		return invalid(propPolicies, "objectId: %v", err)
	}
	if p.Client != "" {
		if p.Client, err = innate.ParseGUID(p.Client); err != nil {
			return invalid(propPolicies, "applicationId: %v", err)
		}
	}
	permissions := map[string][]string{}
	for kind, words := range p.Permissions { // Python's SDK says Secrets
		kind = strings.ToLower(kind)
		permissions[kind] = slices.Concat(permissions[kind], words)
	}
	p.Permissions = permissions
	for _, word := range permissions["secrets"] {
		if !slices.ContainsFunc(secretPermissions, func(w string) bool { return strings.EqualFold(w, word) }) {
			return invalid(propPolicies, "the permission %.40q: want some of %s", word, strings.Join(secretPermissions, ", "))
		}
	}
	return nil
}
