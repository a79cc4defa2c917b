package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"innate"
	"innate/directory"
	"innate/jwt"
	"innate/rest"
)

// What the parameters of an exchange may say (RFC 8693 §2.1 and §3).
const (
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
)

// mostActors bounds how many may have acted for one subject, one after another.
const mostActors = 4

// An exchange is what a request of that grant says beside who asks, and for what.
type exchange struct {
	presented string // the subject token
	wanted    string // type of the token to issue: our access tokens are JWTs, and go by either name

	// Of the subject token, once it is known to be ours: for the record.
	subject innate.ObjectID
	tokenID string
}

// An actor is the client that acts for a token's subject (RFC 8693 §4.1).
type actor struct {
	Object innate.ObjectID `json:"sub"`
	Client innate.ClientID `json:"appid"`
	Prior  *actor          `json:"act,omitempty"` // who acted before it
}

// depth is how many actors a is and follows.
func (a *actor) depth() (n int) {
	for ; a != nil; a = a.Prior {
		n++
	}
	return n
}

// readExchange reads the parameters of an exchange.
func (s *Service) readExchange(q *request, form parameters) error {
	if s.config.MayExchange == nil {
		return refusal(http.StatusBadRequest, "unsupported_grant_type", 70003,
			"Tokens are not exchanged here: a workload asks with client_credentials")
	}
	x := &exchange{presented: form.value("subject_token"), wanted: form.value("requested_token_type")}
	if x.wanted == "" {
		x.wanted = typeAccessToken
	}
	switch kind := form.value("subject_token_type"); {
	case x.presented == "":
		return missing("subject_token", "the access token that the client was called with")
	case kind == "":
		return missing("subject_token_type", typeAccessToken)
	case kind != typeAccessToken && kind != typeJWT:
		return invalid("subject_token_type is %s: want %s, and a token of this service", shown(kind), typeAccessToken)
	case x.wanted != typeAccessToken && x.wanted != typeJWT:
		return invalid("requested_token_type is %s: want %s or none", shown(x.wanted), typeAccessToken)
	case form.value("actor_token") != "" || form.value("actor_token_type") != "":
		return invalid("An actor_token is not taken: the actor is the client that proves itself. Leave it and its type out")
	}
	q.exchange = x
	return q.readTarget(form)
}

// readTarget reads the audience of an exchange: the v2 endpoint's scope, or the
// v1 endpoint's resource, which is RFC 8693's too, or its audience.
func (q *request) readTarget(form parameters) error {
	scope, resource, audience := form.value("scope"), form.value("resource"), form.value("audience")
	named := 0
	for _, value := range [...]string{scope, resource, audience} {
		if value != "" {
			named++
		}
	}
	switch {
	case named > 1:
		return invalid("The request has %d of scope, resource and audience: want one of them, since a token is for one service", named)
	case scope != "":
		return q.readScope(scope)
	case named == 0:
		return missing("scope", "the identifier of the service that the token is for and /.default, such as https://vault.azure.net/.default")
	}
	q.resource = resource + audience
	return nil
}

// exchange says whose token the actor gets: that of the subject of the token
// it presents. That token must be good and have been made for the actor, which
// must be allowed to act for the subject; its own it may always exchange, where
// it got it. Were any of this missing, whoever once saw a token could climb with it.
func (s *Service) exchange(ctx context.Context, q *request, by caller) (caller, error) {
	c, kid, err := s.presented(q)
	if err != nil {
		return caller{}, err
	}
	q.exchange.subject, q.exchange.tokenID = c.Object, c.TokenID
	own := c.Object == by.object.ID
	if !own && !s.owns(by.object, c.Audience) { // first: whoever merely saw a token does not learn how its subject is
		return caller{}, badSubject("is for %s, which is no audience of app %s: a client exchanges what it was called with", shown(c.Audience), by.object.Client)
	}
	who, err := s.bearer(c, kid)
	if err != nil {
		return caller{}, badSubject("%v", err)
	}
	if c.Actor.depth() >= mostActors {
		return caller{}, badSubject("has been exchanged by %d clients, one after another, which is the most", mostActors)
	}
	if own {
		who, err = who.asProvedBy(by)
	} else {
		err = s.mayAct(ctx, q, by, who.object)
	}
	if err != nil {
		return caller{}, err
	}
	who.actor = &actor{Object: by.object.ID, Client: by.object.Client, Prior: c.Actor}
	who.until = c.Expires
	return who, nil
}

// asProvedBy is c, of a client's own token, when the client proves itself anew:
// in the same place, and as surely as the weaker of the two proofs.
func (c caller) asProvedBy(by caller) (caller, error) {
	if !c.hosting.Equal(by.hosting) || !c.host.Equal(by.host) {
		return caller{}, badSubject("was given to the client where it runs as %s on %s, and it asks from elsewhere: it must get one there",
			shown(string(c.hosting)), shown(string(c.host)))
	}
	c.acr, c.assurance = min(c.acr, by.acr), min(c.assurance, by.assurance)
	return c, nil
}

