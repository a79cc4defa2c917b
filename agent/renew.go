package agent

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	lookAgain     = time.Minute // how often the wall clock is looked at: timers stand still while a laptop sleeps
	firstRetry    = 5 * time.Second
	longestRetry  = 5 * time.Minute
	renewalJitter = 0.1 // of a certificate's life, so that hosts that joined together part
)

// renew replaces the host's certificate at half its life, for as long as ctx lasts.
func (a *Agent) renew(ctx context.Context) error {
	retry := firstRetry
	at := renewAt(a.upstream)
	for {
		wait := min(max(at.Sub(a.config.Now()), 0), lookAgain)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if a.config.Now().Before(at) {
			continue
		}
		if err := a.renewOnce(ctx); err != nil {
			if ctx.Err() == nil {
				a.config.Log.Warn("renewing the host's certificate", "until", a.upstream.key.Load().Leaf.NotAfter, "err", err)
			}
			at = a.config.Now().Add(retry/2 + rand.N(retry/2))
			retry = min(2*retry, longestRetry)
			continue
		}
		// By our own clock: one that is far ahead of the control plane's would find
		// half of a new certificate's life over, too, and never stop.
		leaf, now := a.upstream.key.Load().Leaf, a.config.Now()
		retry, at = firstRetry, middle(now, now.Add(leaf.NotAfter.Sub(leaf.NotBefore)))
	}
}

// renewAt is about the middle of the certificate's life, and at once while the
// key in the TPM does the daily work.
func renewAt(u *upstream) time.Time {
	if u.key.Load() == u.chip {
		return time.Time{}
	}
	return middle(u.key.Load().Leaf.NotBefore, u.key.Load().Leaf.NotAfter)
}

// middle is the middle of a time span, give or take a tenth of it.
func middle(from, to time.Time) time.Time {
	life := to.Sub(from)
	return from.Add(life/2 + time.Duration((2*rand.Float64()-1)*renewalJitter*float64(life)))
}

// renewOnce gets the next certificate, for a new key. Where the TPM has the
// host's key, that key asks, and the new one is kept in memory alone.
func (a *Agent) renewOnce(ctx context.Context) error {
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	ask := a.upstream.asker
	if chip := a.upstream.chip; chip != nil {
		transport := a.upstream.transportFor(chip)
		defer transport.CloseIdleConnections()
		ask.http = &http.Client{Transport: transport}
	}
	var g grant
	if err := ask.post(ctx, "/v1/renew", map[string]any{"csr": csr}, &g); err != nil {
		return err
	}
	if a.upstream.chip != nil {
		return a.useDaily(key, g)
	}
	pair, err := keyPair(key, g.Certificate)
	if err != nil {
		return err
	}
	if err := writeState(a.config.State, a.machine, pair); err != nil {
		return err
	}
	a.upstream.use(pair)
	return nil
}
