package tokens_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"innate"
	"innate/ca"
	"innate/directory"
	"innate/jwt"
	"innate/store"
	"innate/store/file"
	"innate/tokens"
)

func TestASecretIsGoodOnlyWithinItsTimeForItsApplication(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	other, _ := w.application()
	later := w.secret(client, w.now.Add(48*time.Hour))
	ask := func(client innate.ClientID, secret string) answer {
		return w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(client), "client_secret="+secret, "scope="+vault+"/.default")
	}
	w.claims(ask(client, secret))
	ask(client, secret+"x").refused(401, "invalid_client", "7000215")
	ask(client, secret[:len(secret)-1]).refused(401, "invalid_client", "7000215")
	ask(client, later).refused(401, "invalid_client", "7000215") // not yet
	ask(other, secret).refused(401, "invalid_client", "7000215")
	ask("0f8fad5b-d9cb-469f-a165-70867728950e", secret).refused(400, "unauthorized_client", "700016")
	w.now = w.now.Add(24 * time.Hour)
	ask(client, secret).refused(401, "invalid_client", "7000222")
	for _, ev := range w.events() {
		if strings.Contains(fmt.Sprint(ev), secret[:20]) {
			t.Errorf("the audit log has the secret: %+v", ev)
		}
	}
}

func TestASecretMayComeByHTTPBasic(t *testing.T) {
	w := start(t)
	client, secret := w.application()
	ask := func(user, password string, form ...string) answer {
		r := request(tokenPath, append(form, "grant_type=client_credentials", "scope="+vault+"/.default")...)
		r.SetBasicAuth(user, password)
		return w.send(w.tokens.Handler(), r)
	}
	w.claims(ask(string(client), url.QueryEscape(secret)))
	w.claims(ask(string(client), secret, "client_id="+string(client)))

	a := ask(string(client), "wrong")
	a.refused(401, "invalid_client", "7000215")
	if got := a.header.Get("WWW-Authenticate"); got != `Basic realm="`+tenant+`"` {
		t.Errorf("WWW-Authenticate %q", got)
	}
	ask(string(client), secret, "client_secret="+secret).refused(400, "invalid_request", "9002313")
	ask(string(client), secret, "client_id=0f8fad5b-d9cb-469f-a165-70867728950e").refused(400, "invalid_request", "9002313")
	ask(string(client), "%zz").refused(400, "invalid_request", "9002313")
}

func TestADisabledApplicationGetsNoToken(t *testing.T) {
	w := start(t)
	r, object := w.register(directory.Registration{})
	secret := w.secret(r.Client, w.now)
	form := []string{"grant_type=client_credentials", "client_id=" + string(r.Client), "client_secret=" + secret, "scope=" + vault + "/.default"}
	w.claims(w.post(tokenPath, form...))

	w.enable(object.ID, false)
	w.post(tokenPath, form...).refused(400, "unauthorized_client", "7000112")
	w.enable(object.ID, true)
	w.claims(w.post(tokenPath, form...))
	w.update(func(tx store.Tx) error { return w.directory.DeleteObject(tx, object.ID) })
	w.post(tokenPath, form...).refused(400, "unauthorized_client", "700016")
}

func (w *world) enable(id innate.ObjectID, enabled bool) {
	w.t.Helper()
	if err := w.directory.SetEnabled(w.t.Context(), innate.Principal{Object: "admin"}, id, enabled); err != nil {
		w.t.Fatal(err)
	}
}

// A lagging engine is one whose commits reach its server only when it asks,
// once behind is locked.
type lagging struct {
	store.Engine
	behind *sync.Mutex
	asked  *sync.Once
}

func (l lagging) Follow(ctx context.Context, from store.Revision) iter.Seq2[[]store.Commit, error] {
	return func(yield func([]store.Commit, error) bool) {
		for c, err := range l.Engine.Follow(ctx, from) {
			l.behind.Lock()
			more := yield(c, err)
			l.behind.Unlock()
			if !more {
				return
			}
		}
	}
}

func (l lagging) Sync(ctx context.Context) (store.Revision, error) {
	defer l.asked.Do(l.behind.Unlock)
	return l.Engine.Sync(ctx)
}

