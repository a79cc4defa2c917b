package tokens_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/directory"
	"innate/jwt"
	"innate/store"
)

func TestTokensOfTheIssuersThatPeopleUseAreAdmitted(t *testing.T) {
	w := start(t)
	w.reach("127.0.0.1")
	r, application := w.register(directory.Registration{})
	identity := w.identity(group+"Microsoft.ManagedIdentity/userAssignedIdentities/Id1", true)
	ec := newKey(t)
	is := newIssuer(t, "", jwt.Key{ID: "rsa", Public: rsaKey().Public()}, jwt.Key{ID: "ec", Alg: jwt.ES256, Public: ec.Public()})

	rs := func(kid string, alg jwt.Alg, claims map[string]any) assertion {
		return assertion{rsaKey(), alg, map[string]any{"kid": kid}, claims}
	}
	for name, c := range map[string]struct {
		credential directory.FederatedCredential
		token      assertion
	}{
		"kubernetes": {
			directory.FederatedCredential{Subject: "system:serviceaccount:shop:orders"},
			rs("rsa", jwt.RS256, map[string]any{
				"aud": []string{"api://AzureADTokenExchange"}, "iss": is.url, "sub": "system:serviceaccount:shop:orders", "jti": "x",
				"iat": noon.Unix(), "nbf": noon.Unix(), "exp": noon.AddDate(1, 0, 0).Unix(), // some clusters' tokens are good for a year
				"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]string{"name": "orders", "uid": "u"}},
			}),
		},
		"kubernetes-with-more-audiences": {
			directory.FederatedCredential{Subject: "system:serviceaccount:shop:other"},
			rs("rsa", jwt.RS256, map[string]any{
				"aud": []string{"https://kubernetes.default.svc", "api://AzureADTokenExchange"}, "iss": is.url,
				"sub": "system:serviceaccount:shop:other", "exp": noon.Unix() + 3600,
			}),
		},
		"github": {
			directory.FederatedCredential{Matching: "claims['sub'] matches 'repo:contoso/*:environment:prod' and claims['repository_owner_id'] eq '42'"},
			rs("rsa", jwt.RS256, map[string]any{
				"aud": "api://AzureADTokenExchange", "iss": is.url, "sub": "repo:contoso/orders:environment:prod", "repository_owner_id": "42",
				"nbf": noon.Unix() - 600, "iat": noon.Unix(), "exp": noon.Unix() + 300,
			}),
		},
		"spiffe": {
			directory.FederatedCredential{Subject: "spiffe://example.org/ns/shop/sa/orders", Audience: "innate"},
			assertion{ec, jwt.ES256, map[string]any{"kid": "ec"}, map[string]any{
				"aud": []string{"innate"}, "iss": is.url, "sub": "spiffe://example.org/ns/shop/sa/orders", "exp": noon.Unix() + 300,
			}},
		},
		"ps256": {
			directory.FederatedCredential{Subject: "ps256"},
			rs("rsa", jwt.PS256, map[string]any{"aud": directory.FederatedAudience, "iss": is.url, "sub": "ps256", "exp": noon.Unix() + 300}),
		},
	} {
		for client, object := range map[innate.ClientID]directory.Object{r.Client: application, identity.Client: identity} {
			c.credential.Name, c.credential.Issuer = name, is.url
			w.federate(object.ID, c.credential)
			got := w.claims(w.assert(client, c.token.compact(t)))
			if got["oid"] != string(object.ID) || got["appidacr"] != "2" || got["xms_az_rid"] != nil {
				t.Errorf("%s: %v", name, got)
			}
			ev := w.last()
			for key, want := range map[string]any{
				"credential": "federated assertion", "key": name, "issuer": is.url, "subject": c.token.claims["sub"],
			} {
				if ev.Detail[key] != want {
					t.Errorf("%s: the record has %s %q, want %q", name, key, ev.Detail[key], want)
				}
			}
		}
	}
}

