package vault

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"time"

	"innate"
	"innate/audit"
	"innate/rest"
	"innate/store"
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

// record writes what was decided, and what came of it, before the answer.
func (s *Service) record(ctx context.Context, ev audit.Event, outcome error) error {
	if outcome != nil {
		ev.Detail = with(ev.Detail, "outcome", codeOf(outcome))
	}
	err := s.config.Audit.Record(ctx, ev)
	if isFull(err) {
		return diskFull(err)
	}
	if err != nil {
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
func (s *Service) read(ctx context.Context, u use, do right, fn func(r store.Reader, v vaultRow, ev *audit.Event) error) error {
	ev, err := s.allow(ctx, u, do)
	if err != nil {
		return err
	}
	outcome := s.again(ctx, func() error {
		return s.config.DB.View(ctx, func(r store.Reader) error {
			v, err := s.vaultIn(r, u.vault)
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
func (s *Service) write(ctx context.Context, u use, do right, fn func(tx store.Tx, v vaultRow, ev *audit.Event) error) error {
	allowed, err := s.allow(ctx, u, do)
	if err != nil {
		return err
	}
	return s.change(ctx, u, allowed, fn)
}

// change is write once allow has said yes.
func (s *Service) change(ctx context.Context, u use, allowed audit.Event, fn func(tx store.Tx, v vaultRow, ev *audit.Event) error) error {
	outcome := s.again(ctx, func() error {
		return s.commit(ctx, func(tx store.Tx) error {
			v, err := s.vaultIn(tx, u.vault)
			if err != nil {
				return err
			}
			ev := allowed
			if err := fn(tx, v, &ev); err != nil {
				return err
			}
			return audit.Leave(tx, ev)
		})
	})
	if outcome == nil {
		return nil
	}
	if err := s.record(ctx, allowed, outcome); err != nil {
		return err
	}
	return outcome
}

// commit is an Update that says so when there is no room for it.
func (s *Service) commit(ctx context.Context, fn func(store.Tx) error) error {
	_, err := s.config.DB.Update(ctx, fn)
	if isFull(err) {
		return diskFull(err)
	}
	return err
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// diskRetry is when a client that found the disk full may ask again.
const diskRetry = 10 * time.Second

// diskFull is a 503, since it heals: SDKs do not retry a 507 (control-plane T11).
func diskFull(cause error) error {
	return &rest.Error{
		Status: http.StatusServiceUnavailable, Code: "InsufficientStorage", RetryAfter: diskRetry, Cause: cause,
		Message: "the server's disk is full, so nothing can be kept or recorded: ask again; it goes on by itself as soon as its operator has made room",
	}
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

// vaultIn is the row of a vault that answers.
func (s *Service) vaultIn(r store.Reader, id innate.ResourceID) (vaultRow, error) {
	v, ok, err := s.known.get(r, id)
	if err != nil {
		return v, err
	}
	if !ok || v.Away {
		return v, noVault(id.Name())
	}
	return v, nil
}

func noVault(name string) error {
	return rest.Errorf(http.StatusNotFound, "VaultNotFound", "there is no vault named %q", name)
}
