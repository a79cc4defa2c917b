package agent_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/agent"
	"innate/feed/client"
)

func app(identities ...client.Identity) client.Placement {
	return client.Placement{Resource: apiApp, Identities: identities}
}

func TestTenThousandCallersMakeOneUpstreamCall(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	release := make(chan struct{})
	give := p.issue(time.Hour)
	p.answer(func(w http.ResponseWriter, r *http.Request) { <-release; give(w, r) })

	var waiting sync.WaitGroup
	tokens := make([]innate.Token, 10_000)
	for i := range tokens {
		waiting.Go(func() {
			var err error
			if tokens[i], err = a.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly); err != nil {
				t.Error(err)
			}
		})
	}
	eventually(t, "the call arrives", func() bool { return p.calls.Load() > 0 })
	close(release)
	waiting.Wait()
	if n := p.calls.Load(); n != 1 {
		t.Errorf("%d upstream calls, want 1", n)
	}
	if n := p.certificates.Load(); n != 1 {
		t.Errorf("%d certificates, want 1", n)
	}
	for _, got := range tokens {
		if got != tokens[0] || got.Value == "" || got.Resource != vault {
			t.Fatalf("got %+v beside %+v", got, tokens[0])
		}
	}
}

func TestTheCallGoesOnWhenItsFirstCallerGivesUp(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	release := make(chan struct{})
	give := p.issue(time.Hour)
	p.answer(func(w http.ResponseWriter, r *http.Request) { <-release; give(w, r) })

	ctx, giveUp := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := a.Token(ctx, apiApp, innate.Selector{}, vault, innate.SecretOnly)
		first <- err
	}()
	eventually(t, "the call arrives", func() bool { return p.calls.Load() > 0 })
	giveUp()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one who gave up: got %v", err)
	}
	close(release)
	if _, err := a.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly); err != nil {
		t.Error(err)
	}
	if n := p.calls.Load(); n != 1 {
		t.Errorf("%d upstream calls, want 1", n)
	}
}

func TestAKeptTokenIsRefreshedAtHalfItsLifeAndServedUntilFiveMinutesBeforeItsEnd(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	var c clock
	a := p.start(func(cfg *agent.Config) { cfg.Now = c.now })
	get := func() (innate.Token, error) {
		return a.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly)
	}
	first, err := get()
	if err != nil {
		t.Fatal(err)
	}
	c.advance(15 * time.Minute)
	if _, err := get(); err != nil || p.calls.Load() != 1 {
		t.Errorf("before half its life: %d calls, %v", p.calls.Load(), err)
	}
	c.advance(25 * time.Minute)
	if second, err := get(); err != nil || second != first {
		t.Errorf("at half its life the caller does not wait: got %v %v, want the token at hand", second, err)
	}
	var second innate.Token
	eventually(t, "the next token is served", func() bool { second, err = get(); return err == nil && second != first })
	if n := p.calls.Load(); n != 2 {
		t.Errorf("%d calls, want 2", n)
	}

	p.server.CloseClientConnections()
	p.answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	c.advance(10 * time.Minute) // 50 of the second's 60
	if got, err := get(); err != nil || got != second {
		t.Errorf("the control plane is away: got %v %v, want the token that is kept", got, err)
	}
	c.advance(6 * time.Minute)
	_, err = get()
	var refused *innate.Refusal
	if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || refused.RetryAfter == 0 {
		t.Errorf("four minutes left: got %v, want 503 with a Retry-After", err)
	}
}

func TestARefusalOfTheTokenServiceIsPassedOn(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	p.answer(no(http.StatusBadRequest, "invalid_resource", 500011, "nobody answers to https://nowhere."))
	_, err := a.Token(t.Context(), apiApp, innate.Selector{}, "https://nowhere", innate.SecretOnly)
	var got *innate.Refusal
	if !errors.As(err, &got) {
		t.Fatalf("got %v, want a Refusal", err)
	}
	want := innate.Refusal{Status: 400, OAuth: "invalid_resource", Code: 500011, Text: "nobody answers to https://nowhere.", Trace: "t"}
	if *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
}

