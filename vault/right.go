package vault

import (
	"context"
	"fmt"
	"net/http"

	"innate/access"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// A right is what it takes to do something: a data action under Azure's name,
// and in a vault with access policies a permission.
type right struct {
	access.Action
	permission string
}

const secretActions = "Microsoft.KeyVault/vaults/secrets/"

var (
	getSecret     = right{access.Data(secretActions + "getSecret/action"), "get"}
	setSecret     = right{access.Data(secretActions + "setSecret/action"), "set"}
	updateSecret  = right{access.Data(secretActions + "update/action"), "set"}
	readMetadata  = right{access.Data(secretActions + "readMetadata/action"), "list"}
	readDeleted   = right{access.Data(secretActions + "readMetadata/action"), "get"}
	deleteSecret  = right{access.Data(secretActions + "delete"), "delete"}
	recoverSecret = right{access.Data(secretActions + "recover/action"), "recover"}
	purgeSecret   = right{access.Data(secretActions + "purge/action"), "purge"}
	backupSecret  = right{access.Data(secretActions + "backup/action"), "backup"}
	restoreSecret = right{access.Data(secretActions + "restore/action"), "restore"}
)

// A verdict is a decision, and for a refusal what its subject is told.
type verdict struct {
	allowed bool
	why     string
	refusal error
}

// allow decides whether u may do it, before anything is looked up: who may not
// is not told what exists. A refusal is on record when allow returns; a yes
// comes with its record, to be written with the outcome.
func (s *Service) allow(ctx context.Context, u use, do right) (audit.Event, error) {
	v, err := s.decide(ctx, u, do)
	if err != nil {
		return audit.Event{}, err
	}
	ev := audit.Event{
		Time: s.config.Now(), Action: do.Name, Allowed: v.allowed, Target: string(u.scope()),
		Principal: u.who.Object, Name: u.who.Name, Client: u.who.Client,
		Hosting: string(u.who.Hosting), Host: string(u.who.Host), Assurance: u.who.Assurance, Token: u.who.Token,
		Why: v.why, Trace: rest.RequestID(ctx), Address: u.address,
	}
	if v.allowed {
		return ev, nil
	}
	if err := s.record(ctx, ev, nil); err != nil {
		return audit.Event{}, err
	}
	return audit.Event{}, v.refusal
}

// decide asks whoever decides in this vault: its policies, or else the roles.
func (s *Service) decide(ctx context.Context, u use, do right) (verdict, error) {
	set, err := s.settings(ctx, u)
	if err != nil {
		return verdict{}, err
	}
	if set.ByPolicy {
		return s.decideByPolicy(ctx, u, do, set)
	}
	d, err := s.config.Access.Allowed(ctx, u.who, do.Action, u.scope())
	if err != nil {
		return verdict{}, err
	}
	if d.Allowed {
		return verdict{allowed: true, why: d.Why}, nil
	}
	// Allowed has caught up with the store before it refused: the vault may turn
	// out to be one with policies.
	if set, err = s.settings(ctx, u); err != nil {
		return verdict{}, err
	}
	if set.ByPolicy {
		return s.decideByPolicy(ctx, u, do, set)
	}
	return verdict{why: d.Why, refusal: refusedByRole(u, do, d)}, nil
}

// decideByPolicy looks once more, on a state that has all that was committed
// before the question, before it refuses.
func (s *Service) decideByPolicy(ctx context.Context, u use, do right, set Settings) (verdict, error) {
	if u.who.Object == "" || u.who.Tenant != "" && u.who.Tenant != s.config.Tenant {
		return verdict{why: "it is of another tenant, or nobody", refusal: refusedByPolicy(u, do)}, nil
	}
	for synced := false; ; synced = true {
		if by, ok := set.permits(s.config.Access.Identities(u.who), u.who.Client, do.permission); ok {
			return verdict{allowed: true, why: "access policy of " + string(by)}, nil
		}
		if synced {
			return verdict{why: "no access policy allows it", refusal: refusedByPolicy(u, do)}, nil
		}
		if err := s.config.DB.Sync(ctx); err != nil {
			return verdict{}, err
		}
		var err error
		if set, err = s.settings(ctx, u); err != nil {
			return verdict{}, err
		}
	}
}

// settings are those of the vault; the zero value if there is none any more,
// which only who may is told.
func (s *Service) settings(ctx context.Context, u use) (set Settings, err error) {
	err = s.config.DB.View(ctx, func(r store.Reader) error {
		row, _, err := s.known.get(r, u.vault)
		set = row.Settings
		return err
	})
	return set, err
}

// refusedByRole is Key Vault's 403, with what would help.
func refusedByRole(u use, do right, d access.Decision) error {
	text := fmt.Sprintf("Caller is not authorized to perform action on resource.\nCaller: name=%s;oid=%s;appid=%s\nAction: '%s'\nResource: '%s'\nAssignment: (not found)\nReason: %s",
		u.who.Name, u.who.Object, u.who.Client, do.Name, u.scope(), d.Why)
	if d.Smallest != "" {
		text += fmt.Sprintf("\nThe smallest built-in role that would allow it is '%s'; grant it with: innate role assign --to %s --role '%s' --at %s",
			d.Smallest, u.who.Object, d.Smallest, u.vault)
	}
	return &rest.Error{Status: http.StatusForbidden, Code: "Forbidden", Inner: "ForbiddenByRbac", Message: text}
}

func refusedByPolicy(u use, do right) error {
	return &rest.Error{
		Status: http.StatusForbidden, Code: "Forbidden", Inner: "AccessDenied",
		Message: fmt.Sprintf("The user, group or application 'name=%s;oid=%s;appid=%s' does not have secrets %s permission on key vault '%s'.\n"+
			"This vault uses access policies and ignores roles: add %q to an access policy of that object id, by PUT %s/accessPolicies/add.",
			u.who.Name, u.who.Object, u.who.Client, do.permission, u.vault.Name(), do.permission, u.vault),
	}
}
