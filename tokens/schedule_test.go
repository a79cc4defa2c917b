package tokens_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/directory"
	"innate/jwt"
	"innate/store"
	"innate/tokens"
)

// direct is a transport to a token service, without a wire.
type direct struct {
	to  *tokens.Service
	cut bool // nothing is heard of it any more
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	if d.cut {
		return nil, errors.New("this verifier fetches once a day")
	}
	rec := httptest.NewRecorder()
	d.to.Handler().ServeHTTP(rec, r)
	return rec.Result(), nil
}

// A verifier verifies with the keys that it fetched when it was made.
type verifier struct {
	made time.Time
	keys *oidc.RemoteKeySet
}

// newVerifier fetches the keys by the first token that it is shown.
func newVerifier(t *testing.T, s *tokens.Service, now time.Time, token string) verifier {
	t.Helper()
	way := &direct{to: s}
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: way})
	v := verifier{now, oidc.NewRemoteKeySet(ctx, login+"/"+tenant+"/discovery/v2.0/keys")}
	if _, err := v.keys.VerifySignature(ctx, token); err != nil {
		t.Fatalf("with keys fetched now: %v", err)
	}
	synctest.Wait() // go-oidc keeps what it fetched a moment after it has answered
	way.cut = true
	return v
}

// published is the ids in the key set.
func published(t testing.TB, s *tokens.Service) (kids []string) {
	t.Helper()
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, login+"/common/discovery/keys", nil))
	var set jwt.Set
	if err := json.Unmarshal(rec.Body.Bytes(), &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		kids = append(kids, k.ID)
	}
	return kids
}

// keys lists a service's keys.
func keys(t testing.TB, s *tokens.Service) []tokens.Key {
	t.Helper()
	list, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// inState are the ids of keys of an algorithm.
func inState(list []tokens.Key, state tokens.KeyState, alg jwt.Alg) (kids []string) {
	for _, k := range list {
		if k.State == state && k.Alg == alg {
			kids = append(kids, k.ID)
		}
	}
	return kids
}

// A program gets tokens of both algorithms, at any service of the platform.
type program struct {
	w      *world
	client innate.ClientID
	secret string
}

// audiences are what a program asks for, by the algorithm that signs it.
var audiences = map[jwt.Alg]string{jwt.RS256: vault, jwt.ES256: "api://ledger"}

func (w *world) program() program {
	w.t.Helper()
	w.register(directory.Registration{Name: "ledger", IdentifierURIs: []string{"api://ledger"}, SigningAlg: string(jwt.ES256)})
	p := program{w: w}
	orders, _ := w.register(directory.Registration{})
	p.client = orders.Client
	w.update(func(tx store.Tx) (err error) {
		_, p.secret, err = directory.AddSecret(tx, p.client, "", w.now, w.now.AddDate(2, 0, 0))
		return err
	})
	return p
}

// token returns one, and the id of the key that signed it.
func (p program) token(s *tokens.Service, alg jwt.Alg) (token, kid string) {
	p.w.t.Helper()
	a := p.w.send(s.Handler(), request(tokenPath, "grant_type=client_credentials", "client_id="+string(p.client),
		"client_secret="+p.secret, "scope="+audiences[alg]+"/.default"))
	if a.status != http.StatusOK {
		p.w.t.Fatalf("%s: got %d %s", alg, a.status, a.body)
	}
	head := header(p.w.t, a)
	if head["alg"] != string(alg) {
		p.w.t.Fatalf("signed by %s, want %s", head["alg"], alg)
	}
	return a.member("access_token"), head["kid"].(string)
}

// oneKey makes the RSA keys of a test: what is asked here is when, not which.
func oneKey() (*rsa.PrivateKey, error) { return rsaKey(), nil }

// pair is two services on one store, with their schedules running until the test ends.
func (w *world) pair(c tokens.Config) [2]*tokens.Service {
	w.t.Helper()
	var pair [2]*tokens.Service
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	w.t.Cleanup(func() {
		stop()
		running.Wait()
	})
	for i := range pair {
		s, err := tokens.New(w.t.Context(), c)
		if err != nil {
			w.t.Fatal(err)
		}
		pair[i] = s
		running.Go(func() {
			if err := s.Run(ctx); err != nil {
				w.t.Errorf("the schedule ended with: %v", err)
			}
		})
	}
	return pair
}

// A yearbook is the tokens and the verifiers of the last days, the oldest first. A key goes a day after its last token ends.
type yearbook struct {
	tokens    []issued
	verifiers []verifier
}

type issued struct {
	token string
	at    time.Time
}

// A verifier may keep keys for a day, and what it kept may have lain in a cache
// for an hour. Two servers share the work; the clock is the bubble's.
func TestInAYearOfKeysNoVerifierThatFetchesOnceADayRefusesAToken(t *testing.T) {
	step := 5 * time.Hour // a divisor of that day and hour, so that its last moment is looked at
	if _, err := made(); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(noon))
		w := start(t)
		c := w.config
		c.Now, c.NewKey, c.Lifetime = time.Now, oneKey, 24*time.Hour
		pair, p := w.pair(c), w.program()

		held := map[jwt.Alg]*yearbook{jwt.RS256: {}, jwt.ES256: {}}
		lastSigned := map[string]time.Time{}
		for n := 0; time.Since(noon) < 366*24*time.Hour; n++ {
			if time.Since(noon) > 65*24*time.Hour {
				step = 65 * time.Hour // two keys have come and gone: the others are looked at more rarely
			}
			synctest.Wait() // the schedules have seen this moment
			now, s := time.Now(), pair[n%2]
			list := keys(t, s)
			if diff := cmp.Diff(list, keys(t, pair[1-n%2])); diff != "" {
				t.Fatalf("%s: two servers differ:\n%s", now, diff)
			}
			for _, alg := range []jwt.Alg{jwt.RS256, jwt.ES256} {
				token, kid := p.token(s, alg)
				if signs := inState(list, tokens.KeySigning, alg); !slices.Equal(signs, []string{kid}) {
					t.Fatalf("%s: %s signs: %q; a token is signed by %s", now, alg, signs, kid)
				}
				lastSigned[kid] = now
				h := held[alg]
				h.tokens = append(h.tokens, issued{token, now})
				h.verifiers = append(h.verifiers, newVerifier(t, s, now, token))
				h.verifiers = slices.DeleteFunc(h.verifiers, func(v verifier) bool { return now.Sub(v.made) > 25*time.Hour })
				if _, err := h.verifiers[0].keys.VerifySignature(t.Context(), token); err != nil {
					t.Fatalf("%s: %s: with keys fetched %s ago: %v", now, alg, now.Sub(h.verifiers[0].made), err)
				}
				h.tokens = slices.DeleteFunc(h.tokens, func(i issued) bool { return now.Sub(i.at) > c.Lifetime+24*time.Hour })
				fresh := h.verifiers[len(h.verifiers)-1]
				if _, err := fresh.keys.VerifySignature(t.Context(), h.tokens[0].token); err != nil {
					t.Fatalf("%s: %s: a token of %s, with keys fetched now: %v", now, alg, h.tokens[0].at, err)
				}
			}
			for _, kid := range published(t, s) {
				if signed, ok := lastSigned[kid]; ok && now.Sub(signed) >= 48*time.Hour+step {
					t.Fatalf("%s: %s is published and signed last %s ago", now, kid, now.Sub(signed))
				}
			}
			time.Sleep(step)
		}
		if n := len(lastSigned); n != 2*13 { // day 0, 30 … 360
			t.Errorf("%d keys have signed in a year, want 13 of each algorithm", n)
		}
		w.sealed()
	})
}

