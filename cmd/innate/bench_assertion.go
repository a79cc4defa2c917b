package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"innate"
	"innate/jwt"
)

// asserters is how many app registrations ask in turns, so that none of them
// comes as often as the token service calls too often.
const asserters = 256

// issueAssertion is a fresh token for an app registration that proves itself by
// an assertion signed with its certificate; the limit is a bare handler that
// verifies one signature and makes one, both of the same algorithm as ours.
func issueAssertion(alg jwt.Alg) func(context.Context, *bench) (contest, error) {
	return func(ctx context.Context, b *bench) (contest, error) {
		st, err := b.platform(ctx)
		if err != nil {
			return contest{}, err
		}
		key, verify, err := newAsserter(alg)
		if err != nil {
			return contest{}, err
		}
		audience := keyVault
		if alg == jwt.ES256 {
			if audience, err = st.audienceES256(ctx); err != nil {
				return contest{}, err
			}
		}
		bodies, err := st.assertions(ctx, alg, key, audience)
		if err != nil {
			return contest{}, err
		}
		digest := sha256.Sum256(make([]byte, signedBytes))
		signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return contest{}, err
		}
		return b.beside(ctx, load{
			Method: http.MethodPost, URL: "https://login." + st.Server.Platform.Domain + st.tokenPath(), Connections: benchHosts,
			Header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, Bodies: bodies,
		}, st.dial("login", nil), nil, func(*http.Request) error {
			digest := sha256.Sum256(make([]byte, signedBytes))
			if !verify(digest[:], signature) {
				return errors.New("the signature does not verify")
			}
			_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
			return err
		})
	}
}

// newAsserter makes a key and says how its signatures are verified.
func newAsserter(alg jwt.Alg) (crypto.Signer, func(digest, signature []byte) bool, error) {
	if alg == jwt.ES256 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return key, func(digest, signature []byte) bool { return ecdsa.VerifyASN1(&key.PublicKey, digest, signature) }, err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	return key, func(digest, signature []byte) bool {
		return rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, digest, signature) == nil
	}, err
}

// assertions registers the asserters, all with one key, and returns a token
// request of each.
func (st *stage) assertions(ctx context.Context, alg jwt.Alg, key crypto.Signer, audience string) ([]string, error) {
	now := time.Now()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	signer, err := jwt.NewSigner(key, alg, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])})
	if err != nil {
		return nil, err
	}
	bodies := make([]string, asserters)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(benchConnections)
	for i := range bodies {
		g.Go(func() error {
			app, err := register(ctx, st.Admin, newApplication{Name: "bench", Certificates: []clientCertificate{{Key: der}}})
			if err != nil {
				return err
			}
			assertion, err := signer.Sign(map[string]any{
				"aud": st.Server.Endpoints.Login + st.tokenPath(), "iss": app.Client, "sub": app.Client, "jti": innate.NewGUID(),
				"nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			})
			bodies[i] = url.Values{
				"grant_type": {"client_credentials"}, "client_id": {string(app.Client)}, "scope": {audience + "/.default"},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
			}.Encode()
			return err
		})
	}
	return bodies, g.Wait()
}

// tokenPath is where app registrations ask.
func (st *stage) tokenPath() string {
	return "/" + string(st.Server.Platform.Tenant) + "/oauth2/v2.0/token"
}
