package databases

import (
	"context"
	"errors"
	"net/http"
	"time"

	"innate/access"
	"innate/feed"
	"innate/feed/client"
	"innate/rest"
	"innate/store"
)

// gatewayAction is the right to hear who may log in at a server.
const gatewayAction = typeServer + "/gateway/action"

// standingEvery is how often it is looked whether a gateway may still hear: the
// loss of a right, which may come by a role, a group or an assignment, ends its
// feed within that. A look is a few lookups in memory.
const standingEvery = 200 * time.Millisecond

// serveFeed tells a server's gateway who may log in there, for as long as it may hear it.
func (d *Databases) serveFeed(c call) error {
	if err := d.need(c, "gateway/action"); err != nil {
		return err
	}
	var server Server
	if err := d.view(c.Context(), c, func(_ store.Reader, s Server) error { server = s; return nil }); err != nil {
		return err
	}
	ctx, end := context.WithCancel(c.Context())
	attended := make(chan struct{})
	go func() {
		defer close(attended)
		defer end()
		d.attend(ctx, c)
	}()
	feed.Serve(c.w, c.WithContext(ctx), d.config.DB, told(server.Resource),
		feed.Range{Prefix: feed.RevokedPrefix, As: client.RevokedPrefix})
	end()
	<-attended
	return nil
}

// attend returns when the gateway may hear no more, or ctx ends.
func (d *Databases) attend(ctx context.Context, c call) {
	tick := time.NewTicker(standingEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if d.standing(ctx, c) != nil {
				return
			}
		}
	}
}

var errEnded = errors.New("its token has ended or is revoked, or its server is gone")

// standing is an error when the gateway may hear no more. That a right was taken
// away is on the record.
func (d *Databases) standing(ctx context.Context, c call) error {
	if !c.who.Expires.IsZero() && !d.config.Now().Before(c.who.Expires) {
		return errEnded
	}
	if _, revoked := d.config.Revoked(c.who); revoked {
		return errEnded
	}
	if err := d.view(ctx, c, func(store.Reader, Server) error { return nil }); err != nil {
		return err
	}
	may, err := d.config.Access.Allowed(ctx, c.who, access.Control(gatewayAction), c.server.Scope())
	if err != nil || may.Allowed {
		return err
	}
	ev := d.event(ctx, c.who, gatewayAction, string(c.server))
	ev.Allowed, ev.Why = false, "while it heard the feed: "+may.Why
	if err := d.config.Audit.Record(ctx, ev); err != nil {
		return err
	}
	return rest.Errorf(http.StatusForbidden, "AuthorizationFailed", "%s", may.Why)
}
