package jwt_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"innate/jwt"
)

// An oddKey signs in its own way.
type oddKey struct {
	*ecdsa.PrivateKey
	sign func(digest []byte) ([]byte, error)
}

func (k oddKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	return k.sign(digest)
}

// One signature in 128 has a number that is shorter than 32 bytes.
func TestTheShortNumbersOfASignatureArePadded(t *testing.T) {
	key := keys().ec
	short := func(want func(r, s *big.Int) bool) func([]byte) ([]byte, error) {
		return func(digest []byte) ([]byte, error) {
			for {
				r, s, err := ecdsa.Sign(rand.Reader, key, digest)
				if err != nil {
					return nil, err
				}
				if want(r, s) {
					return asn1.Marshal(struct{ R, S *big.Int }{r, s})
				}
			}
		}
	}
	for name, want := range map[string]func(r, s *big.Int) bool{
		"r":       func(r, _ *big.Int) bool { return r.BitLen() <= 248 },
		"s":       func(_, s *big.Int) bool { return s.BitLen() <= 248 },
		"neither": func(r, s *big.Int) bool { return r.BitLen() == 256 && s.BitLen() == 256 }, // their DER has a zero in front
	} {
		compact := sign(t, oddKey{key, short(want)}, jwt.ES256, nil, map[string]string{"sub": "me"})
		checkByLibrary(t, name, compact, jwt.ES256, key.Public())
	}
}

// checkByLibrary verifies a token as a stranger would, and returns its claims.
func checkByLibrary(t *testing.T, name, compact string, alg jwt.Alg, pub crypto.PublicKey) []byte {
	t.Helper()
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	claims, err := jws.Verify(pub)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return claims
}

func TestWhatIsNoSignatureIsNotPutInAToken(t *testing.T) {
	key := keys().ec
	number := func(n int64, bits uint) *big.Int { return new(big.Int).Lsh(big.NewInt(n), bits) }
	for name, sign := range map[string]func() ([]byte, error){
		"refused by the key":    func() ([]byte, error) { return nil, errors.New("the device is gone") },
		"empty":                 func() ([]byte, error) { return nil, nil },
		"64 bytes and no DER":   func() ([]byte, error) { return make([]byte, 64), nil },
		"of a larger curve":     func() ([]byte, error) { return asn1.Marshal([]*big.Int{number(1, 300), number(1, 0)}) },
		"negative":              func() ([]byte, error) { return asn1.Marshal([]*big.Int{number(1, 0), number(-1, 0)}) },
		"of one number":         func() ([]byte, error) { return asn1.Marshal([]*big.Int{number(1, 0)}) },
		"followed by something": func() ([]byte, error) { return []byte("\x30\x06\x02\x01\x01\x02\x01\x01\x00"), nil },
	} {
		s, err := jwt.NewSigner(oddKey{key, func([]byte) ([]byte, error) { return sign() }}, jwt.ES256, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token, err := s.Sign(map[string]string{}); err == nil {
			t.Errorf("%s: got %s", name, token)
		}
	}
	s, err := jwt.NewSigner(key, jwt.ES256, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sign(func() {}); err == nil {
		t.Error("claims that are no JSON were signed")
	}
	if _, err := jwt.NewSigner(key, jwt.ES256, map[string]any{"kid": func() {}}); err == nil {
		t.Error("a header that is no JSON was taken")
	}
}

func TestTheHeaderSaysWhatSigned(t *testing.T) {
	compact := sign(t, keys().ec, jwt.ES256, map[string]any{"alg": "none", "typ": "x", "kid": "k"}, map[string]string{})
	first, _, _ := strings.Cut(compact, ".")
	header, err := base64.RawURLEncoding.DecodeString(first)
	if want := `{"alg":"ES256","kid":"k","typ":"JWT"}`; err != nil || string(header) != want {
		t.Errorf("header %s (%v), want %s", header, err, want)
	}
}

func FuzzSign(f *testing.F) {
	k := keys()
	f.Add(uint8(0), "kid", `{"sub":"me"}`)
	f.Add(uint8(1), "", `{"a":"<&>  é"}`)
	f.Add(uint8(2), "\x00\"", `{}`)
	f.Fuzz(func(t *testing.T, which uint8, kid, text string) {
		var claims map[string]any
		if json.Unmarshal([]byte(text), &claims) != nil || claims == nil {
			return
		}
		alg := all[int(which)%len(all)]
		var key crypto.Signer = k.rsa
		if alg == jwt.ES256 {
			key = k.ec
		}
		compact := sign(t, key, alg, map[string]any{"kid": kid}, claims)
		signed := checkByLibrary(t, text, compact, alg, key.Public())
		if want, err := json.Marshal(claims); err != nil || string(signed) != string(want) {
			t.Errorf("the token says %s, want %s (%v)", signed, want, err)
		}
	})
}
