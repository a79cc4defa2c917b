package bearer

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"innate"
	"innate/rest"
)

// Require passes on requests whose bearer token is good, with the principal in
// the context, and answers 401 with the challenge to the rest (503 + Retry-After
// when keys or revocations cannot be had), in the error envelope of rest. A nil
// challenge is RFC 6750's own with the authority in it.
// A principal that the context already has (the administrators' socket) is passed on.
func (v *Verifier) Require(next http.Handler, challenge Challenge) http.Handler {
	if challenge == nil {
		challenge = v.challenge
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := From(r.Context()); ok {
			next.ServeHTTP(w, r)
			return
		}
		token, err := authorization(r)
		if err != nil {
			rest.WriteError(w, r, err)
			return
		}
		if token == "" {
			w.Header().Set("WWW-Authenticate", challenge(r, nil))
			rest.WriteError(w, r, rest.Errorf(http.StatusUnauthorized, v.config.Code,
				"this request has no access token: send one as Authorization: Bearer"))
			return
		}
		claims, err := v.Verify(r.Context(), token)
		if err != nil {
			v.refuse(w, r, challenge, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(With(r.Context(), claims.Principal)))
	})
}

// authorization returns the bearer token of a request; empty when it has none.
func authorization(r *http.Request) (string, error) {
	values := r.Header.Values("Authorization")
	if len(values) > 1 {
		return "", rest.Errorf(http.StatusBadRequest, "InvalidAuthenticationInfo",
			"this request has %d Authorization headers: want one", len(values))
	}
	if len(values) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return strings.TrimSpace(token), nil
}

func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request, challenge Challenge, err error) {
	var e *Error
	if !errors.As(err, &e) {
		rest.WriteError(w, r, err)
		return
	}
	if e.Code == temporarilyUnavailable {
		w.Header().Set("Retry-After", "2")
		rest.WriteError(w, r, &rest.Error{
			Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable", Message: e.Text, Cause: e.Cause,
		})
		return
	}
	w.Header().Set("WWW-Authenticate", challenge(r, e))
	rest.WriteError(w, r, &rest.Error{
		Status: http.StatusUnauthorized, Code: v.config.Code, Message: e.Text, Cause: e.Cause,
	})
}

type principalKey struct{}

// With returns a context that carries who is asking.
func With(ctx context.Context, who innate.Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, who)
}

// From returns who is asking; ok is false when nobody was proved.
func From(ctx context.Context) (who innate.Principal, ok bool) {
	who, _ = ctx.Value(principalKey{}).(innate.Principal)
	return who, who.Object != ""
}
