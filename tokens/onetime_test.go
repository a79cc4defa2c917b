package tokens_test

import (
	"encoding/base64"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/directory"
	"innate/jwt"
	"innate/store"
	"innate/tokens"
)

// oneTime is an application that takes each of its assertions once; sign makes one with that jti.
func oneTime(w *world) (client innate.ClientID, object directory.Object, sign func(jti any) string) {
	w.t.Helper()
	r, object := w.register(directory.Registration{OneTime: true})
	key := newKey(w.t)
	der := w.certify(r.Client, key, noon.AddDate(-1, 0, 0), noon.AddDate(1, 0, 0))
	header := map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum(der))}
	return r.Client, object, func(jti any) string {
		return assertion{key, jwt.ES256, header, changed(w.valid(r.Client), map[string]any{"jti": jti})}.compact(w.t)
	}
}

func (w *world) rows(prefix string) (n int) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(r store.Reader) error {
		for range r.Scan(prefix, "") {
			n++
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

func TestAOneTimeAssertionIsTakenOnce(t *testing.T) {
	w := start(t)
	client, _, sign := oneTime(w)
	first := sign("1")
	w.claims(w.assert(client, first))
	a := w.assert(client, first)
	a.refused(401, "invalid_client", "700027")
	if !strings.Contains(a.body, "came before") {
		t.Errorf("it does not say why: %s", a.body)
	}
	w.assert(client, sign("1")).refused(401, "invalid_client", "700027") // a new signature, the same jti
	w.claims(w.assert(client, sign("2")))
	w.assert(client, sign(nil)).refused(401, "invalid_client", "700027")
	w.assert(client, sign("")).refused(401, "invalid_client", "700027")
	w.assert(client, sign(7)).refused(401, "invalid_client", "700027")

	other, _, signOther := oneTime(w) // whose jti are its own
	w.claims(w.assert(other, signOther("1")))

	// What was asked for is not there, and the answer to that is not that it came before.
	w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_assertion="+sign("3"),
		"client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "scope=api://nobody/.default").
		refused(400, "invalid_resource", "500011")

	// Before its end the jti is taken, five minutes of forgiven clock included; then it is free.
	w.now = noon.Add(15 * time.Minute)
	w.assert(client, sign("1")).refused(401, "invalid_client", "700027")
	w.now = w.now.Add(time.Second)
	w.claims(w.assert(client, sign("1")))
}

func TestOfManyRequestsWithOneAssertionOneSucceeds(t *testing.T) {
	w := start(t)
	client, _, sign := oneTime(w)
	second, err := tokens.New(t.Context(), w.config) // another server on the store
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		compact := sign(fmt.Sprint(i))
		var good atomic.Int32
		var all sync.WaitGroup
		for n := range 16 {
			all.Go(func() {
				h := w.tokens.Handler()
				if n%2 == 1 {
					h = second.Handler()
				}
				rec := httptest.NewRecorder()
				h.ServeHTTP(rec, request(tokenPath, assertionForm(client, compact)...))
				if rec.Code == 200 {
					good.Add(1)
				}
			})
		}
		if all.Wait(); good.Load() != 1 {
			t.Errorf("%d tokens for one assertion", good.Load())
		}
	}
}

func TestWhatWasSeenIsForgottenWhenItCannotComeAgain(t *testing.T) {
	w := start(t)
	client, object, sign := oneTime(w)
	const seen = "tokens/seen/"
	for i := range 3 {
		w.claims(w.assert(client, sign(fmt.Sprint(i))))
	}
	w.now = noon.Add(10 * time.Minute)
	w.claims(w.assert(client, sign("later")))
	if err := w.tokens.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.rows(seen); n != 4 {
		t.Errorf("%d are kept, want the 4 that could come again", n)
	}
	w.now = noon.Add(16 * time.Minute)
	if err := w.tokens.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.rows(seen); n != 1 {
		t.Errorf("%d are kept, want the last", n)
	}
	w.update(func(tx store.Tx) error { return w.directory.DeleteObject(tx, object.ID) })
	if n := w.rows(seen); n != 0 {
		t.Errorf("%d are kept of an application that is gone", n)
	}
}

func TestOtherwiseAProofWritesNothingToTheStore(t *testing.T) {
	s := startStranger(t)
	s.claims(s.present(s.token(nil)))
	var before, after store.Revision
	at := func(to *store.Revision) func(store.Reader) error {
		return func(r store.Reader) error { *to = r.Revision(); return nil }
	}
	if err := s.db.View(t.Context(), at(&before)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.claims(s.present(s.token(nil)))
	}
	if err := s.db.View(t.Context(), at(&after)); err != nil || before != after {
		t.Errorf("the store went from revision %d to %d (%v)", before, after, err)
	}
}
