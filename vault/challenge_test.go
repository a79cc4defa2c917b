package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"innate/bearer"
	"innate/feed/client"
	"innate/jwt"
)

// login publishes one key, as the token service does, without a wire.
type login struct{ key jwt.Key }

func (l login) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	origin := "https://" + r.URL.Host
	if issuer, ok := strings.CutSuffix(origin+r.URL.Path, ".well-known/openid-configuration"); ok {
		json.NewEncoder(w).Encode(map[string]string{"issuer": issuer, "jwks_uri": origin + "/keys"})
	} else {
		json.NewEncoder(w).Encode(jwt.Set{Keys: []jwt.Key{l.key}})
	}
	return w.Result(), nil
}

const revoked = "aaaaaaaa-0000-4000-8000-000000000001" // the object id of an identity

// withVerifier puts a real verifier before the vaults, for which that identity
// is revoked. It returns what signs tokens of that identity with a capability.
func (w *world) withVerifier() (sign func(capability string) string) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(w.t, err)
	set := client.NewRevocations(nil)
	set.Apply(client.Event{Key: client.RevocationKey(client.RevokedIdentity, revoked), Value: json.RawMessage(`{}`)})
	verifier, err := bearer.New(bearer.Config{
		Authority: "https://login.innate.test", Tenant: tenant, Audiences: []string{"https://vault.innate.test:8443"},
		HTTP:        &http.Client{Transport: login{jwt.Key{ID: "k", Alg: jwt.ES256, Public: key.Public()}}},
		Revocations: set, Code: "Unauthorized", Now: w.clock,
	})
	check(w.t, err)
	w.front = w.known(verifier.Require(w.service.Handler(), w.service.Challenge))
	signer, err := jwt.NewSigner(key, jwt.ES256, map[string]any{"kid": "k"})
	check(w.t, err)
	return func(capability string) string {
		token, err := signer.Sign(map[string]any{
			"iss": "https://login.innate.test/" + tenant + "/", "ver": "1.0", "aud": "https://vault.innate.test:8443",
			"tid": tenant, "idtyp": "app", "oid": revoked, "sub": revoked, "appid": revoked,
			"iat": w.clock().Unix(), "exp": w.clock().Unix() + 3600, "xms_cc": []string{capability},
		})
		check(w.t, err)
		return token
	}
}

// fromNow are the claims that ask for a token which is good from now on.
func (w *world) fromNow() string {
	return fmt.Sprintf(`{"access_token":{"nbf":{"essential":true,"value":"%d"}}}`, w.clock().Unix())
}

func TestARevokedTokensClaimsChallengeStillSaysWhereTheVaultsTokensAre(t *testing.T) {
	w := newWorld(t)
	sign := w.withVerifier()
	plain := `Bearer authorization="https://login.innate.test/` + tenant + `", resource="https://vault.innate.test:8443"`
	for capability, want := range map[string]string{
		"cp1":  plain + `, error="insufficient_claims", claims="` + base64.StdEncoding.EncodeToString([]byte(w.fromNow())) + `"`,
		"none": plain,
	} {
		a := w.send(sign(capability), "GET", "/secrets/x"+api, "")
		w.refused(a, http.StatusUnauthorized, "Unauthorized", "")
		if got := a.header.Get("WWW-Authenticate"); got != want {
			t.Errorf("%s: challenge\n%s, want\n%s", capability, got, want)
		}
	}
}

// A cache has a revoked token, and another for whoever asks with claims.
type cache struct {
	old   string
	asked *[]policy.TokenRequestOptions
}

func (c cache) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	*c.asked = append(*c.asked, o)
	token := c.old
	if o.Claims != "" {
		token = "officer"
	}
	return azcore.AccessToken{Token: token, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func TestTheVendorsGoClientGetsAnotherTokenWhenItsOwnIsRevoked(t *testing.T) {
	w := newWorld(t)
	w.must("officer", "PUT", "/secrets/a"+api, `{"value":"v"}`)
	sign := w.withVerifier()
	var asked []policy.TokenRequestOptions
	options := &azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: w}}
	options.Retry.MaxRetries = -1
	c, err := azsecrets.NewClient("https://"+host, cache{sign("cp1"), &asked}, options)
	check(t, err)
	got, err := c.GetSecret(t.Context(), "a", "", nil)
	check(t, err)
	if *got.Value != "v" || len(asked) != 2 || asked[1].Claims != w.fromNow() || asked[1].Scopes[0] != "https://vault.innate.test:8443/.default" {
		t.Errorf("got %q, asking for tokens with %+v", *got.Value, asked)
	}
}
