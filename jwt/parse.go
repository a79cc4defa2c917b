package jwt

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	maxToken = 16 << 10 // bytes of a compact JWS
	maxDepth = 32       // of objects and arrays in one another
)

// encoding is base64url as RFC 7515 §2 wants it.
var encoding = base64.RawURLEncoding.Strict()

// A Token is a compact JWS, parsed and not yet verified.
type Token struct {
	Alg    Alg
	Header map[string]json.RawMessage // the protected header
	KeyID  string                     // kid

	claims    json.RawMessage
	members   map[string]json.RawMessage // of claims
	signed    string                     // header and payload as they were signed
	signature []byte
}

// Parse reads a compact JWS signed by one of algs, of at most 16 KiB. It
// refuses alg none, any crit entry, an unencoded payload (b64), and duplicate
// members in the header or the claims. No error shows a part of the token.
//
// The library's own parser is not used: it gives up on the x5c of .NET's
// assertions, which is one string and not an array (managed-identity-endpoints
// §4.4), and takes b64, the last of duplicate members and some crit entries.
func Parse(compact string, algs ...Alg) (*Token, error) {
	if len(compact) > maxToken {
		return nil, fmt.Errorf("it has %d characters: want at most %d", len(compact), maxToken)
	}
	if strings.ContainsAny(compact, "\r\n") { // which the decoder would pass over
		return nil, errors.New("it has a line break")
	}
	if dots := strings.Count(compact, "."); dots != 2 {
		return nil, fmt.Errorf("it has %d parts between dots: want the 3 of a compact JWS", dots+1)
	}
	var decoded [3][]byte
	rest := compact
	for i, name := range [...]string{"header", "claims", "signature"} {
		var part string
		var err error
		part, rest, _ = strings.Cut(rest, ".")
		if decoded[i], err = encoding.DecodeString(part); err != nil {
			return nil, fmt.Errorf("its %s is not base64url without padding", name)
		}
	}
	t := &Token{
		claims:    decoded[1],
		signed:    compact[:strings.LastIndexByte(compact, '.')],
		signature: decoded[2],
	}
	var err error
	if t.Header, err = object(decoded[0]); err != nil {
		return nil, fmt.Errorf("its header: %w", err)
	}
	if t.members, err = object(decoded[1]); err != nil {
		return nil, fmt.Errorf("its claims: %w", err)
	}
	return t, t.readHeader(algs)
}

func (t *Token) readHeader(algs []Alg) error {
	if _, ok := t.Header["crit"]; ok { // RFC 7515 §4.1.11: we understand no extension
		return errors.New("its header has crit, and no extension is understood here")
	}
	if _, ok := t.Header["b64"]; ok { // RFC 7797
		return errors.New("its header has b64: the payload must be encoded")
	}
	alg, _ := Text(t.Header["alg"])
	if t.Alg = Alg(alg); !slices.Contains(algs, t.Alg) {
		return fmt.Errorf("its algorithm is not one of %v", algs)
	}
	if kid, ok := t.Header["kid"]; ok {
		if t.KeyID, ok = Text(kid); !ok {
			return errors.New("its kid is not a string")
		}
	}
	return nil
}

// Unverified is the payload before its signature was checked: to find the key with, not to believe.
func (t *Token) Unverified() json.RawMessage { return t.claims }

// Members are those of Unverified, by their exact names.
func (t *Token) Members() map[string]json.RawMessage { return t.members }

// Text is what value says, one of Header or Members, if it is a string.
func Text(value json.RawMessage) (text string, ok bool) {
	if len(value) == 0 || value[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	var escaped string
	err := json.Unmarshal(value, &escaped)
	return escaped, err == nil
}

// Verify checks the signature with pub, whose type must fit the algorithm, and returns the claims.
func (t *Token) Verify(pub crypto.PublicKey) (json.RawMessage, error) {
	if err := t.Alg.fits(pub); err != nil {
		return nil, err
	}
	if !t.signedBy(pub) {
		return nil, errors.New("the signature is not by this key")
	}
	return t.claims, nil
}

// signedBy checks the signature (RFC 7518 §3.3 to §3.5) with a key that fits.
func (t *Token) signedBy(pub crypto.PublicKey) bool {
	digest := digestOf(t.signed)
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if t.Alg == PS256 {
			salt := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.VerifyPSS(key, crypto.SHA256, digest[:], t.signature, salt) == nil
		}
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], t.signature) == nil
	case *ecdsa.PublicKey:
		return len(t.signature) == 2*p256Size && ecdsa.VerifyASN1(key, digest[:], asASN1(t.signature))
	}
	return false
}