func TestAFederatedCredentialIsComparedExactly(t *testing.T) {
	s := startStranger(t)
	s.claims(s.present(s.token(nil)))
	upper := strings.ToUpper
	for name, c := range map[string]struct {
		claims map[string]any
		code   string
	}{
		"subject in another case":     {map[string]any{"sub": upper(subject)}, "700213"},
		"subject and a blank":         {map[string]any{"sub": subject + " "}, "700213"},
		"a blank and subject":         {map[string]any{"sub": " " + subject}, "700213"},
		"subject and a line":          {map[string]any{"sub": subject + "\n"}, "700213"},
		"subject and a NUL":           {map[string]any{"sub": subject + "\x00"}, "700213"},
		"subject's beginning":         {map[string]any{"sub": subject[:len(subject)-1]}, "700213"},
		"subject and more":            {map[string]any{"sub": subject + "2"}, "700213"},
		"a pattern for subject":       {map[string]any{"sub": "*"}, "700213"},
		"issuer with a slash":         {map[string]any{"iss": s.url + "/"}, "700211"},
		"issuer in another case":      {map[string]any{"iss": upper(s.url)}, "700211"},
		"issuer with a blank":         {map[string]any{"iss": s.url + " "}, "700211"},
		"issuer by another path":      {map[string]any{"iss": strings.Replace(s.url, "/oidc", "/x/../oidc", 1)}, "700211"},
		"issuer by another name":      {map[string]any{"iss": strings.Replace(s.url, "127.0.0.1", "localhost", 1)}, "700211"},
		"audience in another case":    {map[string]any{"aud": upper(directory.FederatedAudience)}, "700212"},
		"audience with a slash":       {map[string]any{"aud": directory.FederatedAudience + "/"}, "700212"},
		"audience with a blank":       {map[string]any{"aud": []string{"x", directory.FederatedAudience + " "}}, "700212"},
		"audience of our own clients": {map[string]any{"aud": login + tokenPath}, "700212"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.present(s.token(c.claims))
			a.t = t
			a.refused(401, "invalid_client", c.code)
		})
	}
}

func TestAPatternAdmitsWhatItSaysAndNoMore(t *testing.T) {
	s := startStranger(t)
	s.federate(s.object.ID, directory.FederatedCredential{Name: "pattern", Issuer: s.url,
		Matching: "claims['sub'] matches 'repo:contoso/*:ref:refs/heads/main' and claims['workflow'] eq 'Deploy' and claims['run'] eq '7'"})
	good := map[string]any{"sub": "repo:contoso/web:ref:refs/heads/main", "workflow": "Deploy", "run": 7}
	for _, c := range []struct {
		claims map[string]any
		code   string // none: admitted
	}{
		{nil, ""},
		{map[string]any{"sub": "repo:contoso/web/x:ref:refs/heads/main"}, "700213"}, // a star crosses no slash
		{map[string]any{"sub": "repo:contoso/web:x:ref:refs/heads/main"}, "700213"}, // and no colon
		{map[string]any{"sub": "repo:contoso2/web:ref:refs/heads/main"}, "700213"},
		{map[string]any{"workflow": "deploy"}, "70021"},
		{map[string]any{"workflow": []string{"Deploy"}}, "70021"}, // a list that has it is not it
		{map[string]any{"workflow": nil}, "70021"},
		{map[string]any{"run": 70}, "70021"},
		{map[string]any{"aud": "x"}, "700212"},
		{map[string]any{"aud": "x", "workflow": nil}, "700212"},
	} {
		claims := map[string]any{}
		for _, from := range []map[string]any{good, c.claims} {
			for k, v := range from {
				claims[k] = v
			}
		}
		a := s.present(s.token(claims))
		if c.code == "" {
			s.claims(a)
			continue
		}
		if a.refused(401, "invalid_client", c.code); t.Failed() {
			t.Fatalf("of %v", c.claims)
		}
	}
	// One that admits is enough, whatever stands beside it.
	s.federate(s.object.ID, directory.FederatedCredential{Name: "other-audience", Issuer: s.url, Audience: "x",
		Matching: "claims['sub'] eq '" + subject + "'"})
	s.claims(s.present(s.token(map[string]any{"aud": "x"})))
	s.claims(s.present(s.token(nil)))
}

