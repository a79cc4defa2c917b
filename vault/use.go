package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/rest"
	"innate/store"
)

// The data actions, under Azure's names.
var (
	getSecret     = access.Data("Microsoft.KeyVault/vaults/secrets/getSecret/action")
	setSecret     = access.Data("Microsoft.KeyVault/vaults/secrets/setSecret/action")
	updateSecret  = access.Data("Microsoft.KeyVault/vaults/secrets/update/action")
	readMetadata  = access.Data("Microsoft.KeyVault/vaults/secrets/readMetadata/action")
	deleteSecret  = access.Data("Microsoft.KeyVault/vaults/secrets/delete")
	recoverSecret = access.Data("Microsoft.KeyVault/vaults/secrets/recover/action")
	purgeSecret   = access.Data("Microsoft.KeyVault/vaults/secrets/purge/action")
)

// A use is who asks what of which secret.
type use struct {
	who     innate.Principal
	vault   innate.ResourceID
	secret  string // name, as it was asked for; empty for the vault as a whole
	version string // empty means the latest
	address string // of the peer
}

// scope is where the permission for it must be: Azure lets a role be granted
// on one secret.
func (u use) scope() innate.Scope {
	if u.secret == "" {
		return u.vault.Scope()
	}
	return u.vault.Scope() + "/secrets/" + innate.Scope(u.secret)
}

// allow decides whether u may do the action, before anything is looked up: who
// may not is not told what exists. A refusal is on record when allow returns; a
// yes comes with its record, to be written with the outcome.
func (s *Service) allow(ctx context.Context, u use, do access.Action) (audit.Event, error) {
	d, err := s.config.Access.Allowed(ctx, u.who, do, u.scope())
	if err != nil {
		return audit.Event{}, err
	}
	ev := audit.Event{
		Time: s.config.Now(), Action: do.Name, Allowed: d.Allowed, Target: string(u.scope()),
		Principal: u.who.Object, Name: u.who.Name, Client: u.who.Client,
		Hosting: string(u.who.Hosting), Host: string(u.who.Host), Assurance: u.who.Assurance, Token: u.who.Token,
		Why: d.Why, Trace: rest.RequestID(ctx), Address: u.address,
	}
	if d.Allowed {
		return ev, nil
	}
	if err := s.record(ctx, ev, nil); err != nil {
		return audit.Event{}, err
	}
	return audit.Event{}, refusal(u, do, d)
}

// refusal is Key Vault's 403, with what would help.
func refusal(u use, do access.Action, d access.Decision) error {
	text := fmt.Sprintf("Caller is not authorized to perform action on resource.\nCaller: name=%s;oid=%s;appid=%s\nAction: '%s'\nResource: '%s'\nAssignment: (not found)\nReason: %s",
		u.who.Name, u.who.Object, u.who.Client, do.Name, u.scope(), d.Why)
	if d.Smallest != "" {
		text += fmt.Sprintf("\nThe smallest built-in role that would allow it is '%s'; grant it with: innate role assign --to %s --role '%s' --at %s",
			d.Smallest, u.who.Object, d.Smallest, u.vault)
	}
	return &rest.Error{Status: http.StatusForbidden, Code: "Forbidden", Inner: "ForbiddenByRbac", Message: text}
}

// record writes what was decided, and what came of it, before the answer.
func (s *Service) record(ctx context.Context, ev audit.Event, outcome error) error {
	if outcome != nil {
		ev.Detail = with(ev.Detail, "outcome", codeOf(outcome))
	}
	if err := s.config.Audit.Record(ctx, ev); err != nil {
		return &rest.Error{
			Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable",
			Message: "the audit log cannot be written, and nothing is answered without it; the operator finds the reason in the server's log",
			Cause:   err,
		}
	}
	return nil
}

// with returns detail with one more word; events are copied, their maps are not.
func with(detail map[string]string, key, value string) map[string]string {
	more := map[string]string{key: value}
	for k, v := range detail {
		more[k] = v
	}
	return more
}

// codeOf is the error's code, fit for the audit log.
func codeOf(err error) string {
	var e *rest.Error
	switch {
	case !errors.As(err, &e):
		return "InternalServerError"
	case e.Inner != "":
		return e.Inner
	}
	return e.Code
}

// read runs fn for one who may. fn fills in ev what it found; it is on record
// before read returns.
func (s *Service) read(ctx context.Context, u use, do access.Action, fn func(r store.Reader, v vaultRow, ev *audit.Event) error) error {
	ev, err := s.allow(ctx, u, do)
	if err != nil {
		return err
	}
	outcome := s.again(ctx, func() error {
		return s.config.DB.View(ctx, func(r store.Reader) error {
			v, err := vaultIn(r, u.vault)
			if err != nil {
				return err
			}
			return fn(r, v, &ev)
		})
	})
	if err := s.record(ctx, ev, outcome); err != nil {
		return err
	}
	return outcome
}

// write runs fn in a transaction, for one who may, and leaves the record of it
// there; when nothing came of it, in the log.
func (s *Service) write(ctx context.Context, u use, do access.Action, fn func(tx store.Tx, v vaultRow, ev *audit.Event) error) error {
	allowed, err := s.allow(ctx, u, do)
	if err != nil {
		return err
	}
	outcome := s.again(ctx, func() error {
		_, err := s.config.DB.Update(ctx, func(tx store.Tx) error {
			v, err := vaultIn(tx, u.vault)
			if err != nil {
				return err
			}
			ev := allowed
			if err := fn(tx, v, &ev); err != nil {
				return err
			}
			return audit.Leave(tx, ev)
		})
		return err
	})
	if outcome == nil {
		return nil
	}
	if err := s.record(ctx, allowed, outcome); err != nil {
		return err
	}
	return outcome
}

// again runs fn once more on a state that has all that was committed before the
// call, if it found something missing: what was just made is never not found.
func (s *Service) again(ctx context.Context, fn func() error) error {
	err := fn()
	var e *rest.Error
	if !errors.As(err, &e) || e.Status != http.StatusNotFound {
		return err
	}
	if err := s.config.DB.Sync(ctx); err != nil {
		return err
	}
	return fn()
}

func vaultIn(r store.Reader, id innate.ResourceID) (vaultRow, error) {
	v, ok, err := vaults.Get(r, id.Key())
	if err != nil {
		return v, err
	}
	if !ok {
		return v, noVault(id.Name())
	}
	return v, nil
}

func noVault(name string) error {
	return rest.Errorf(http.StatusNotFound, "VaultNotFound", "there is no vault named %q", name)
}