func TestACertificateThatTheTokenServiceHasForgottenIsReplacedOnce(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	give := p.issue(time.Hour)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if p.certificates.Load() < 2 {
			no(http.StatusUnauthorized, "invalid_client", 700027, "certificate not registered.")(w, r)
			return
		}
		give(w, r)
	})
	if _, err := a.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly); err != nil {
		t.Error(err)
	}
	p.answer(no(http.StatusUnauthorized, "invalid_client", 700027, "certificate not registered."))
	_, err := a.Token(t.Context(), apiApp, innate.Selector{}, "https://other", innate.SecretOnly)
	var refused *innate.Refusal
	if !errors.As(err, &refused) || refused.Code != 700027 {
		t.Errorf("refused for good: got %v", err)
	}
	if n := p.certificates.Load(); n != 3 {
		t.Errorf("%d certificates, want 3", n)
	}
}

// A change that the feed tells ends what was kept at once.
func TestKeptTokensEndWithWhatTheyWereFetchedFor(t *testing.T) {
	t.Parallel()
	shared := ident(2, false)
	for _, c := range []struct {
		name   string
		change func(*plane)
		after  error // of the next request
	}{
		{"the identity is detached", func(p *plane) { p.place(app(ident(1, true))) }, innate.ErrNoIdentity},
		{"the app is gone", func(p *plane) { p.tell(row(apiApp), nil) }, innate.ErrNoIdentity},
		{"the identity was disabled, and enabled again", func(p *plane) {
			p.tell("revoked/identity/"+string(shared.Object), client.Revocation{
				Kind: client.RevokedIdentity, ID: string(shared.Object), Before: time.Now(),
			})
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // some wait for what never comes
			p := newPlane(t)
			p.place(app(ident(1, true), shared))
			a := p.start(nil)
			get := func() error {
				_, err := a.Token(t.Context(), apiApp, innate.Selector{Client: shared.Client}, vault, innate.SecretOnly)
				return err
			}
			if err := get(); err != nil {
				t.Fatal(err)
			}
			c.change(p)
			p.place(client.Placement{Resource: webVM}) // told after it
			eventually(t, "the change arrives", func() bool {
				_, err := a.Lend(t.Context(), webVM)
				return err == nil
			})
			if err := get(); !errors.Is(err, c.after) {
				t.Errorf("got %v, want %v", err, c.after)
			}
			if n := p.calls.Load(); c.after == nil && n != 2 {
				t.Errorf("%d upstream calls, want 2: the first token is worthless", n)
			}
		})
	}
}

func TestATokenRevokedWhileItWasFetchedReachesNobody(t *testing.T) {
	id := string(ident(1, true).Object)
	for key, row := range map[string]client.Revocation{
		"revoked/identity/" + id: {Kind: client.RevokedIdentity, ID: id, Before: time.Now()},
		"revoked/key/kid":        {Kind: client.RevokedKey, ID: "kid"},
	} {
		t.Run(string(row.Kind), func(t *testing.T) { revokeWhileFetching(t, key, row) })
	}
}

func revokeWhileFetching(t *testing.T, key string, row client.Revocation) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	release := make(chan struct{})
	give := p.issue(time.Hour)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if p.calls.Load() == 1 {
			give(w, r) // signed before the revocation, heard after it
			w.(http.Flusher).Flush()
			<-release
			return
		}
		give(w, r)
	})
	got := make(chan innate.Token, 1)
	go func() {
		token, err := a.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly)
		if err != nil {
			t.Error(err)
		}
		got <- token
	}()
	eventually(t, "the call arrives", func() bool { return p.calls.Load() == 1 })
	p.tell(key, row)
	p.place(client.Placement{Resource: webVM}) // told after it
	if _, err := a.Lend(t.Context(), webVM); err != nil {
		t.Fatal(err)
	}
	close(release)
	if token := <-got; !strings.HasSuffix(token.Value, "|2") {
		t.Errorf("got %q, want the token of the second call", token.Value)
	}
}