// Two issuers that one client trusts may not speak for each other.
func TestAnIssuerSpeaksForItsOwnSubjectsAlone(t *testing.T) {
	s := startStranger(t)
	key := newKey(t)
	second := newIssuer(t, "", jwt.Key{ID: "k1", Alg: jwt.ES256, Public: key.Public()})
	s.federate(s.object.ID, directory.FederatedCredential{Name: "exact", Issuer: second.url, Subject: "a"})
	s.federate(s.object.ID, directory.FederatedCredential{Name: "pattern", Issuer: second.url, Matching: "claims['sub'] matches 'b*'"})
	for _, sub := range []string{"a", "bc"} {
		s.present(s.token(map[string]any{"sub": sub})).refused(401, "invalid_client", "700213")
		a := s.token(map[string]any{"sub": sub, "iss": second.url}) // signed by the first's key
		s.present(a).refused(401, "invalid_client", "700027")
		a.key = key
		s.claims(s.present(a))
	}
}

func TestADoubtfulFederatedAssertionGetsNoToken(t *testing.T) {
	s := startStranger(t)
	twin := newKey(t) // has the right kid
	with := func(header, claims map[string]any) assertion {
		a := s.token(claims)
		changed(a.header, header)
		return a
	}
	by := func(key crypto.Signer, alg jwt.Alg) assertion {
		a := s.token(nil)
		a.key, a.alg = key, alg
		return a
	}
	nameless := func(a assertion) assertion {
		a.header = nil
		return a
	}
	now := s.clock.read().Unix()
	for name, c := range map[string]struct {
		token  assertion
		status int
		oauth  string
		code   string
	}{
		"another key":          {by(twin, jwt.ES256), 401, "invalid_client", "700027"},
		"another kind of key":  {by(rsaKey(), jwt.RS256), 401, "invalid_client", "700027"},
		"a kid of nobody":      {with(map[string]any{"kid": "k2"}, nil), 401, "invalid_client", "700027"},
		"no kid, another key":  {nameless(by(twin, jwt.ES256)), 401, "invalid_client", "700027"},
		"crit":                 {with(map[string]any{"crit": []string{"exp"}}, nil), 400, "invalid_request", "50027"},
		"kid a number":         {with(map[string]any{"kid": 7}, nil), 400, "invalid_request", "50027"},
		"ended":                {s.token(map[string]any{"exp": now - 301}), 401, "invalid_client", "700024"},
		"not yet":              {s.token(map[string]any{"nbf": now + 301}), 401, "invalid_client", "700024"},
		"issued in the future": {s.token(map[string]any{"iat": now + 301}), 401, "invalid_client", "700024"},
		"no exp":               {s.token(map[string]any{"exp": nil}), 400, "invalid_request", "50027"},
		"Exp for exp":          {s.token(map[string]any{"exp": nil, "Exp": now + 60}), 400, "invalid_request", "50027"},
		"no sub":               {s.token(map[string]any{"sub": nil}), 400, "invalid_request", "50027"},
		"sub an array":         {s.token(map[string]any{"sub": []string{subject}}), 400, "invalid_request", "50027"},
		"iss an array":         {s.token(map[string]any{"iss": []string{s.url}}), 400, "invalid_request", "50027"},
		"no aud":               {s.token(map[string]any{"aud": nil}), 400, "invalid_request", "50027"},
		"aud of nothing":       {s.token(map[string]any{"aud": []string{}}), 400, "invalid_request", "50027"},
		"aud with a null":      {s.token(map[string]any{"aud": []any{directory.FederatedAudience, nil}}), 400, "invalid_request", "50027"},
		"aud an object":        {s.token(map[string]any{"aud": map[string]any{directory.FederatedAudience: 1}}), 400, "invalid_request", "50027"},
	} {
		t.Run(name, func(t *testing.T) {
			a := s.present(c.token)
			a.t = t
			a.refused(c.status, c.oauth, c.code)
		})
	}
	s.claims(s.present(s.token(nil)))
	s.claims(s.present(nameless(s.token(nil)))) // the issuer has one key, and need not name it
}

// handmade is a token of any header and claims, with a signature made by sign.
func handmade(header, claims string, sign func(signed []byte) []byte) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(header)) + "." + b64([]byte(claims))
	return signed + "." + b64(sign([]byte(signed)))
}