// lag makes w write to a new store through one server, while its token service,
// once it is started again, reads that store through another, which lags.
func (w *world) lag() lagging {
	w.t.Helper()
	engine, err := file.Create(w.t.TempDir() + "/store")
	if err != nil {
		w.t.Fatal(err)
	}
	if w.db, err = store.Open(w.t.Context(), engine); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.db.Close() })
	slow := lagging{engine, new(sync.Mutex), new(sync.Once)}
	if w.config.DB, err = store.Open(w.t.Context(), slow); err != nil {
		w.t.Fatal(err)
	}
	if w.config.Directory, err = directory.New(directory.Config{
		DB: w.config.DB, Audit: w.log, Tenant: tenant, Graph: "https://graph.innate.test",
		MayEdit: func(context.Context, innate.Principal, string) error { return nil },
	}); err != nil {
		w.t.Fatal(err)
	}
	return slow
}

// An application created through one server is known to every other at once.
func TestWhatWasJustCreatedElsewhereIsNotUnknown(t *testing.T) {
	w := start(t)
	slow := w.lag()
	s, err := tokens.New(t.Context(), w.config)
	if err != nil {
		t.Fatal(err)
	}
	slow.behind.Lock()
	client, secret := w.application()
	a := w.send(s.Handler(), request(tokenPath, "grant_type=client_credentials", "client_id="+string(client),
		"client_secret="+secret, "scope="+vault+"/.default"))
	if a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	slow.asked.Do(slow.behind.Unlock)
}

// An assertion as clients make it, and what a test changes in it.
type assertion struct {
	key    crypto.Signer
	alg    jwt.Alg
	header map[string]any
	claims map[string]any
}

func (a assertion) compact(t testing.TB) string {
	t.Helper()
	s, err := jwt.NewSigner(a.key, a.alg, a.header)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := s.Sign(a.claims)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// assert asks for a token with an assertion.
func (w *world) assert(client innate.ClientID, compact string) answer {
	w.t.Helper()
	return w.post(tokenPath, assertionForm(client, compact)...)
}

func assertionForm(client innate.ClientID, compact string) []string {
	return []string{"grant_type=client_credentials", "client_id=" + string(client), "client_assertion=" + compact,
		"client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "scope=" + vault + "/.default"}
}

// valid is the claims of a good assertion.
func (w *world) valid(client innate.ClientID) map[string]any {
	return map[string]any{
		"aud": login + tokenPath, "iss": string(client), "sub": string(client), "jti": "1",
		"nbf": w.now.Unix(), "exp": w.now.Add(10 * time.Minute).Unix(),
	}
}

func TestEveryDialectOfAssertionIsUnderstood(t *testing.T) {
	w := start(t)
	r, object := w.register(directory.Registration{})
	der := w.certify(r.Client, rsaKey(), w.now.Add(-time.Hour), w.now.Add(time.Hour))
	ec := newKey(t)
	ecDER := w.certify(r.Client, ec, w.now.Add(-time.Hour), w.now.Add(time.Hour))
	s256, s1, ec256 := sha256.Sum256(der), sha1.Sum(der), sha256.Sum256(ecDER)
	chain := base64.StdEncoding.EncodeToString(der)

	for name, a := range map[string]assertion{
		"Go":                  {rsaKey(), jwt.PS256, map[string]any{"x5t#S256": base64.StdEncoding.EncodeToString(s256[:]), "x5c": []string{chain}}, nil},
		"Node":                {rsaKey(), jwt.PS256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(s256[:])}, nil},
		"padded base64url":    {rsaKey(), jwt.PS256, map[string]any{"x5t#S256": base64.URLEncoding.EncodeToString(s256[:])}, nil},
		".NET":                {rsaKey(), jwt.PS256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(s256[:]), "x5c": chain}, map[string]any{"nbf": fmt.Sprint(w.now.Unix()), "exp": fmt.Sprint(w.now.Unix() + 600)}},
		"Java":                {rsaKey(), jwt.RS256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(s256[:])}, nil},
		"Python":              {rsaKey(), jwt.RS256, map[string]any{"x5t": base64.RawURLEncoding.EncodeToString(s1[:])}, map[string]any{"iat": w.now.Unix()}},
		"padded SHA-1":        {rsaKey(), jwt.RS256, map[string]any{"x5t": base64.StdEncoding.EncodeToString(s1[:])}, nil},
		"ES256":               {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, nil},
		"array of one aud":    {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"aud": []string{login + tokenPath}}},
		"v1 token endpoint":   {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"aud": login + "/" + tenant + "/oauth2/token"}},
		"issuer, by domain":   {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"aud": login + "/INNATE.test/v2.0"}},
		"v1 issuer":           {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"aud": login + "/" + tenant + "/"}},
		"adfs":                {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"aud": login + "/adfs/oauth2/v2.0/token"}},
		"clock a bit ahead":   {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"nbf": w.now.Unix() + 299}},
		"clock a bit behind":  {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"nbf": w.now.Unix() - 600, "exp": w.now.Unix() - 299}},
		"neither nbf nor iat": {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"nbf": nil}},
		"upper-case id":       {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"iss": strings.ToUpper(string(r.Client)), "sub": strings.ToUpper(string(r.Client))}},
		"fraction of seconds": {ec, jwt.ES256, map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(ec256[:])}, map[string]any{"exp": float64(w.now.Unix()) + 0.5}},
	} {
		a.claims = changed(w.valid(r.Client), a.claims)
		compact := a.compact(t)
		got := w.claims(w.assert(r.Client, compact))
		if got["oid"] != string(object.ID) || got["appidacr"] != "2" {
			t.Errorf("%s: %v", name, got)
		}
		w.claims(w.assert(r.Client, compact)) // Node and Python send one again for other scopes
	}
	if ev := w.last(); ev.Detail["credential"] != "client assertion" || len(ev.Detail["key"]) != 64 {
		t.Errorf("event %+v", ev)
	}
}