// presented reads the subject token of q: one that this service signed with a
// key that is still published, and that is good now.
func (s *Service) presented(q *request) (c claims, kid string, err error) {
	token, err := jwt.Parse(q.exchange.presented, jwt.RS256, jwt.ES256)
	if err != nil {
		return claims{}, "", badSubject("is no access token: %v", err)
	}
	key := s.keys.now().named(token.KeyID, q.now)
	if key == nil {
		return claims{}, "", badSubject("is signed with a key that is not one of this service, or no longer")
	}
	payload, err := token.Verify(key.public)
	if err != nil {
		return claims{}, "", badSubject("has not the signature of the key it names")
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return claims{}, "", badSubject("has claims that cannot be read")
	}
	switch now := q.now.Unix(); {
	case c.Issuer != s.issuer[1] && c.Issuer != s.issuer[2], c.Tenant != s.config.Tenant:
		return claims{}, "", badSubject("is of issuer %s, and this is %s", shown(c.Issuer), s.issuer[2])
	case c.Type != "app", c.Subject != c.Object:
		return claims{}, "", badSubject("is not that of a service principal")
	case now >= c.Expires:
		return claims{}, "", badSubject("ended at %s: its bearer must get a new one", time.Unix(c.Expires, 0).UTC().Format(time.RFC3339))
	case now < c.NotBefore:
		return claims{}, "", badSubject("is good from %s only", time.Unix(c.NotBefore, 0).UTC().Format(time.RFC3339))
	}
	return c, token.KeyID, nil
}

// bearer is whom the claims of a verified token of ours name, as the directory
// has it now, running where the token says. Its error says what the token is.
func (s *Service) bearer(c claims, kid string) (caller, error) {
	p, err := c.principal()
	if err != nil {
		return caller{}, fmt.Errorf("has claims that cannot be read: %w", err)
	}
	if why, revoked := s.config.Revoked(p, kid); revoked {
		return caller{}, fmt.Errorf("is revoked: %s", why)
	}
	object, ok := s.config.Directory.Object(p.Object)
	switch {
	case !ok || object.Client != p.Client:
		return caller{}, fmt.Errorf("is that of %s, which is no longer in the directory", p.Object)
	case !object.Enabled:
		return caller{}, fmt.Errorf("is that of %s, which is disabled", p.Object)
	}
	return caller{
		object: object, acr: c.AppACR + c.AzpACR, // a token has one of them
		hosting: p.Hosting, host: p.Host, assurance: p.Assurance,
	}, nil
}

// principal is whom c names, in the words of whoever verifies a token.
func (c *claims) principal() (p innate.Principal, err error) {
	p = innate.Principal{
		Tenant: c.Tenant, Object: c.Object, Client: c.AppID + c.Azp, // a token has one of them
		Token: c.TokenID, IssuedAt: time.UnixMilli(c.Moment),
	}
	if c.Hosting != "" {
		if p.Hosting, err = innate.ParseResourceID(c.Hosting); err != nil {
			return p, err
		}
	}
	if c.Host != "" {
		if p.Host, err = innate.ParseResourceID(c.Host); err != nil {
			return p, err
		}
	}
	if c.Assurance != "" {
		p.Assurance, err = innate.ParseAssurance(c.Assurance)
	}
	return p, err
}

// owns reports whether audience is one of the client's app registration. A
// managed identity has no audience.
func (s *Service) owns(client directory.Object, audience string) bool {
	if s.FirstParty(audience) {
		return false
	}
	r, ok := s.config.Directory.Audience(audience)
	return ok && r.Client == client.Client
}

// mayAct asks whether a client may act for the subject; its answer to one that
// may not is shown to it.
func (s *Service) mayAct(ctx context.Context, q *request, by caller, subject directory.Object) error {
	err := s.config.MayExchange(ctx, innate.Principal{
		Tenant: s.config.Tenant, Object: by.object.ID, Client: by.object.Client, Name: printable(by.object.Name),
		Hosting: by.hosting, Host: by.host, Assurance: by.assurance,
	}, subject, q.resource)
	if no := (*rest.Error)(nil); errors.As(err, &no) && no.Status == http.StatusForbidden {
		return refusal(http.StatusBadRequest, "invalid_grant", 65001, "%s", no.Message)
	}
	if err != nil {
		return fmt.Errorf("deciding on an exchange: %w", err)
	}
	return nil
}

// badSubject refuses a subject token (RFC 8693 §2.2.2) under the number that
// Entra has for the assertion of its on-behalf-of flow.
func badSubject(format string, args ...any) error {
	return refusal(http.StatusBadRequest, "invalid_request", 50013, "The subject token %s", fmt.Sprintf(format, args...))
}