func TestNoOtherAlgorithmStandsInForTheKeys(t *testing.T) {
	w := start(t)
	w.reach("127.0.0.1")
	r, object := w.register(directory.Registration{})
	is := newIssuer(t, "", jwt.Key{ID: "ps", Alg: jwt.PS256, Public: rsaKey().Public()})
	w.federate(object.ID, directory.FederatedCredential{Issuer: is.url, Subject: "s"})
	claims := fmt.Sprintf(`{"iss":%q,"sub":"s","aud":"api://AzureADTokenExchange","exp":%d}`, is.url, noon.Unix()+60)
	pub, err := x509.MarshalPKIXPublicKey(rsaKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	hs := func(signed []byte) []byte {
		mac := hmac.New(sha256.New, pub)
		mac.Write(signed)
		return mac.Sum(nil)
	}
	rs := func(signed []byte) []byte {
		digest := sha256.Sum256(signed)
		sig, err := rsaKey().Sign(nil, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	nothing := func([]byte) []byte { return nil }
	w.assert(r.Client, handmade(`{"alg":"none","kid":"ps"}`, claims, nothing)).refused(400, "invalid_request", "50027")
	w.assert(r.Client, handmade(`{"alg":"HS256","kid":"ps"}`, claims, hs)).refused(400, "invalid_request", "50027")
	w.assert(r.Client, handmade(`{"alg":"RS512","kid":"ps"}`, claims, rs)).refused(400, "invalid_request", "50027")
	if n := is.asked(); n != 0 {
		t.Errorf("the issuer was asked %d times for tokens that cannot be read", n)
	}
	// The key is published for PS256 alone.
	w.assert(r.Client, handmade(`{"alg":"RS256","kid":"ps"}`, claims, rs)).refused(401, "invalid_client", "700027")
	w.assert(r.Client, handmade(`{"alg":"PS256","kid":"ps"}`, claims, rs)).refused(401, "invalid_client", "700027")
	w.assert(r.Client, handmade(`{"alg":"PS256","kid":"ps"}`, claims, nothing)).refused(401, "invalid_client", "700027")
	twice := strings.Replace(claims, `"sub":"s"`, `"sub":"x","sub":"s"`, 1)
	w.assert(r.Client, handmade(`{"alg":"RS256","kid":"ps"}`, twice, rs)).refused(400, "invalid_request", "50027")
	good := assertion{rsaKey(), jwt.PS256, map[string]any{"kid": "ps"}, map[string]any{
		"iss": is.url, "sub": "s", "aud": directory.FederatedAudience, "exp": noon.Unix() + 60}}
	w.claims(w.assert(r.Client, good.compact(t)))
}

func TestKeysThatATokenBringsAlongAreNotLookedAt(t *testing.T) {
	s := startStranger(t)
	trap := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked for, because a token's header says so", r.URL)
	}))
	defer trap.Close()
	twin := newKey(t)
	own, err := jwt.Key{ID: "k1", Alg: jwt.ES256, Public: twin.Public()}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	der := selfSigned(t, twin, noon.Add(-time.Hour), noon.Add(time.Hour))
	for name, more := range map[string]map[string]any{
		"jwk": {"jwk": rawJSON(own)}, "jku": {"jku": trap.URL + "/keys"}, "x5u": {"x5u": trap.URL + "/cert"},
		"x5c": {"x5c": []string{base64.StdEncoding.EncodeToString(der)}},
	} {
		a := s.token(nil)
		a.key = twin
		changed(a.header, more)
		if s.present(a).refused(401, "invalid_client", "700027"); t.Failed() {
			t.Fatal(name)
		}
		// They do no harm to a token that is good without them.
		a.key = s.key
		s.claims(s.present(a))
	}
}

type rawJSON []byte

func (r rawJSON) MarshalJSON() ([]byte, error) { return r, nil }

