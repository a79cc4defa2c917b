package tokens_test

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/jwt"
	"innate/store"
	"innate/tokens"
)

// inTerm returns a service on w's store whose next RSA key waits to sign; its keys are quick to make.
func (w *world) inTerm(change func(*tokens.Config)) *tokens.Service {
	w.t.Helper()
	c := w.config
	c.NewKey = oneKey
	if change != nil {
		change(&c)
	}
	w.now = noon.Add(29*24*time.Hour + time.Hour)
	s, err := tokens.New(w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	if next := inState(keys(w.t, s), tokens.KeyNext, jwt.RS256); len(next) != 1 {
		w.t.Fatalf("next is %q, want one", next)
	}
	return s
}

func TestAKeyThatWaitedWhenTheKeysWereRolledNeverSigns(t *testing.T) {
	w := start(t)
	s := w.inTerm(nil)
	before := published(t, s)
	if err := s.Roll(t.Context(), innate.Principal{Object: "admin"}, false); err != nil {
		t.Fatal(err)
	}
	signs := inState(keys(t, s), tokens.KeySigning, jwt.RS256)
	if len(signs) != 1 || slices.Contains(before, signs[0]) {
		t.Fatalf("%q sign, want one new key: there were %q", signs, before)
	}
	w.now = w.now.Add(26 * time.Hour) // the one that waited would sign by now
	if now := inState(keys(t, s), tokens.KeySigning, jwt.RS256); !slices.Equal(now, signs) {
		t.Errorf("a day later %q sign, want still %q", now, signs)
	}
}

func TestACompromisedRollTellsOfEveryKeyOnceAndErasesIt(t *testing.T) {
	w := start(t)
	var told []string
	s := w.inTerm(func(c *tokens.Config) {
		c.OnRevoke = func(tx store.Tx, kid string) error {
			told = append(told, kid)
			return nil
		}
	})
	before := published(t, s)
	for range 2 { // a second roll has nothing of before to withdraw
		if err := s.Roll(t.Context(), innate.Principal{Object: "admin"}, true); err != nil {
			t.Fatal(err)
		}
	}
	list := keys(t, s)
	withdrawn := append(inState(list, tokens.KeyWithdrawn, jwt.RS256), inState(list, tokens.KeyWithdrawn, jwt.ES256)...)
	slices.Sort(withdrawn)
	slices.Sort(told)
	if diff := cmp.Diff(withdrawn, told); diff != "" || len(told) != len(before)+2 {
		t.Errorf("told of %d keys, want %d (-withdrawn +told):\n%s", len(told), len(before)+2, diff)
	}
	sealed := 0
	w.update(func(tx store.Tx) error {
		rows := store.Table[struct{ Key []byte }]("tokens/keys/")
		for _, row := range rows.All(tx, "", "") {
			if len(row.Key) > 0 {
				sealed++
			}
		}
		return nil
	})
	if sealed != 2 {
		t.Errorf("%d private keys are kept, want those of the two keys that sign", sealed)
	}
}

// What cannot be told is not done: a key that is withdrawn here alone would still open doors.
func TestNothingIsWithdrawnWhenNobodyCanBeTold(t *testing.T) {
	w := start(t)
	broken := errors.New("no room")
	s := w.inTerm(func(c *tokens.Config) { c.OnRevoke = func(store.Tx, string) error { return broken } })
	before := keys(t, s)
	if err := s.Roll(t.Context(), innate.Principal{Object: "admin"}, true); !errors.Is(err, broken) {
		t.Fatalf("got %v, want %v", err, broken)
	}
	if diff := cmp.Diff(before, keys(t, s)); diff != "" {
		t.Errorf("the keys have changed:\n%s", diff)
	}
}

// The clock of the server that withdrew the keys is ahead of ours: what it made
// signs here at once too, or there would be no token for as long.
func TestARollOnAServerWhoseClockIsAheadLeavesNobodyWithoutAKey(t *testing.T) {
	for name, compromised := range map[string]bool{"rolled": false, "compromised": true} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			c := w.config
			c.NewKey = oneKey
			c.Now = func() time.Time { return w.now.Add(3 * time.Second) }
			ahead, err := tokens.New(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			p := w.program()
			if err := ahead.Roll(t.Context(), innate.Principal{Object: "admin"}, compromised); err != nil {
				t.Fatal(err)
			}
			for _, alg := range []jwt.Alg{jwt.RS256, jwt.ES256} {
				if _, kid := p.token(w.tokens, alg); !slices.Contains(published(t, w.tokens), kid) {
					t.Errorf("%s: signed by %s, which is not published", alg, kid)
				}
			}
		})
	}
}

// Another server's keys may be sealed with a master key that this one does not
// have; where verifiers ask is none of their business.
func TestAKeyThatAServerCannotUnsealIsPublishedAndDoesNotSign(t *testing.T) {
	w := start(t)
	p := w.program()
	rows := store.Table[map[string]any]("tokens/keys/")
	w.update(func(tx store.Tx) error {
		for id, row := range rows.All(tx, "", "") {
			row["key"] = "AAAA"
			if err := rows.Put(tx, id, row); err != nil {
				return err
			}
		}
		return nil
	})
	a := w.send(w.tokens.Handler(), request(tokenPath, "grant_type=client_credentials", "client_id="+string(p.client),
		"client_secret="+p.secret, "scope="+vault+"/.default"))
	if a.status != http.StatusServiceUnavailable || a.member("error") != "temporarily_unavailable" {
		t.Errorf("got %d %s, want 503", a.status, a.body)
	}
	if all := published(t, w.tokens); len(all) != 2 {
		t.Errorf("published are %q, want both", all)
	}
	if _, err := tokens.New(t.Context(), w.config); err == nil {
		t.Error("a server began that can sign nothing")
	}
}
