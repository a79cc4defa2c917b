package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"innate/tokens"
)

// An issuer is somebody else's, on loopback.
type issuer struct {
	t      *testing.T
	url    string
	ca     string // PEM
	signer jose.Signer
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := jose.JSONWebKey{Key: key, KeyID: "k1", Algorithm: "ES256", Use: "sig"}
	i := &issuer{t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{"issuer": i.url, "jwks_uri": i.url + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{private.Public()}})
	})
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	i.url = srv.URL
	i.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	i.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: private}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// token signs one for subject, with more claims.
func (i *issuer) token(subject string, more map[string]any) string {
	i.t.Helper()
	now := time.Now()
	claims := map[string]any{
		"iss": i.url, "sub": subject, "aud": "api://AzureADTokenExchange", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range more {
		claims[name] = value
	}
	b, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatal(err)
	}
	signed, err := i.signer.Sign(b)
	if err != nil {
		i.t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return compact
}

func TestFederationTestSaysClauseByClauseWhatATokenLacks(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	u, err := url.Parse(i.url)
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	s.dev("identities: [build]\n", "--issuer-inside", u.Host, "--issuer-ca", s.write("issuer.pem", i.ca))
	s.must("federation", "create", "main", "--identity", "build", "--issuer", i.url, "--subject", "repo:contoso/shop:ref:refs/heads/main")
	s.must("federation", "create", "prod", "--identity", "build", "--issuer", i.url,
		"--match", "claims['sub'] matches 'repo:contoso/*:environment:prod' and claims['actor'] eq 'alice'")

	main, prod := "repo:contoso/shop:ref:refs/heads/main", "repo:contoso/shop:environment:prod"
	for _, c := range []struct {
		name, token string
		code        int
		says        []string // beginnings of lines, blanks made one
	}{
		{"the one of main", i.token(main, nil), 0,
			[]string{"CREDENTIAL HOLDS CLAIM PRESENTED OPERATOR WANTED", "main yes iss " + i.url + " eq", "main yes signature", "main yes sub " + main + " eq " + main, "main yes aud", "main yes time", "admitted by main: "}},
		{"one of the pattern", i.token(prod, map[string]any{"actor": "alice"}), 0,
			[]string{"prod yes sub " + prod + " matches repo:contoso/*:environment:prod", "prod yes actor alice eq alice", "main no sub", "admitted by prod: "}},
		{"another actor", i.token(prod, map[string]any{"actor": "mallory"}), 1,
			[]string{"prod no actor mallory eq alice", "prod yes sub", "refused: "}},
		{"a branch that begins the same", i.token(main+"-2", nil), 1, []string{"main no sub " + main + "-2 eq " + main, "refused: AADSTS700213"}},
		{"another audience", i.token(main, map[string]any{"aud": []string{"a", "b"}}), 1, []string{"main no aud", "main yes sub", "refused: "}},
		{"one that has ended", i.token(main, map[string]any{"exp": time.Now().Add(-time.Hour).Unix(), "iat": time.Now().Add(-2 * time.Hour).Unix()}), 1,
			[]string{"main no time", "refused: "}},
		{"somebody else's key", newIssuer(t).token(main, map[string]any{"iss": i.url}), 1, []string{"main no signature", "refused: "}},
		{"a subject with an escape sequence", i.token("repo:\x1b[2Jx", nil), 1, []string{`main no sub "repo:\x1b[2Jx" eq`}},
		{"no token", "nonsense", 1, []string{"refused: AADSTS50027"}},
	} {
		p := s.runWith(c.token+"\n", "federation", "test", "--identity", "build")
		if p.code() != c.code {
			t.Errorf("%s: exit code %d, want %d\n%s", c.name, p.code(), c.code, p.all())
		}
		var lines []string
		for line := range strings.Lines(p.out.String()) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		for _, want := range c.says {
			if !strings.Contains("\n"+strings.Join(lines, "\n"), "\n"+want) {
				t.Errorf("%s: does not say %q:\n%s", c.name, want, p.out.String())
			}
		}
		if strings.Contains(p.all(), "\x1b") || strings.Contains(p.all(), c.token[strings.LastIndexByte(c.token, '.')+1:]) {
			t.Errorf("%s: shows the token, or an escape sequence of it:\n%s", c.name, p.all())
		}
	}

	file := s.write("token.jwt", i.token(main, nil))
	var x tokens.Explanation
	if err := json.Unmarshal([]byte(s.must("federation", "test", "--identity", "build", "-o", "json", file)), &x); err != nil {
		t.Fatal(err)
	}
	if x.Verdict != tokens.Admitted || x.Credential != "main" || len(x.Credentials) != 2 {
		t.Errorf("as JSON: %+v", x)
	}
	s.refused([]string{"does not belong on a command line"}, "federation", "test", "--identity", "build", i.token(main, nil))
	s.refused([]string{"no such file"}, "federation", "test", "--identity", "build", file+"x")
}