func TestOnlyIssuersThatTheClientTrustsAreAsked(t *testing.T) {
	s := startStranger(t)
	lonely := newIssuer(t, "", jwt.Key{ID: "k1", Alg: jwt.ES256, Public: s.key.Public()})
	other, object := s.register(directory.Registration{Name: "other"})
	s.federate(object.ID, directory.FederatedCredential{Issuer: lonely.url, Subject: subject})

	token := s.token(map[string]any{"iss": lonely.url})
	for range 3 {
		s.present(token).refused(401, "invalid_client", "700211")
	}
	s.assert("0f8fad5b-d9cb-469f-a165-70867728950e", token.compact(t)).refused(400, "unauthorized_client", "700016")
	if n := lonely.asked(); n != 0 {
		t.Errorf("an issuer that this client does not trust was asked %d times", n)
	}
	s.claims(s.assert(other.Client, token.compact(t)))
	for range 3 {
		s.claims(s.assert(other.Client, token.compact(t)))
	}
	if n := lonely.asked(); n != 2 {
		t.Errorf("%d requests for the keys of one issuer, want the document and the keys", n)
	}
	s.update(func(tx store.Tx) error {
		_, err := directory.DeleteFederated(tx, object.ID, "main")
		return err
	})
	s.assert(other.Client, token.compact(t)).refused(401, "invalid_client", "700211")
}

func TestAnIssuerInsideIsAskedOnlyWhenAllowedByName(t *testing.T) {
	s := startStranger(t)
	s.world.reach() // nothing is allowed now
	a := s.present(s.token(nil))
	a.refused(503, "temporarily_unavailable", "90033")
	if n := s.asked(); n != 0 {
		t.Errorf("the issuer on loopback was asked %d times", n)
	}
	s.world.reach("127.0.0.1")
	s.claims(s.present(s.token(nil)))
}

func TestAnIssuerMayBeDownForADay(t *testing.T) {
	s := startStranger(t)
	s.set(true)
	a := s.present(s.token(nil))
	a.refused(503, "temporarily_unavailable", "90033")
	if a.header.Get("Retry-After") != "5" || !strings.Contains(a.body, s.url) {
		t.Errorf("Retry-After %q, %s", a.header.Get("Retry-After"), a.body)
	}
	s.set(false)
	s.clock.move(5 * time.Second) // as it was told
	s.claims(s.present(s.token(nil)))

	s.set(true)
	for range 23 {
		s.clock.move(time.Hour)
		s.claims(s.present(s.token(nil)))
	}
	s.clock.move(2 * time.Hour)
	s.present(s.token(nil)).refused(503, "temporarily_unavailable", "90033")
}

func TestASystemAssignedIdentityTakesNoFederatedAssertion(t *testing.T) {
	s := startStranger(t)
	own := s.identity(app, false)
	a := s.assert(own.Client, s.token(nil).compact(t))
	a.refused(401, "invalid_client", "7000218")
	if !strings.Contains(a.body, "system-assigned") {
		t.Errorf("it does not say why: %s", a.body)
	}
}

func TestADisabledClientGetsNoTokenForAFederatedAssertion(t *testing.T) {
	s := startStranger(t)
	s.enable(s.object.ID, false)
	s.present(s.token(nil)).refused(400, "unauthorized_client", "7000112")
	s.enable(s.object.ID, true)
	s.claims(s.present(s.token(nil)))
	s.update(func(tx store.Tx) error { return s.world.directory.DeleteObject(tx, s.object.ID) })
	s.present(s.token(nil)).refused(400, "unauthorized_client", "700016")
}

func TestAnIdentityOfOursMayBeAnotherClient(t *testing.T) {
	w := start(t)
	w.reach() // it needs nobody else
	identity := w.identity(app, false)
	w.register(directory.Registration{Name: "exchange", IdentifierURIs: []string{directory.FederatedAudience}})
	r, object := w.register(directory.Registration{})
	w.federate(object.ID, directory.FederatedCredential{Issuer: login + "/" + tenant + "/", Subject: string(identity.ID)})

	cert := w.certificate(identity.ID, app, machine)
	token := w.present(cert, "grant_type=client_credentials", "client_id="+string(identity.Client), "scope="+directory.FederatedAudience+"/.default").member("access_token")
	if got := w.claims(w.assert(r.Client, token)); got["oid"] != string(object.ID) || got["xms_az_rid"] != nil {
		t.Errorf("claims %v", got)
	}
	elsewhere := w.present(cert, "grant_type=client_credentials", "client_id="+string(identity.Client), "scope="+vault+"/.default").member("access_token")
	w.assert(r.Client, elsewhere).refused(401, "invalid_client", "700212") // meant for another service

	w.enable(identity.ID, false)
	w.assert(r.Client, token).refused(401, "invalid_client", "700027")
}

