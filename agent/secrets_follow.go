package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"
)

const (
	firstDeaf   = time.Second // after a failure to hear of changes; doubled while the vault refuses
	longestDeaf = time.Minute
)

// follow keeps the files of a generation's secrets as new as the vaults, until
// remove. A reference that names a version is what it is for good.
func (k *secrets) follow(ctx context.Context, g *Generation) {
	ctx, k.stop = context.WithCancel(ctx)
	log := k.agent.config.Log.With("app", g.App, "generation", g.Generation)
	for _, f := range k.found {
		if f.version == "" {
			k.following.Go(func() { k.followOne(ctx, g, f, log.With("vault", f.vault, "secret", f.name)) })
		}
	}
}

// followOne starts anew whenever the vault cannot be heard: at once when it only
// could not be reached, after longer and longer when it refuses.
func (k *secrets) followOne(ctx context.Context, g *Generation, f *found, log *slog.Logger) {
	now := k.agent.config.Now
	pause, told := firstDeaf, ""
	for {
		began := now()
		err := k.hear(ctx, g, f, log)
		if ctx.Err() != nil {
			return
		}
		if now().Sub(began) > longestDeaf {
			pause, told = firstDeaf, ""
		}
		if why := err.Error(); why != told {
			told = why
			log.Warn("following a secret; its file stays as it is meanwhile", "err", err)
		}
		retry := time.NewTimer(pause + rand.N(pause/10))
		select {
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
		if refused(err) {
			pause = min(2*pause, longestDeaf)
		}
	}
}

// hear asks where the vault is, reads the secret and from there on waits for what
// happens to it: nothing is missed between. It returns why it can hear no more.
func (k *secrets) hear(ctx context.Context, g *Generation, f *found, log *slog.Logger) error {
	var since uint64
	for {
		token, err := k.token(ctx)
		if err != nil {
			return err
		}
		from, changed, err := k.agent.vaults.changed(ctx, f.reference, since, token)
		if err != nil {
			return err
		}
		if changed || since == 0 {
			if err := k.renew(ctx, g, f, log); err != nil {
				return err
			}
		}
		since = from
	}
}

// renew reads a secret anew. One that may not be read now (deleted, disabled)
// may be again after its next change: its file stays.
func (k *secrets) renew(ctx context.Context, g *Generation, f *found, log *slog.Logger) error {
	value, err := k.read(ctx, f)
	if refused(err) {
		log.Warn("a secret changed and cannot be read now; its file stays as it is", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	changed, err := k.keep(f, value)
	if err != nil || !changed {
		return err
	}
	log.Info("a secret changed: its file has the new value", "settings", f.settings)
	if k.signal == 0 || g.process == nil { // to a unit's, the service manager alone sends any
		return nil
	}
	if err := g.process.SignalFirst(k.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		log.Warn("telling an app of a changed secret", "signal", k.signal, "err", err)
	}
	return nil
}

// refused reports whether a vault said no, as against not answering.
func refused(err error) bool {
	var r *refusal
	return errors.As(err, &r) && r.Status < 500 && r.Status != 408 && r.Status != 429
}
