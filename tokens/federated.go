package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"innate"
	"innate/directory"
	"innate/discovery"
	"innate/jwt"
)

// byFederation proves an application or a user-assigned identity by another
// issuer's token, which one of its federated credentials must admit
// (managed-identity-endpoints §4.5). Before its signature nothing in it is
// believed: its issuer only decides whether there is anything to check.
func (s *Service) byFederation(ctx context.Context, q *request, a *assertion) (caller, error) {
	q.credential = "federated assertion"
	q.federated = map[string]string{"issuer": printable(a.issuer), "subject": printable(a.subject)}
	object, err := s.federates(q)
	if err != nil {
		return caller{}, err
	}
	name, err := s.admit(ctx, object, a, q.now)
	if err != nil {
		if !errors.As(err, new(settled)) {
			s.noteClosest(q, object.ID, a)
		}
		return caller{}, err
	}
	q.key = name
	return caller{object: object, acr: acrKey}, nil
}

// federates finds the principal that q says it is, if it may have federated credentials.
func (s *Service) federates(q *request) (directory.Object, error) {
	object, ok := s.config.Directory.ByClient(q.client)
	switch {
	case !ok:
		return object, unknownClient(q.client, s.config.Tenant)
	case object.Kind == directory.ManagedIdentity && !object.Shared:
		return object, unproved(7000218,
			"%s is a system-assigned managed identity, which lives with one resource and is proved by the host that runs it. Only app registrations and user-assigned identities take a federated assertion", q.client)
	}
	return object, nil
}

// admit returns the name of the credential of principal that admits a. The
// refusals show nothing but what a presents, and those about its claims come
// after its signature: a stranger does not find out what is registered.
func (s *Service) admit(ctx context.Context, principal directory.Object, a *assertion, now time.Time) (name string, err error) {
	if !s.config.Directory.Federates(principal.ID, a.issuer) {
		return "", unproved(700211, "No federated credential of %s has the issuer %s of the client assertion. Issuers are compared exactly, a slash at the end too. With a certificate of its own, iss and sub are the client id",
			principal.Client, shown(a.issuer))
	}
	if err := s.signedByIssuer(ctx, a); err != nil {
		return "", err
	}
	if err := a.checkTimes(now); err != nil {
		return "", err
	}
	if err := s.alive(a); err != nil {
		return "", err
	}
	subject, audience := false, false // some credential is for it; and for both
	for p := range s.candidates(principal.ID, a) {
		clauses := a.heldTo(p)
		if !slices.ContainsFunc(clauses, Clause.fails) {
			return p.Name, nil
		}
		if slices.ContainsFunc(clauses, func(c Clause) bool { return c.Claim == "sub" && !c.Holds }) {
			continue
		}
		subject = true
		audience = audience || !slices.ContainsFunc(clauses, func(c Clause) bool { return c.Operator == In && !c.Holds })
	}
	switch {
	case !subject:
		return "", unproved(700213, "No federated credential of %s for the issuer %s admits the subject %s of the client assertion. Subjects are compared exactly, in case and in every character",
			principal.Client, shown(a.issuer), shown(a.subject))
	case !audience:
		return "", unproved(700212, "No federated credential of %s for the issuer and subject of the client assertion has its audience %s. Audiences are compared exactly; %s is the usual one",
			principal.Client, shown(strings.Join(a.audience, ", ")), directory.FederatedAudience)
	}
	return "", unproved(70021, "No federated credential of %s admits the client assertion: its issuer, subject and audience would do, another of its claims does not", principal.Client)
}

// candidates are the credentials of principal that a might satisfy: the one for
// exactly its issuer and subject, found in one step, then those with an
// expression for its issuer.
func (s *Service) candidates(principal innate.ObjectID, a *assertion) iter.Seq[directory.Pattern] {
	d := s.config.Directory
	return func(yield func(directory.Pattern) bool) {
		if c, ok := d.FederatedExact(principal, a.issuer, a.subject); ok {
			if p, ok := c.Pattern(); ok && !yield(p) {
				return
			}
		}
		for _, p := range d.FederatedPatterns(principal) {
			if p.Issuer == a.issuer && !yield(p) {
				return
			}
		}
	}
}