// changed is claims with those of by; nil takes one out.
func changed(claims, by map[string]any) map[string]any {
	for name, value := range by {
		if value == nil {
			delete(claims, name)
		} else {
			claims[name] = value
		}
	}
	return claims
}

func TestADoubtfulAssertionGetsNoToken(t *testing.T) {
	w := start(t)
	r, _ := w.register(directory.Registration{})
	key, twin, stranger := newKey(t), newKey(t), newKey(t)
	named := func(der []byte) map[string]any {
		sum := sha256.Sum256(der)
		return map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}
	}
	header := named(w.certify(r.Client, key, w.now.Add(-time.Hour), w.now.Add(time.Hour)))
	ended := newKey(t)
	endedHeader := named(w.certify(r.Client, ended, w.now.Add(-2*time.Hour), w.now.Add(-time.Hour)))
	// The twin has the right subject, and brings its certificate along.
	twinDER := selfSigned(t, twin, w.now.Add(-time.Hour), w.now.Add(time.Hour))
	twinHeader := named(twinDER)
	twinHeader["x5c"] = []string{base64.StdEncoding.EncodeToString(twinDER)}
	other, _ := w.register(directory.Registration{Name: "other"})
	otherKey := newKey(t)
	otherHeader := named(w.certify(other.Client, otherKey, w.now.Add(-time.Hour), w.now.Add(time.Hour)))

	for name, c := range map[string]struct {
		key    *ecdsa.PrivateKey
		header map[string]any
		claims map[string]any
		status int
		oauth  string
		code   string
	}{
		"another key":             {stranger, header, nil, 401, "invalid_client", "700027"},
		"self-signed twin":        {twin, twinHeader, nil, 401, "invalid_client", "700027"},
		"certificate of another":  {otherKey, otherHeader, nil, 401, "invalid_client", "700027"},
		"no thumbprint":           {key, nil, nil, 401, "invalid_client", "700027"},
		"thumbprint not a string": {key, map[string]any{"x5t": 7}, nil, 401, "invalid_client", "700027"},
		"thumbprint cut short":    {key, map[string]any{"x5t#S256": "AAAA"}, nil, 401, "invalid_client", "700027"},
		"certificate has ended":   {ended, endedHeader, nil, 401, "invalid_client", "7000222"},
		"of it, by a stranger":    {stranger, endedHeader, nil, 401, "invalid_client", "700027"}, // who is not told that it is registered still
		"ended":                   {key, header, map[string]any{"nbf": w.now.Unix() - 900, "exp": w.now.Unix() - 301}, 401, "invalid_client", "700024"},
		"not yet":                 {key, header, map[string]any{"nbf": w.now.Unix() + 301}, 401, "invalid_client", "700024"},
		"longer than a day":       {key, header, map[string]any{"exp": w.now.Unix() + 86401}, 401, "invalid_client", "700024"},
		"longer, without nbf":     {key, header, map[string]any{"nbf": nil, "exp": w.now.Unix() + 86401}, 401, "invalid_client", "700024"},
		"no exp":                  {key, header, map[string]any{"exp": nil}, 400, "invalid_request", "50027"},
		"exp a word":              {key, header, map[string]any{"exp": "never"}, 400, "invalid_request", "50027"},
		"exp infinite":            {key, header, map[string]any{"exp": "1e999"}, 400, "invalid_request", "50027"},
		"exp far off":             {key, header, map[string]any{"exp": 1e30}, 400, "invalid_request", "50027"},
		"exp an object":           {key, header, map[string]any{"exp": map[string]any{}}, 400, "invalid_request", "50027"},
		"no aud":                  {key, header, map[string]any{"aud": nil}, 400, "invalid_request", "50027"},
		"two aud":                 {key, header, map[string]any{"aud": []string{login + tokenPath, "https://example.org"}}, 400, "invalid_request", "50027"},
		"aud of another service":  {key, header, map[string]any{"aud": "https://login.microsoftonline.com" + tokenPath}, 401, "invalid_client", "700023"},
		"aud of another tenant":   {key, header, map[string]any{"aud": login + "/common/oauth2/v2.0/token"}, 401, "invalid_client", "700023"},
		"iss of another":          {key, header, map[string]any{"iss": "https://token.actions.githubusercontent.com"}, 401, "invalid_client", "700211"},
		"no iss":                  {key, header, map[string]any{"iss": nil}, 400, "invalid_request", "50027"},
		"sub of another":          {key, header, map[string]any{"sub": string(other.Client)}, 400, "invalid_request", "700021"},
		"Sub for sub":             {key, header, map[string]any{"sub": nil, "Sub": string(r.Client)}, 400, "invalid_request", "50027"},
		"unknown crit":            {key, changed(map[string]any{"crit": []string{"x"}, "x": 1}, header), nil, 400, "invalid_request", "50027"},
	} {
		t.Run(name, func(t *testing.T) {
			a := w.assert(r.Client, assertion{c.key, jwt.ES256, c.header, changed(w.valid(r.Client), c.claims)}.compact(t))
			a.t = t
			a.refused(c.status, c.oauth, c.code)
		})
	}

	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(`{}`)) + "."
	for _, compact := range []string{none, "x", "a.b.c", strings.Repeat("x", 20000)} {
		w.assert(r.Client, compact).refused(400, "invalid_request", "50027")
	}
	good := assertion{key, jwt.ES256, header, w.valid(r.Client)}.compact(t)
	w.claims(w.assert(r.Client, good))
	w.assert(other.Client, good).refused(401, "invalid_client", "700211")
	w.post(tokenPath, "grant_type=client_credentials", "client_id="+string(r.Client), "client_assertion="+good, "scope="+vault+"/.default",
		"client_assertion_type=urn:ietf:params:oauth:client-assertion-type:saml2-bearer").refused(400, "invalid_request", "9002313")
	if ev := w.last(); strings.Contains(fmt.Sprint(ev), good[:40]) {
		t.Errorf("the audit log has the assertion: %+v", ev)
	}
}