// sealed checks that no private key of these tests lies open in the store.
func (w *world) sealed() {
	w.t.Helper()
	file, err := os.ReadFile(filepath.Join(w.dir, "store"))
	if err != nil {
		w.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(rsaKey())
	if err != nil {
		w.t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	if err != nil {
		w.t.Fatal(err)
	}
	var certificates [][]byte
	w.db.View(w.t.Context(), func(r store.Reader) error {
		for _, row := range r.Scan("tokens/keys/", "") {
			var k struct{ Certificate, Key []byte }
			if err := json.Unmarshal(row, &k); err != nil {
				return err
			}
			if bytes.Contains(k.Certificate, public) {
				certificates = append(certificates, k.Certificate)
			}
			if len(k.Key) == 0 {
				w.t.Error("a key in use has no private half")
			}
		}
		return nil
	})
	if len(certificates) == 0 || !bytes.Contains(file, []byte(base64.StdEncoding.EncodeToString(certificates[0]))) {
		w.t.Fatal("this test looks in the wrong place: the certificate of the key is not in the store's file")
	}
	secrets := map[string][]byte{"PKCS #8": pkcs8, "its exponent": rsaKey().D.Bytes(), "a prime": rsaKey().Primes[0].Bytes()}
	for what, secret := range secrets {
		if bytes.Contains(file, secret) || bytes.Contains(file, []byte(base64.StdEncoding.EncodeToString(secret))) {
			w.t.Errorf("the store's file has the private key in the open: %s", what)
		}
	}
}

// Nobody was there to publish the next key in time. The old one goes on until
// every verifier has had its day.
func TestAServerThatWasDownForMonthsPublishesBeforeItSigns(t *testing.T) {
	w := start(t)
	old := inState(keys(t, w.tokens), tokens.KeySigning, jwt.RS256)
	w.now = noon.AddDate(0, 5, 0)
	c := w.config
	c.NewKey = oneKey
	s, err := tokens.New(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	list := keys(t, s)
	next := inState(list, tokens.KeyNext, jwt.RS256)
	if signs := inState(list, tokens.KeySigning, jwt.RS256); !slices.Equal(signs, old) || len(next) != 1 {
		t.Fatalf("signing %q, next %q; want the old one %q and a new one", signs, next, old)
	}
	if !slices.Contains(published(t, s), next[0]) {
		t.Error("the next key is not published")
	}
	w.now = w.now.Add(24 * time.Hour)
	if signs := inState(keys(t, s), tokens.KeySigning, jwt.RS256); !slices.Equal(signs, old) {
		t.Errorf("after a day %q signs, want still %q", signs, old)
	}
	w.now = w.now.Add(time.Hour)
	if signs := inState(keys(t, s), tokens.KeySigning, jwt.RS256); !slices.Equal(signs, next) {
		t.Errorf("after a day and an hour %q signs, want %q", signs, next)
	}
}

// The first of many servers on a new platform makes the keys; the others take them.
func TestServersThatStartAtOnceOnANewStoreMakeOneKeyOfEachAlgorithm(t *testing.T) {
	w := start(t)
	w.update(func(tx store.Tx) error {
		for row := range tx.Scan("tokens/keys/", "") {
			tx.Delete(row)
		}
		return nil
	})
	c := w.config
	c.NewKey = oneKey
	var starting sync.WaitGroup
	for range 8 {
		starting.Go(func() {
			if _, err := tokens.New(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	list := keys(t, w.tokens)
	for _, alg := range []jwt.Alg{jwt.RS256, jwt.ES256} {
		if signs := inState(list, tokens.KeySigning, alg); len(signs) != 1 || len(list) != 2 {
			t.Errorf("%s: %q sign, of %d keys; want one of each algorithm", alg, signs, len(list))
		}
	}
}