// heldTo holds a to what p wants, clause by clause. Comparison is of whole
// strings, byte for byte: nothing is trimmed, folded or tidied.
func (a *assertion) heldTo(p directory.Pattern) []Clause {
	clauses := make([]Clause, 0, 2+len(p.Expression))
	clauses = append(clauses, Clause{"iss", p.Issuer, a.issuer, Equals, a.issuer == p.Issuer})
	for _, want := range p.Expression {
		operator := Equals
		if want.Glob {
			operator = Matches
		}
		raw := a.claims[want.Claim]
		clauses = append(clauses, Clause{want.Claim, want.Want, plain(raw), operator, want.Holds(raw)})
	}
	return append(clauses, Clause{"aud", p.Audience, strings.Join(a.audience, ", "), In, slices.Contains(a.audience, p.Audience)})
}

// signedByIssuer checks the signature of a with a key that its issuer
// publishes. The header names the key; a key or certificate, or the place of
// one, in the header is not looked at: anybody can put one there.
func (s *Service) signedByIssuer(ctx context.Context, a *assertion) error {
	if a.signed {
		return nil
	}
	key, err := s.issuerKey(ctx, a)
	if err != nil {
		return err
	}
	if _, err := a.token.Verify(key.Public); err != nil {
		return settled{unproved(700027, "The client assertion failed signature validation with the key %s of the issuer %s: %v",
			shown(a.token.KeyID), shown(a.issuer), err)}
	}
	a.signed = true
	return nil
}

// ours reports whether a is one of our own tokens.
func (s *Service) ours(a *assertion) bool { return a.issuer == s.issuer[1] || a.issuer == s.issuer[2] }

// alive checks that whoever has got a token of ours, which it now presents as an
// assertion, would get one today.
func (s *Service) alive(a *assertion) error {
	if !s.ours(a) {
		return nil
	}
	var c claims
	if err := json.Unmarshal(a.token.Unverified(), &c); err != nil {
		return unproved(700027, "The client assertion is a token of this platform whose claims cannot be read")
	}
	if c.Actor != nil { // what proves the bearer to a service that it calls does not make another client of it
		return unproved(700027, "The client assertion is a token of this platform that was exchanged: its bearer is not its subject, whose own token is wanted")
	}
	if _, err := s.bearer(c, a.token.KeyID); err != nil {
		return unproved(700027, "The client assertion is a token of this platform that %v", err)
	}
	return nil
}

// issuerKey is the key that the header of a names, among those of its issuer.
func (s *Service) issuerKey(ctx context.Context, a *assertion) (jwt.Key, error) {
	kid, alg := a.token.KeyID, a.token.Alg
	absent := unproved(700027, "The issuer %s of the client assertion publishes no key %s for %s", shown(a.issuer), shown(kid), alg)
	if s.ours(a) { // the keys are at hand
		a.keys = "the keys of this platform"
		if k := s.keys.now().named(kid, s.config.Now()); k != nil && k.row.Alg == alg {
			return jwt.Key{ID: k.id, Alg: alg, Public: k.public}, nil
		}
		return jwt.Key{}, absent
	}
	key, err := s.issuers.Get(ctx, a.issuer, kid, alg)
	if err == nil {
		a.keys = "the keys of " + a.issuer
		return key, nil
	}
	a.keys = err.Error()
	if no := (*discovery.Error)(nil); errors.As(err, &no) && !no.Temporary {
		return jwt.Key{}, settled{absent}
	}
	return jwt.Key{}, settled{&innate.Refusal{
		Status: http.StatusServiceUnavailable, OAuth: "temporarily_unavailable", Code: 90033, RetryAfter: keysAgain, Cause: err,
		Text: fmt.Sprintf("The keys of the issuer %s of the client assertion cannot be had at this moment: try again", shown(a.issuer)),
	}}
}

// keysAgain is when to try again after an issuer's keys could not be had: they
// are not asked for more often (see discovery).
const keysAgain = 5 * time.Second