// digestOf hashes s piece by piece: a copy of it all would be as long as the token.
func digestOf(s string) (digest [sha256.Size]byte) {
	h := sha256.New()
	var piece [512]byte
	for len(s) > 0 {
		n := copy(piece[:], s)
		h.Write(piece[:n])
		s = s[n:]
	}
	h.Sum(digest[:0])
	return digest
}

// object reads the members of b, which is to be one JSON object in which none
// stands twice, at any depth (RFC 7515 §4, RFC 7519 §4): two readers must not see
// two different tokens.
func object(b []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(b) || !json.Valid(b) || bytes.TrimLeft(b, space)[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	members := map[string]json.RawMessage{}
	w := &walk{b}
	w.next()
	return members, w.container(maxDepth-1, func(name, value []byte) { members[memberName(name)] = value })
}

// memberName is name as a string. Those that nearly every token has take no memory.
func memberName(name []byte) string {
	for _, usual := range [...]string{"alg", "typ", "kid", "x5t", "x5t#S256", "aud", "iss", "sub", "exp", "nbf", "iat", "jti"} {
		if string(name) == usual {
			return usual
		}
	}
	return string(name)
}

// space is what may stand between the parts of JSON (RFC 8259 §2).
const space = " \t\r\n"

// A walk goes over JSON that is known to be valid, from its front.
type walk struct{ rest []byte }

// next skips space and returns the character that follows.
func (w *walk) next() byte {
	w.rest = bytes.TrimLeft(w.rest, space)
	return w.rest[0]
}

// value goes over one value with at most depth objects and arrays in one another.
func (w *walk) value(depth int) error {
	switch w.next() {
	case '{', '[':
		if depth == 0 {
			return fmt.Errorf("nested deeper than %d", maxDepth)
		}
		return w.container(depth-1, nil)
	case '"':
		w.text()
	default: // a number, true, false or null
		w.rest = w.rest[bytes.IndexAny(w.rest, space+",]}"):]
	}
	return nil
}

// container goes over an object or an array. found, unless it is nil, is told the
// members of an object.
func (w *walk) container(depth int, found func(name, value []byte)) error {
	object := w.rest[0] == '{'
	var few [16][]byte // so that the names of most objects take no memory
	names := few[:0]
	for w.rest = w.rest[1:]; ; {
		switch w.next() {
		case '}', ']':
			w.rest = w.rest[1:]
			return distinct(names)
		case ',':
			w.rest = w.rest[1:]
			continue
		}
		if object {
			names = append(names, w.text())
			w.next() // the colon
			w.rest = w.rest[1:]
			w.next()
		}
		value := w.rest
		if err := w.value(depth); err != nil {
			return err
		}
		if found != nil {
			found(names[len(names)-1], value[:len(value)-len(w.rest)])
		}
	}
}

// text goes over a string, and returns what it says.
func (w *walk) text() []byte {
	end := 1
	for w.rest[end] != '"' {
		if w.rest[end] == '\\' {
			end++
		}
		end++
	}
	quoted := w.rest[:end+1]
	w.rest = w.rest[end+1:]
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1:end]
	}
	var decoded string
	if json.Unmarshal(quoted, &decoded) != nil {
		return quoted // not of valid JSON
	}
	return []byte(decoded)
}

// distinct reports the names of an object's members that are the same.
func distinct(names [][]byte) error {
	slices.SortFunc(names, bytes.Compare)
	for i := 1; i < len(names); i++ {
		if bytes.Equal(names[i-1], names[i]) {
			return errors.New("a member stands twice")
		}
	}
	return nil
}
