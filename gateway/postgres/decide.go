package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/audit"
	"innate/bearer"
	"innate/feed/client"
)

// logIn is the action in the audit log.
const logIn = "log-in-to-database"

// Why a log-in is refused, in fixed words: they go into PostgreSQL's log, and
// nothing that came with the request may stand there.
const (
	whyName        = "the name bound as is not cn=ROLE,ou=SERVER of this server: compare ldapprefix and ldapsuffix in pg_hba.conf"
	whyServer      = "the control plane knows no such server any more"
	whyByCert      = "this server takes certificates and no tokens: 'innate postgres prepare --by-certificate' has its lines of pg_hba.conf"
	whyMapping     = "the token is good, and its identity is not mapped to this role at this server"
	whyManagement  = "the gateway does not reach the server to end sessions, and lets none begin"
	whyUnrecorded  = "the decision could not be recorded"
	whyTooSlow     = "there was no decision within two seconds, with its record on the disk"
	repeatsCounted = 10 * time.Second // refusals of one kind within it are one line, and a count
)

// whyFault says what is wrong with a token.
var whyFault = map[bearer.Fault]string{
	bearer.Malformed:     "the password is not an access token of this platform",
	bearer.OtherIssuer:   "the token is of another issuer or tenant",
	bearer.OtherAudience: "the token is for another service, not for this server",
	bearer.UnknownKey:    "the token is signed by a key that its issuer does not publish",
	bearer.BadSignature:  "the token's signature is wrong",
	bearer.Expired:       "the token has expired",
	bearer.NotYetGood:    "the token is not good yet: compare this machine's clock",
	bearer.Revoked:       "the token is revoked",
	bearer.Unavailable:   "the gateway has not heard for too long which tokens are good",
}

// An attempt is one log-in while it is decided.
type attempt struct {
	role        string
	claims      *bearer.Claims // nil: no good token
	session     record
	correlation string
}

// decide answers "" when the log-in may go on, and otherwise why not, with the
// correlation id under which the audit log has more. The record of the session
// and the line in the log are there before the answer is.
func (g *Gateway) decide(ctx context.Context, c *conversation, name, token string) (why string) {
	a := &attempt{correlation: innate.NewGUID()}
	why = g.judge(ctx, c, a, name, token)
	err := g.record(ctx, c, a, why)
	if err != nil {
		g.config.Log.Error("recording a log-in; it is refused", "err", err)
	}
	if why == "" && (err != nil || ctx.Err() != nil) {
		why = whyTooSlow
		if ctx.Err() == nil {
			why = whyUnrecorded
		}
		g.sessions.forget(a.session)
		g.audit.Append(g.event(c, a, why)) // that it was let in may be recorded by now, or be so in a moment
	}
	if why == "" {
		return ""
	}
	return why + "; correlation " + a.correlation
}

// judge decides by the token, the mapping and what can be done afterwards.
func (g *Gateway) judge(ctx context.Context, c *conversation, a *attempt, name, token string) (why string) {
	// By bytes: PostgreSQL puts the role between prefix and suffix as it is, and
	// this is the exact inverse. To parse a name that the client chose would not be.
	role, ok := strings.CutPrefix(name, Prefix)
	if ok {
		role, ok = strings.CutSuffix(role, Suffix(g.config.Server))
	}
	if !ok || role == "" {
		return whyName
	}
	a.role = role
	verifier := g.policy.verifierFor(g.verifier)
	if verifier == nil {
		if g.feed.Age() > g.config.Stale {
			return whyFault[bearer.Unavailable]
		}
		return whyServer
	}
	if g.policy.byCertificate() {
		return whyByCert
	}
	claims, err := verifier.Verify(ctx, token)
	var refused *bearer.Error
	switch {
	case errors.As(err, &refused):
		g.config.Log.Debug("a token was refused", "fault", refused.Fault, "correlation", a.correlation)
		return whyFault[refused.Fault]
	case err != nil:
		return whyFault[bearer.Malformed]
	}
	a.claims = claims
	if !g.policy.allows(claims.Principal.Object, role) {
		return whyMapping
	}
	return g.enlist(c, a)
}

// enlist records the session that is about to begin, and then looks at its right
// once more: whoever takes the right away meanwhile has either been seen here or
// finds the record.
func (g *Gateway) enlist(c *conversation, a *attempt) (why string) {
	if !g.manager.current(g.config.Stale) {
		return whyManagement
	}
	p := a.claims.Principal
	a.session = record{
		Role: a.role, Expires: a.claims.Expires, Bound: g.config.Now(),
		Claim: client.Claim{Object: p.Object, Hosting: p.Hosting, Host: p.Host, Token: p.Token, Key: a.claims.Key, IssuedAt: p.IssuedAt},
	}
	var sessionToCome bool
	if a.session.Process, sessionToCome = g.manager.backend(c.facts); !sessionToCome {
		return "" // whoever asks is not our server: a good token is all that it learns of
	}
	if err := g.sessions.add(a.session); err != nil {
		g.config.Log.Error("recording a session; it is refused", "err", err)
		return whyUnrecorded
	}
	if !g.good(a.session) {
		g.sessions.forget(a.session)
		return whyMapping
	}
	return ""
}

// good reports whether a session's right still stands.
func (g *Gateway) good(s record) bool {
	_, revoked := g.revocations.Revoked(s.Claim)
	return !revoked && g.policy.allows(s.Claim.Object, s.Role)
}

// event is the decision as the audit log has it.
func (g *Gateway) event(c *conversation, a *attempt, why string) audit.Event {
	ev := audit.Event{
		Time: g.config.Now(), Action: logIn, Allowed: why == "", Target: string(g.config.Server), Why: why,
		Correlation: a.correlation, Address: c.tcp.RemoteAddr().String(), Detail: map[string]string{"role": clip(a.role)},
	}
	if a.claims != nil {
		p := a.claims.Principal
		ev.Principal, ev.Name, ev.Client, ev.Hosting, ev.Host = p.Object, p.Name, p.Client, string(p.Hosting), string(p.Host)
		ev.Assurance, ev.Token = p.Assurance, p.Token
	}
	if a.session.PID != 0 {
		ev.Detail["process"] = strconv.Itoa(a.session.PID)
	}
	return ev
}

// record writes the decision down: each log-in that is let in, and of refusals
// the first of a kind and how often it was repeated.
func (g *Gateway) record(ctx context.Context, c *conversation, a *attempt, why string) error {
	ev := g.event(c, a, why)
	if why == "" {
		return g.audit.Record(ctx, ev)
	}
	d := endpoint.Decision{Who: string(ev.Principal) + " uid " + strconv.Itoa(int(c.facts.UID)), Target: clip(a.role), Why: why}
	if g.refusals.Repeats(d) {
		return nil
	}
	return g.refusals.Record(d, ev, g.config.Now().Add(repeatsCounted))
}

// clip bounds a role that a client chose; PostgreSQL's have at most 63 bytes.
func clip(role string) string {
	if len(role) > 128 {
		return role[:128] + "..."
	}
	return role
}
