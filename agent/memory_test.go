package agent_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"innate"
	"innate/agent"
	"innate/feed/client"
)

// token gets the app's token for the vault.
func (r running) token(t *testing.T) (innate.Token, error) {
	t.Helper()
	return r.Token(t.Context(), apiApp, innate.Selector{}, vault, innate.SecretOnly)
}

// first gets a token and stops the agent, so that another can go on from what it left.
func (r running) first(t *testing.T) innate.Token {
	t.Helper()
	first, err := r.token(t)
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	return first
}

func (r running) memory() string { return filepath.Join(r.dir, "run", "memory.sealed") }

func TestTokensOutliveARestartAlsoWhileTheControlPlaneIsAway(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	first := a.first(t)
	if st, err := os.Stat(a.memory()); err != nil || st.Mode() != 0o600 {
		t.Fatalf("what is kept: %v %v, want a file for its owner alone", st, err)
	}
	p.leave()
	for range 2 {
		a = p.startIn(a.dir, nil)
		if got, err := a.token(t); err != nil || got.Value != first.Value || !got.Expires.Equal(first.Expires) {
			t.Errorf("after a restart: got %v %v, want the token from before", got, err)
		}
		a.stop()
	}
	if n := p.calls.Load(); n != 1 {
		t.Errorf("%d upstream calls, want 1", n)
	}
}

