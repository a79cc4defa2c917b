package jwt_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"reflect"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"innate/jwt"
)

// keys are made once: an RSA key takes longer than all of these tests.
var keys = sync.OnceValue(func() (k struct {
	rsa, other *rsa.PrivateKey
	ec         *ecdsa.PrivateKey
}) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.other, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return k
})

func sign(t testing.TB, key crypto.Signer, alg jwt.Alg, header map[string]any, claims any) string {
	t.Helper()
	s, err := jwt.NewSigner(key, alg, header)
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// handmade is a token with any header and claims, signed by RS256 with key.
func handmade(t testing.TB, key *rsa.PrivateKey, header, claims string) string {
	t.Helper()
	signed := b64(header) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

var all = []jwt.Alg{jwt.RS256, jwt.PS256, jwt.ES256}

func TestWhatIsSignedVerifiesWithItsKeyAlone(t *testing.T) {
	k := keys()
	for _, c := range []struct {
		alg   jwt.Alg
		key   crypto.Signer
		wrong []crypto.PublicKey
	}{
		{jwt.RS256, k.rsa, []crypto.PublicKey{k.other.Public(), k.ec.Public(), nil, []byte("x")}},
		{jwt.PS256, k.rsa, []crypto.PublicKey{k.other.Public(), k.ec.Public()}},
		{jwt.ES256, k.ec, []crypto.PublicKey{k.rsa.Public()}},
	} {
		compact := sign(t, c.key, c.alg, map[string]any{"kid": "k1"}, map[string]string{"sub": "me"})
		token, err := jwt.Parse(compact, all...)
		if err != nil {
			t.Fatalf("%s: %v", c.alg, err)
		}
		if token.KeyID != "k1" || token.Alg != c.alg || string(token.Header["typ"]) != `"JWT"` {
			t.Errorf("%s: header %s", c.alg, token.Header)
		}
		claims, err := token.Verify(c.key.Public())
		if err != nil || string(claims) != `{"sub":"me"}` {
			t.Errorf("%s: got %s, %v", c.alg, claims, err)
		}
		for _, wrong := range c.wrong {
			if claims, err := token.Verify(wrong); err == nil {
				t.Errorf("%s: verified with a %T to %s", c.alg, wrong, claims)
			}
		}
		// The library, as any stranger, agrees.
		jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(c.alg)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jws.Verify(c.key.Public()); err != nil {
			t.Errorf("%s: the library: %v", c.alg, err)
		}
	}
}

func TestAChangedTokenDoesNotVerify(t *testing.T) {
	k := keys()
	compact := sign(t, k.ec, jwt.ES256, nil, map[string]string{"sub": "me"})
	header, claims, _ := strings.Cut(compact, ".")
	claims, sig, _ := strings.Cut(claims, ".")
	for name, changed := range map[string]string{
		"claims":           header + "." + b64(`{"sub":"us"}`) + "." + sig,
		"header":           b64(`{"alg":"ES256","typ":"JWT","kid":"x"}`) + "." + claims + "." + sig,
		"signature":        header + "." + claims + "." + b64(strings.Repeat("a", 64)),
		"short signature":  header + "." + claims + "." + sig[:60],
		"zero signature":   header + "." + claims + "." + b64(strings.Repeat("\x00", 64)),
		"empty signature":  header + "." + claims + ".",
		"signature as DER": header + "." + claims + "." + b64("\x30\x06\x02\x01\x01\x02\x01\x01"),
	} {
		token, err := jwt.Parse(changed, all...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := token.Verify(k.ec.Public()); err == nil {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestParseRefusesWhatIsNotPlainlyOneToken(t *testing.T) {
	k := keys().rsa
	pub, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	hs := b64(`{"alg":"HS256"}`) + "." + b64(`{}`)
	mac := hmac.New(sha256.New, pub)
	mac.Write([]byte(hs))
	good := handmade(t, k, `{"alg":"RS256"}`, `{"a":1}`)
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }

	if _, err := jwt.Parse(handmade(t, k, `{"alg":"RS256"}`, deep(31)), jwt.RS256); err != nil {
		t.Errorf("nested 32 deep: %v", err)
	}
	for name, compact := range map[string]string{
		"empty":                 "",
		"two parts":             "a.b",
		"four parts":            good + ".e30",
		"five parts of JWE":     "a.b.c.d.e",
		"JSON form":             `{"payload":"e30","signatures":[]}`,
		"alg none":              b64(`{"alg":"none"}`) + "." + b64(`{}`) + ".",
		"alg None":              b64(`{"alg":"None"}`) + "." + b64(`{}`) + ".",
		"HMAC by our key":       hs + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
		"alg not asked for":     handmade(t, k, `{"alg":"RS512"}`, `{}`),
		"no alg":                handmade(t, k, `{"kid":"x"}`, `{}`),
		"alg a number":          handmade(t, k, `{"alg":1}`, `{}`),
		"alg null":              handmade(t, k, `{"alg":null}`, `{}`),
		"alg in upper case":     handmade(t, k, `{"ALG":"RS256"}`, `{}`),
		"unknown crit":          handmade(t, k, `{"alg":"RS256","crit":["exp"],"exp":1}`, `{}`),
		"crit of b64":           handmade(t, k, `{"alg":"RS256","crit":["b64"],"b64":true}`, `{}`),
		"empty crit":            handmade(t, k, `{"alg":"RS256","crit":[]}`, `{}`),
		"b64 false":             handmade(t, k, `{"alg":"RS256","b64":false}`, `{}`),
		"kid a number":          handmade(t, k, `{"alg":"RS256","kid":7}`, `{}`),
		"alg twice":             handmade(t, k, `{"alg":"RS256","alg":"none"}`, `{}`),
		"claim twice":           handmade(t, k, `{"alg":"RS256"}`, `{"sub":"a","sub":"b"}`),
		"claim twice by escape": handmade(t, k, `{"alg":"RS256"}`, `{"sub":"a","s\u0075b":"b"}`),
		"claim twice inside":    handmade(t, k, `{"alg":"RS256"}`, `{"x":[{"y":{"a":1,"a":1}}]}`),
		"claims an array":       handmade(t, k, `{"alg":"RS256"}`, `[]`),
		"claims a string":       handmade(t, k, `{"alg":"RS256"}`, `"x"`),
		"claims null":           handmade(t, k, `{"alg":"RS256"}`, `null`),
		"no claims":             handmade(t, k, `{"alg":"RS256"}`, ``),
		"claims and more":       handmade(t, k, `{"alg":"RS256"}`, `{} {}`),
		"claims not UTF-8":      handmade(t, k, `{"alg":"RS256"}`, "{\"a\":\"\xff\"}"),
		"nested too deep":       handmade(t, k, `{"alg":"RS256"}`, deep(32)),
		"a nesting bomb":        handmade(t, k, `{"alg":"RS256"}`, deep(5000)),
		"header an array":       handmade(t, k, `["RS256"]`, `{}`),
		"too long":              handmade(t, k, `{"alg":"RS256"}`, `{"a":"`+strings.Repeat("x", 16<<10)+`"}`),
		"padded":                strings.Replace(good, ".", "=.", 1),
		"white space":           good + "\n",
		"other base64":          strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",
	} {
		token, err := jwt.Parse(compact, jwt.RS256)
		if err == nil {
			t.Errorf("%s: parsed to %s", name, token.Unverified())
		}
	}
	if _, err := jwt.Parse(good); err == nil {
		t.Error("parsed although no algorithm was allowed")
	}
}

func TestNeitherKeysNorCertificatesInTheHeaderMatter(t *testing.T) {
	k := keys()
	pub, err := json.Marshal(jose.JSONWebKey{Key: k.other.Public()})
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{
		`{"alg":"RS256","jwk":` + string(pub) + `}`,
		`{"alg":"RS256","jku":"https://example.org/keys","x5u":"https://example.org/cert"}`,
		`{"alg":"RS256","x5c":"bm90IGEgY2VydGlmaWNhdGU="}`, // one string, as .NET sends it
		`{"alg":"RS256","x5c":["x"],"x5t":7}`,
	} {
		token, err := jwt.Parse(handmade(t, k.other, header, `{}`), jwt.RS256)
		if err != nil {
			t.Errorf("%s: %v", header, err)
			continue
		}
		if _, err := token.Verify(k.rsa.Public()); err == nil {
			t.Errorf("%s: verified with a key that did not sign it", header)
		}
		if _, err := token.Verify(k.other.Public()); err != nil {
			t.Errorf("%s: %v", header, err)
		}
	}
}

func TestWeakAndUnfitKeysDoNotSign(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0")
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key crypto.Signer
		alg jwt.Alg
	}{
		"RSA 1024": {weak, jwt.RS256}, "P-384": {p384, jwt.ES256}, "RSA for ES256": {keys().rsa, jwt.ES256},
		"EC for RS256": {keys().ec, jwt.RS256}, "none": {keys().rsa, "none"}, "HS256": {keys().rsa, "HS256"},
	} {
		if _, err := jwt.NewSigner(c.key, c.alg, nil); err == nil {
			t.Errorf("%s: got a signer", name)
		}
	}
}

func TestAKeySetReadsBackAndStrangersReadIt(t *testing.T) {
	k := keys()
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.rsa.Public(), k.rsa)
	if err != nil {
		t.Fatal(err)
	}
	set := jwt.Set{Keys: []jwt.Key{
		{ID: "r", Alg: jwt.RS256, Public: k.rsa.Public(), Cert: der, Issuer: "https://login.innate.test/t/v2.0"},
		{ID: "e", Public: k.ec.Public()},
	}}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var got jwt.Set
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(set, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	var stranger jose.JSONWebKeySet
	if err := json.Unmarshal(b, &stranger); err != nil || len(stranger.Keys) != 2 {
		t.Errorf("the library reads %d keys, %v", len(stranger.Keys), err)
	}
	for _, member := range []string{`"kty":"RSA"`, `"use":"sig"`, `"x5t":"`, `"x5c":["` + base64.StdEncoding.EncodeToString(der[:30]), `"issuer":"https://login`} {
		if !bytes.Contains(b, []byte(member)) {
			t.Errorf("no %s in %s", member, b)
		}
	}
	if b, err := json.Marshal(jwt.Set{}); err != nil || string(b) != `{"keys":[]}` {
		t.Errorf("an empty set: %s, %v", b, err)
	}
	if _, err := json.Marshal(jwt.Set{Keys: []jwt.Key{{ID: "p", Public: k.rsa}}}); err == nil {
		t.Error("a private key was written")
	}
}

func TestAKeySetPassesOverWhatCannotVerify(t *testing.T) {
	k := keys()
	private, err := json.Marshal(jose.JSONWebKey{Key: k.ec, KeyID: "private"})
	if err != nil {
		t.Fatal(err)
	}
	forEncryption, err := json.Marshal(jose.JSONWebKey{Key: k.rsa.Public(), KeyID: "enc", Use: "enc"})
	if err != nil {
		t.Fatal(err)
	}
	otherAlg, err := json.Marshal(jose.JSONWebKey{Key: k.rsa.Public(), KeyID: "alg", Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	slow, err := json.Marshal(jose.JSONWebKey{KeyID: "slow", Key: &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}})
	if err != nil {
		t.Fatal(err)
	}
	good, err := json.Marshal(jwt.Key{ID: "good", Public: k.ec.Public()})
	if err != nil {
		t.Fatal(err)
	}
	b := `{"keys":[` + strings.Join([]string{
		`{"kty":"oct","k":"c2VjcmV0","kid":"oct"}`, `{"kty":"new"}`, `{}`, `7`, `null`,
		string(private), string(forEncryption), string(otherAlg), string(slow), string(good),
	}, ",") + `]}`
	var set jwt.Set
	if err := json.Unmarshal([]byte(b), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 || set.Keys[0].ID != "good" {
		t.Errorf("got %+v: want only the good key", set.Keys)
	}
}

func TestAKeyFitsTheAlgorithmsOfItsKind(t *testing.T) {
	k := keys()
	for _, c := range []struct {
		name string
		key  jwt.Key
		want []jwt.Alg
	}{
		{"RSA", jwt.Key{Public: k.rsa.Public()}, []jwt.Alg{jwt.RS256, jwt.PS256}},
		{"RSA for PS256", jwt.Key{Public: k.rsa.Public(), Alg: jwt.PS256}, []jwt.Alg{jwt.PS256}},
		{"P-256", jwt.Key{Public: k.ec.Public()}, []jwt.Alg{jwt.ES256}},
		{"P-256 that says RS256", jwt.Key{Public: k.ec.Public(), Alg: jwt.RS256}, nil},
		{"nothing", jwt.Key{}, nil},
	} {
		var got []jwt.Alg
		for _, alg := range append(all, "none", "") {
			if c.key.Fits(alg) {
				got = append(got, alg)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := keys()
	f.Add(sign(f, k.ec, jwt.ES256, map[string]any{"kid": "k"}, map[string]any{"sub": "me", "aud": []string{"a"}}))
	f.Add(handmade(f, k.rsa, `{"alg":"RS256","x5c":"one string"}`, `{"nbf":"1"}`))
	f.Add(b64(`{"alg":"none"}`) + "." + b64(`{"a":1,"a":2}`) + ".")
	f.Add(b64(`{"alg":"RS256","crit":["b64"],"b64":false}`) + ".e30.x")
	f.Fuzz(func(t *testing.T, compact string) {
		token, err := jwt.Parse(compact, all...)
		if err != nil {
			return
		}
		var claims map[string]json.RawMessage
		if err := json.Unmarshal(token.Unverified(), &claims); err != nil {
			t.Errorf("claims are no object: %v", err)
		}
		if !reflect.DeepEqual(token.Members(), claims) {
			t.Errorf("the members are %q, want %q", token.Members(), claims)
		}
		for _, pub := range []crypto.PublicKey{k.rsa.Public(), k.ec.Public()} {
			_, err := token.Verify(pub)
			jws, parseErr := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(token.Alg)})
			if parseErr != nil {
				continue // it reads more of the header than we do
			}
			if _, theirs := jws.Verify(pub); (err == nil) != (theirs == nil) {
				t.Errorf("with a %T: we say %v, the library %v", pub, err, theirs)
			}
		}
	})
}

func FuzzSet(f *testing.F) {
	b, err := json.Marshal(jwt.Set{Keys: []jwt.Key{{ID: "e", Public: keys().ec.Public(), Issuer: "i"}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var set jwt.Set
		if json.Unmarshal(b, &set) != nil {
			return
		}
		if _, err := json.Marshal(set); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k := keys()
	claims := map[string]string{"aud": "https://vault.azure.net", "sub": strings.Repeat("x", 300)}
	for _, c := range []struct {
		alg jwt.Alg
		key crypto.Signer
	}{{jwt.RS256, k.rsa}, {jwt.ES256, k.ec}} {
		s, err := jwt.NewSigner(c.key, c.alg, map[string]any{"kid": "k"})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(string(c.alg), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Sign(claims); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(string(c.alg)+"-bare", func(b *testing.B) { // the limit: one signature
			sum := sha256.Sum256([]byte("x"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzClaims reads claims beside a reader that is plainly right: the library's,
// token by token.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1,"b":[true,null,-1.5e3,"x\"]}"],"c":{"a":{}}}`, ` { "a" : 1 , "a" : 2 } `,
		`{"a":{"b":1,"b":2}}`, `[{"a":1}]`, `{"a":1,"\u0061":2}`, `{"":[[],[{"x":0}]],"x":"\\"}`, `{"\ud800":1,"\udc00":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, claims []byte) {
		b64 := base64.RawURLEncoding.EncodeToString
		_, err := jwt.Parse(b64([]byte(`{"alg":"ES256"}`))+"."+b64(claims)+"."+b64([]byte("x")), jwt.ES256)
		if len(claims) > 8<<10 {
			return // the whole may be too long
		}
		if want := plainObject(claims); (err == nil) != want {
			t.Errorf("%q: %v; want it taken: %t", claims, err, want)
		}
	})
}

// plainObject reports whether b is one object without members that stand twice
// or depth beyond 32.
func plainObject(b []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(b))
	var value func(depth int) bool
	value = func(depth int) bool {
		token, err := dec.Token()
		delim, nested := token.(json.Delim)
		if err != nil || !nested {
			return err == nil
		}
		seen := map[json.Token]bool{}
		for depth > 0 && dec.More() {
			if delim == '{' {
				name, err := dec.Token()
				if err != nil || seen[name] {
					return false
				}
				seen[name] = true
			}
			if !value(depth - 1) {
				return false
			}
		}
		_, err = dec.Token()
		return depth > 0 && err == nil
	}
	return utf8.Valid(b) && json.Valid(b) && strings.HasPrefix(strings.TrimLeft(string(b), " \t\r\n"), "{") && value(32)
}