func TestASelectorNamesOneOfTheWorkloadsOwnIdentities(t *testing.T) {
	t.Parallel()
	system, one, two := ident(1, true), ident(2, false), ident(3, false)
	system.Resource = apiApp
	all := []client.Identity{system, one, two}
	for _, c := range []struct {
		name  string
		held  []client.Identity
		which innate.Selector
		want  innate.ClientID
		err   error
	}{
		{"none said: the system-assigned", all, innate.Selector{}, system.Client, nil},
		{"none said, one shared: that one", []client.Identity{one}, innate.Selector{}, one.Client, nil},
		{"none said, several shared", []client.Identity{one, two}, innate.Selector{}, "", innate.ErrManyIdentities},
		{"none said, none there", nil, innate.Selector{}, "", innate.ErrNoIdentity},
		{"system, and no other", []client.Identity{one}, innate.Selector{System: true}, "", innate.ErrNoIdentity},
		{"system", all, innate.Selector{System: true}, system.Client, nil},
		{"by client id", all, innate.Selector{Client: two.Client}, two.Client, nil},
		{"by object id", all, innate.Selector{Object: two.Object}, two.Client, nil},
		{"by resource id, whatever its case", all, innate.Selector{Resource: innate.ResourceID(strings.ToUpper(string(two.Resource)))}, two.Client, nil},
		{"the system-assigned by its client id", all, innate.Selector{Client: system.Client}, system.Client, nil},
		{"somebody else's", all, innate.Selector{Client: "22222222-0000-0000-0000-000000000000"}, "", innate.ErrNoIdentity},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			p.place(app(c.held...))
			a := p.start(nil)
			got, err := a.Token(t.Context(), apiApp, c.which, vault, innate.SecretOnly)
			if got.Client != c.want || !errors.Is(err, c.err) {
				t.Errorf("got %q %v, want %q %v", got.Client, err, c.want, c.err)
			}
		})
	}
}

func TestAWorkloadThatIsOnItsWayIsWaitedFor(t *testing.T) {
	p := newPlane(t)
	a := p.start(nil)
	got := make(chan error, 1)
	go func() {
		_, err := a.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly)
		got <- err
	}()
	p.place(app())
	p.place(app(ident(1, true)))
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func TestAProofBelowTheMinimumGetsNoToken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		dev          bool
		demanded     innate.Assurance
		proof        innate.Assurance
		mustBeServed bool
	}{
		{"development", true, innate.Unproved, innate.SecretOnly, true},
		{"production", false, innate.Unproved, innate.SecretOnly, false},
		{"production, by uid", false, innate.Unproved, innate.UID, false},
		{"production, by cgroup", false, innate.Unproved, innate.CgroupUID, true},
		{"demanded by the resource", true, innate.NetNS, innate.CgroupUID, false},
		{"lowered by the resource", false, innate.UID, innate.UID, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			pl := app(ident(1, true))
			pl.MinimumAssurance = c.demanded
			p.place(pl)
			a := p.start(func(cfg *agent.Config) { cfg.Dev = c.dev })
			_, err := a.Token(t.Context(), apiApp, innate.Selector{}, vault, c.proof)
			if c.mustBeServed {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var refused *innate.Refusal
			if !errors.As(err, &refused) || refused.Status != http.StatusForbidden || !strings.Contains(refused.Text, c.proof.String()) {
				t.Errorf("got %v, want a 403 that names %s", err, c.proof)
			}
			if n := p.calls.Load(); n != 0 {
				t.Errorf("%d upstream calls", n)
			}
		})
	}
}