func TestTheLogSaysWhatTheAnswerKeepsToItself(t *testing.T) {
	s := startStranger(t)
	s.federate(s.object.ID, directory.FederatedCredential{Name: "cluster", Issuer: s.url, Subject: "system:serviceaccount:shop:orders"})
	for _, c := range []struct {
		claims           map[string]any
		closest, differs string
	}{
		{map[string]any{"sub": "repo:contoso/orders:ref:refs/heads/dev"}, "main",
			"sub: has repo:contoso/orders:ref:refs/heads/dev, credential 'main' wants " + subject},
		{map[string]any{"sub": "system:serviceaccount:shop:web"}, "cluster",
			"sub: has system:serviceaccount:shop:web, credential 'cluster' wants system:serviceaccount:shop:orders"},
		{map[string]any{"aud": []string{"a", "b"}}, "main", "aud: has a, b, credential 'main' wants api://AzureADTokenExchange"},
		{map[string]any{"iss": s.url + "/"}, "main", "iss: has " + s.url + "/, credential 'main' wants " + s.url},
		{map[string]any{"sub": "x\x1b[2J", "aud": "y"}, "cluster",
			"sub: has x?[2J, credential 'cluster' wants system:serviceaccount:shop:orders; aud: has y, credential 'cluster' wants api://AzureADTokenExchange"},
	} {
		a := s.present(s.token(c.claims))
		ev := s.last()
		if ev.Allowed || ev.Trace != a.member("trace_id") || ev.Detail["closest"] != c.closest || ev.Detail["differs"] != c.differs {
			t.Errorf("%v: the record has %q %q\nwant %q %q", c.claims, ev.Detail["closest"], ev.Detail["differs"], c.closest, c.differs)
		}
		for _, registered := range []string{"cluster", "main", "heads/main", "shop:orders"} {
			if strings.Contains(a.body, registered) {
				t.Errorf("%v: the answer shows what is registered, %s: %s", c.claims, registered, a.body)
			}
		}
	}
	// Before the signature holds, neither does anything that was said.
	twin := s.token(map[string]any{"sub": "x"})
	twin.key = newKey(t)
	s.present(twin).refused(401, "invalid_client", "700027")
	for _, ev := range s.events() {
		if strings.Contains(fmt.Sprint(ev), twin.compact(t)[:60]) {
			t.Errorf("the log has the assertion: %+v", ev)
		}
	}
}

// A credential made through one server is known to every other at once, and its
// issuer is asked once for both looks.
func TestACredentialMadeElsewhereIsNotUnknown(t *testing.T) {
	w, key := start(t), newKey(t)
	is := newIssuer(t, "", jwt.Key{ID: "k1", Alg: jwt.ES256, Public: key.Public()})
	slow := w.lag()
	w.reach("127.0.0.1")
	slow.behind.Lock()
	r, object := w.register(directory.Registration{})
	w.federate(object.ID, directory.FederatedCredential{Issuer: is.url, Subject: subject})
	s := &stranger{world: w, issuer: is, clock: &clock{now: w.now}, key: key, client: r.Client}
	if a := s.present(s.token(nil)); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := is.asked(); n != 2 {
		t.Errorf("the issuer was asked %d times, want for its document and its keys", n)
	}
	slow.asked.Do(slow.behind.Unlock)
}

// What no state of the store can change is refused at once; what might be new
// is refused only after a look at the newest.
func TestOnlyARefusalThatMightBeStaleCatchesUpFirst(t *testing.T) {
	w := start(t)
	slow := w.lag()
	w.reach()
	slow.behind.Lock()
	const nobody = "0f8fad5b-d9cb-469f-a165-70867728950e"
	w.assert(nobody, "x").refused(400, "invalid_request", "50027")
	if slow.behind.TryLock() {
		t.Error("the store was asked about what is no JWT")
	}
	s := &stranger{issuer: &issuer{url: "https://example.org"}, clock: &clock{now: w.now}, key: newKey(t)}
	w.assert(nobody, s.token(nil).compact(t)).refused(400, "unauthorized_client", "700016")
	if !slow.behind.TryLock() {
		t.Error("a client was refused as unknown, and the store was not asked")
	}
	slow.behind.Unlock()
}