func TestAnIdentityIsProvedByItsCertificateAlone(t *testing.T) {
	w := start(t)
	object := w.identity(app, false)
	other := w.identity(group+"Microsoft.Web/sites/App2", false)
	client := "client_id=" + string(object.Client)
	const grant, scope = "grant_type=client_credentials", "scope=" + vault + "/.default"
	cert := w.certificate(object.ID, app, machine)
	w.claims(w.present(cert, grant, client, scope))

	uris := ca.IdentityURIs(domain, object.ID, app, machine)
	foreign := func() *x509.Certificate { // right names, other authority
		v := start(t)
		return v.unheld(ca.Identities, uris...)
	}()
	moved := w.unheld(ca.Identities, uris...)
	w.hold(directory.Key{ // the directory says another host than the certificate
		Thumbprint: ca.Thumbprint(moved.Raw), Principal: object.ID, Hosting: app, Host: machine + "2", NotAfter: moved.NotAfter,
	})
	swapped := w.unheld(ca.Identities, uris...)
	w.hold(directory.Key{Thumbprint: ca.Thumbprint(swapped.Raw), Principal: other.ID, Hosting: app, Host: machine, NotAfter: swapped.NotAfter})
	host := w.unheld(ca.Hosts, ca.HostURI(domain, machine))
	w.hold(directory.Key{Thumbprint: ca.Thumbprint(host.Raw), Principal: object.ID, Hosting: app, Host: machine, NotAfter: host.NotAfter})
	selfMade, err := x509.ParseCertificate(selfSigned(t, newKey(t), w.now, w.now.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	for name, cert := range map[string]*x509.Certificate{
		"of another authority": foreign, "not held": w.unheld(ca.Identities, uris...), "self-signed": selfMade,
		"held for another host": moved, "held by another": swapped, "of a host": host,
	} {
		t.Run(name, func(t *testing.T) {
			a := w.present(cert, grant, client, scope)
			a.t = t
			a.refused(401, "invalid_client", "700027")
		})
	}
	w.present(nil, grant, client, scope).refused(401, "invalid_client", "7000218")
	w.present(nil, grant, client, scope, "client_secret=x").refused(401, "invalid_client", "7000218")
	w.present(cert, grant, client, scope, "client_secret=x").refused(400, "invalid_request", "9002313")
	w.present(cert, grant, "client_id="+string(other.Client), scope).refused(401, "invalid_client", "700027")
	w.present(cert, grant, scope).refused(400, "invalid_request", "900144")
	w.present(cert, grant, client, scope, "assurance=certain").refused(400, "invalid_request", "9002313")
	// LOGIN asks for no certificate, and takes none.
	r := request(tokenPath, grant, client, scope)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	w.send(w.tokens.Handler(), r).refused(401, "invalid_client", "7000218")
	w.post(tokenPath, grant, client, scope, "client_secret=x").refused(401, "invalid_client", "7000218")
}

func TestACertificateEndsWithItsTimeItsHolderAndItsIdentity(t *testing.T) {
	form := func(o directory.Object) []string {
		return []string{"grant_type=client_credentials", "client_id=" + string(o.Client), "scope=" + vault + "/.default"}
	}
	for name, c := range map[string]struct {
		end    func(w *world, o directory.Object)
		status int
		oauth  string
		code   string
	}{
		"expired":           {func(w *world, o directory.Object) { w.now = w.now.Add(25 * time.Hour) }, 401, "invalid_client", "700027"},
		"clock turned back": {func(w *world, o directory.Object) { w.now = w.now.Add(-time.Hour) }, 401, "invalid_client", "700027"},
		"key dropped": {func(w *world, o directory.Object) {
			w.update(func(tx store.Tx) error { return directory.DropKeys(tx, o.ID, "", machine) })
		}, 401, "invalid_client", "700027"},
		"disabled": {func(w *world, o directory.Object) { w.enable(o.ID, false) }, 400, "unauthorized_client", "7000112"},
		"deleted": {func(w *world, o directory.Object) {
			w.update(func(tx store.Tx) error { return w.directory.DeleteObject(tx, o.ID) })
		}, 401, "invalid_client", "700027"},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			object := w.identity(app, false)
			cert := w.certificate(object.ID, app, machine)
			w.claims(w.present(cert, form(object)...)) // the certificate is remembered now
			c.end(w, object)
			w.present(cert, form(object)...).refused(c.status, c.oauth, c.code)
		})
	}
}

// The same over a real TLS connection: the client proves that it has the key.
func TestAnIdentityGetsATokenOverMutualTLS(t *testing.T) {
	w := start(t)
	object := w.identity(app, false)
	key := newKey(t)
	der, err := w.ca.Issue(ca.Identities, key.Public(), ca.Subject{
		URIs: ca.IdentityURIs(domain, object.ID, app, machine), Life: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.hold(directory.Key{Thumbprint: ca.Thumbprint(der), Principal: object.ID, Hosting: app, Host: machine, NotAfter: w.now.Add(time.Hour)})

	srv := httptest.NewUnstartedServer(w.tokens.MutualHandler())
	srv.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	srv.StartTLS()
	defer srv.Close()
	client := srv.Client()
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	resp, err := client.PostForm(srv.URL+tokenPath, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {string(object.Client)}, "scope": {vault + "/.default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %s", resp.Status)
	}
	if ev := w.last(); ev.Address != "127.0.0.1" || ev.Detail["key"] != hex.EncodeToString(sum(der)) {
		t.Errorf("event %+v", ev)
	}
}

func sum(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
