package tokens

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"innate"
	"innate/audit"
	"innate/directory"
	"innate/rest"
)

// endpoint answers POST …/token. version is that of the endpoint and decides
// the shape of the answer; mutual says that the credential is the connection's
// certificate.
func (s *Service) endpoint(version int, mutual bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := s.begin(r, version)
		answer, err := s.serve(r, q, mutual)
		if err != nil {
			s.refuse(w, r, q, s.throttle.failed(q, err))
			return
		}
		q.writeHeader(w)
		rest.WriteBody(w, http.StatusOK, answer.body)
		answer.free()
	})
}

// serve reads one request and issues what it asks for.
func (s *Service) serve(r *http.Request, q *request, mutual bool) (*answer, error) {
	if err := s.recordThrottling(r.Context(), q.now); err != nil {
		return nil, err
	}
	malformed := s.parse(r, q, mutual)
	if err := s.throttle.admit(q); err != nil {
		return nil, err
	}
	if malformed != nil {
		return nil, malformed
	}
	who, to, err := s.decide(r.Context(), q)
	if err != nil {
		return nil, err
	}
	if err := s.throttle.proved(q); err != nil {
		return nil, err
	}
	return s.issue(r.Context(), q, who, to)
}

// A caller is a client that has proved who it is.
type caller struct {
	object directory.Object
	acr    string // appidacr: "2" proved by a key, "1" by a secret

	// Where it runs; empty for whoever has no host.
	hosting, host innate.ResourceID
	assurance     innate.Assurance

	// Of an exchange alone, whose caller is the subject of the token that was presented.
	actor    *actor   // who asks in its place
	until    int64    // when that token ends, and with it what is issued for it: epoch seconds
	standing standing // to the audience it asks for
}

// decide says who asks and for what.
func (s *Service) decide(ctx context.Context, q *request) (who caller, to audience, err error) {
	err = s.twice(ctx, func() error {
		if who, err = s.known(ctx, q); err != nil {
			return err
		}
		if q.exchange != nil {
			if who, err = s.exchange(ctx, q, who); err != nil {
				return err
			}
		}
		if to, err = s.audience(q.resource); err != nil {
			return err
		}
		who.standing, err = s.standing(who.object, to)
		return err
	})
	return who, to, err
}

// twice decides by what this process knows. A refusal may only mean that it has
// not heard of what was just created: before one stands that is not settled, it
// catches up and decides again.
func (s *Service) twice(ctx context.Context, look func() error) error {
	err := look()
	if err == nil || errors.As(err, new(settled)) {
		return err
	}
	if err := s.config.Directory.Sync(ctx); err != nil {
		return fmt.Errorf("catching up with the store: %w", err)
	}
	return look()
}

// A settled refusal is one that nothing which the store may have can change.
type settled struct{ error }

func (s settled) Unwrap() error { return s.error }

// known is the client that has proved who it is, and may ask.
func (s *Service) known(ctx context.Context, q *request) (caller, error) {
	who, err := s.prove(ctx, q)
	if q.proved = err == nil; err != nil {
		return caller{}, err
	}
	if !who.object.Enabled {
		return caller{}, refusal(http.StatusBadRequest, "unauthorized_client", 7000112,
			"Application %s is disabled. Whoever administers it may enable it again", q.client)
	}
	return who, nil
}

func (s *Service) prove(ctx context.Context, q *request) (caller, error) {
	switch {
	case q.certificate != nil:
		return s.byCertificate(q)
	case q.assertion != "":
		return s.byAssertion(ctx, q)
	default:
		return s.bySecret(q)
	}
}

// issue signs a token and returns the answer with it, once the audit log has the
// record. Signing and writing go on side by side: they are the two long parts.
//
// The token's iat is when the request began, before anything was decided. Were
// it read here, an identity disabled since the decision would get a token that
// is newer than its revocation.
func (s *Service) issue(ctx context.Context, q *request, who caller, to audience) (*answer, error) {
	key := s.keys.now().signing(to.alg, q.now)
	if key == nil {
		return nil, fmt.Errorf("no key signs by %s", to.alg)
	}
	if key.fault != nil {
		return nil, fmt.Errorf("key %s: %w", key.id, key.fault)
	}
	claims := s.claims(q, who, to)
	recorded := s.config.Audit.Append(q.event(audit.Event{
		Allowed:   true,
		Principal: who.object.ID, Name: who.object.Name, Client: who.object.Client,
		Hosting: string(who.hosting), Host: string(who.host), Assurance: who.assurance,
		Token: claims.TokenID, Why: q.why(),
		Detail: map[string]string{"kid": key.id},
	}))
	answer, err := q.answer(&claims, key.signer[to.version])
	if err != nil {
		return nil, err
	}
	if err := recorded(ctx); err != nil {
		return nil, fmt.Errorf("recording the token: %w", err)
	}
	return answer, nil
}

// why is the reason for which a token is issued.
func (q *request) why() string {
	why := "proved by its " + q.credential
	if q.exchange != nil {
		why = "exchanged by " + string(q.client) + ", " + why
	}
	return why
}

// newTokenID is the uti: 128 random bits, 22 characters of base64url.
func newTokenID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b[:])
}