// Each change happens while no agent runs.
func TestARestartBringsNothingBackThatIsDoubtful(t *testing.T) {
	t.Parallel()
	id := ident(1, true)
	for _, c := range []struct {
		name   string
		change func(*testing.T, *plane, running)
		ahead  time.Duration // of the clock, after the restart
		want   error         // nil: another token than the first
	}{
		{"the app is gone", func(_ *testing.T, p *plane, _ running) { p.tell(row(apiApp), nil) }, 0, innate.ErrNoIdentity},
		{"the identity is detached", func(_ *testing.T, p *plane, _ running) { p.place(app()) }, 0, innate.ErrNoIdentity},
		{"the identity was revoked", func(_ *testing.T, p *plane, _ running) {
			p.tell("revoked/identity/"+string(id.Object), client.Revocation{Kind: client.RevokedIdentity, ID: string(id.Object), Before: time.Now()})
		}, 0, nil},
		{"the signing key was revoked", func(_ *testing.T, p *plane, _ running) {
			p.tell("revoked/key/kid", client.Revocation{Kind: client.RevokedKey, ID: "kid"})
		}, 0, nil},
		{"a byte is wrong", func(t *testing.T, _ *plane, a running) {
			b, err := os.ReadFile(a.memory())
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(a.memory(), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 0, nil},
		{"the file is cut", func(t *testing.T, _ *plane, a running) {
			if err := os.Truncate(a.memory(), 5); err != nil {
				t.Fatal(err)
			}
		}, 0, nil},
		{"it is another host's", func(t *testing.T, p *plane, a running) {
			if err := agent.Join(t.Context(), filepath.Join(a.dir, "state"), p.joinString(p.pin())); err != nil {
				t.Fatal(err)
			}
		}, 0, nil},
		{"the clock went back", func(*testing.T, *plane, running) {}, -10 * time.Minute, nil},
		{"less than five minutes are left", func(*testing.T, *plane, running) {}, 56 * time.Minute, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			p.place(app(id))
			a := p.start(nil)
			first := a.first(t)
			p.answer(p.issue(2 * time.Hour)) // also for a clock that is ahead
			c.change(t, p, a)
			clock := new(clock)
			clock.advance(c.ahead)
			a = p.startIn(a.dir, func(cfg *agent.Config) { cfg.Now = clock.now })
			got, err := a.token(t)
			if !errors.Is(err, c.want) || got.Value == first.Value {
				t.Errorf("got %q %v, want %v and not the token from before", got.Value, err, c.want)
			}
		})
	}
}

func TestWhatIsThrownAwayIsNotInTheFileEither(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	a := p.start(nil)
	first := a.first(t)
	a = p.startIn(a.dir, nil)
	if got, err := a.token(t); err != nil || got.Value != first.Value {
		t.Fatalf("got %v %v, want the token from before", got, err)
	}
	before, err := os.ReadFile(a.memory())
	if err != nil {
		t.Fatal(err)
	}
	p.place(app()) // a kill -9 from here on must not bring it back
	eventually(t, "the file of before is gone", func() bool {
		now, err := os.ReadFile(a.memory())
		return errors.Is(err, os.ErrNotExist) || err == nil && string(now) != string(before)
	})
	a.stop()
	p.leave()
	a = p.startIn(a.dir, nil)
	if got, err := a.token(t); err == nil {
		t.Errorf("got %v for an identity that was taken away", got)
	}
}

func TestATokenThatAResourceRefusedIsNotHandedOutAgain(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	p.place(client.Placement{Resource: webVM, Identities: []client.Identity{ident(1, true)}})
	a := p.start(nil)
	first, err := a.token(t)
	if err != nil {
		t.Fatal(err)
	}
	hash := func(s string) string { return fmt.Sprintf("%X", sha256.Sum256([]byte(s))) }
	for _, c := range []struct {
		name     string
		by       innate.ResourceID
		presents string
		served   bool // again
	}{
		{"some other token", apiApp, hash("x"), true},
		{"another workload's word", webVM, hash(first.Value), true},
		{"no hash", apiApp, first.Value, true},
		{"half of it", apiApp, hash(first.Value)[:32], true},
		{"more than it", apiApp, hash(first.Value) + "00", true},
		{"the app's own word", apiApp, hash(first.Value), false},
	} {
		list, err := a.Lend(t.Context(), c.by)
		if err != nil {
			t.Fatal(err)
		}
		env := variables(list)
		if status, err := askWith(t, env, env["IDENTITY_HEADER"], "&xms_cc=cp1&token_sha256_to_refresh="+url.QueryEscape(c.presents)); status != http.StatusOK {
			t.Fatalf("%s: %d %v", c.name, status, err)
		}
		if got, err := a.token(t); err != nil || (got.Value == first.Value) != c.served {
			t.Errorf("%s: got %q %v, want the first token again: %v", c.name, got.Value, err, c.served)
		}
	}
}

func TestATokenInUseIsRefreshedThoughNobodyAsksAtThatMoment(t *testing.T) {
	p := newPlane(t)
	p.place(app(ident(1, true)))
	var c clock
	a := p.start(func(cfg *agent.Config) { cfg.Now = c.now })
	for range 2 { // the second time it was asked for since it came
		if _, err := a.token(t); err != nil {
			t.Fatal(err)
		}
	}
	c.advance(40 * time.Minute)
	a.Tick()
	eventually(t, "the next is fetched", func() bool { return p.calls.Load() == 2 })
	c.advance(40 * time.Minute)
	a.Tick()
	p.answer(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := a.token(t); err == nil {
		t.Error("nobody had asked for the second token, and a third was fetched")
	}
}

// The clock of a laptop that slept, or that somebody set.
func TestAClockThatJumpsDoesNoLastingHarm(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{"a day's sleep": 24 * time.Hour, "set back": -3 * time.Hour, "set back a little": -time.Minute} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			p.place(app(ident(1, true)))
			var c clock
			wall := func() time.Time { return c.now().Round(0) }
			p.answer(func(w http.ResponseWriter, r *http.Request) { p.issueAt(wall(), time.Hour)(w, r) })
			a := p.start(func(cfg *agent.Config) { cfg.Now = wall })
			first, err := a.token(t)
			if err != nil {
				t.Fatal(err)
			}
			c.advance(jump)
			second, err := a.token(t)
			if err != nil || second.Value == first.Value {
				t.Errorf("got %q %v, want a new token", second.Value, err)
			}
			if left := second.Expires.Sub(wall()); left < 59*time.Minute || left > time.Hour {
				t.Errorf("it has %v left, want an hour", left)
			}
			if third, err := a.token(t); err != nil || third.Value != second.Value {
				t.Errorf("got %q %v, want the second again", third.Value, err)
			}
		})
	}
}
