package tokens_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/audit"
	"innate/ca"
	"innate/directory"
	"innate/jwt"
	"innate/seal"
	"innate/store"
	"innate/store/file"
	"innate/tokens"
)

const (
	tenant  = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	domain  = "innate.test"
	login   = "https://login.innate.test"
	mutual  = "https://hosts.innate.test"
	vault   = "https://vault.innate.test"
	group   = "/subscriptions/0f8fad5b-d9cb-469f-a165-70867728950e/resourceGroups/RG1/providers/"
	app     = innate.ResourceID(group + "Microsoft.Web/sites/App1")
	machine = innate.ResourceID(group + "Microsoft.HybridCompute/machines/M1")
)

// noon is when these tests take place, unless they move the clock.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// made is the state of a token service that was opened once, so that not every
// test waits for an RSA key.
var made = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "innate-tokens-test"); err != nil {
		return "", err
	}
	if _, err = seal.CreateMaster(filepath.Join(dir, "master.key")); err != nil {
		return dir, err
	}
	engine, err := file.Create(filepath.Join(dir, "store"))
	if err != nil {
		return dir, err
	}
	w, err := openWorld(context.Background(), dir, engine)
	if err != nil {
		return dir, err
	}
	return dir, w.close()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := made(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// A world is a token service over a real store, directory and audit log.
type world struct {
	t         testing.TB
	now       time.Time
	db        *store.DB
	log       *audit.Log
	dir       string
	ca        *ca.Authorities
	directory *directory.Directory
	tokens    *tokens.Service
	config    tokens.Config
}

func start(t testing.TB) *world {
	t.Helper()
	from, err := made()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"master.key", "store"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	engine, err := file.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := openWorld(context.Background(), dir, engine)
	if err != nil {
		t.Fatal(err)
	}
	w.t = t
	t.Cleanup(func() { w.close() })
	return w
}

func openWorld(ctx context.Context, dir string, engine store.Engine) (*world, error) {
	w := &world{now: noon, dir: dir}
	clock := func() time.Time { return w.now }
	master, err := seal.OpenMaster(filepath.Join(dir, "master.key"))
	if err != nil {
		return nil, err
	}
	if w.db, err = store.Open(ctx, engine); err != nil {
		return nil, err
	}
	if w.log, err = audit.Open(filepath.Join(dir, "audit.log")); err != nil {
		return nil, err
	}
	if w.ca, err = ca.Open(ctx, ca.Config{DB: w.db, Seal: master, Domain: domain, Now: clock}); err != nil {
		return nil, err
	}
	if w.directory, err = directory.New(directory.Config{
		DB: w.db, Audit: w.log, Tenant: tenant, Graph: "https://graph.innate.test", Now: clock,
		MayEdit:  func(context.Context, innate.Principal, string) error { return nil },
		OnDelete: []func(store.Tx, directory.Object) error{tokens.DeleteOf},
	}); err != nil {
		return nil, err
	}
	w.config = tokens.Config{
		DB: w.db, Audit: w.log, Seal: master, CA: w.ca, Directory: w.directory,
		Tenant: tenant, Domain: domain, Login: login, Mutual: mutual,
		Services: tokens.FirstParties("https://management.innate.test", "https://graph.innate.test", vault, domain),
		Now:      clock, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	w.tokens, err = tokens.New(ctx, w.config)
	return w, err
}

func (w *world) close() error {
	if err := w.db.Close(); err != nil {
		return err
	}
	return w.log.Close()
}

func (w *world) update(fn func(store.Tx) error) {
	w.t.Helper()
	if _, err := w.db.Update(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// register makes an app registration.
func (w *world) register(r directory.Registration) (made directory.Registration, object directory.Object) {
	w.t.Helper()
	if r.Name == "" {
		r.Name = "orders"
	}
	w.update(func(tx store.Tx) (err error) {
		made, object, err = directory.CreateRegistration(tx, r, w.now)
		return err
	})
	return made, object
}

// secret gives a registration a secret that is good for a day from start on.
func (w *world) secret(client innate.ClientID, start time.Time) (value string) {
	w.t.Helper()
	w.update(func(tx store.Tx) (err error) {
		_, value, err = directory.AddSecret(tx, client, "", start, start.Add(24*time.Hour))
		return err
	})
	return value
}

// application is a registration with a secret.
func (w *world) application() (innate.ClientID, string) {
	w.t.Helper()
	r, _ := w.register(directory.Registration{})
	return r.Client, w.secret(r.Client, w.now)
}

// certify gives a registration a self-signed certificate with key.
func (w *world) certify(client innate.ClientID, key crypto.Signer, from, to time.Time) (der []byte) {
	w.t.Helper()
	der = selfSigned(w.t, key, from, to)
	w.update(func(tx store.Tx) error {
		_, err := directory.AddCertificate(tx, client, der, "")
		return err
	})
	return der
}

func selfSigned(t testing.TB, key crypto.Signer, from, to time.Time) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "orders"}, NotBefore: from, NotAfter: to,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// identity makes a managed identity that lives with owner.
func (w *world) identity(owner innate.ResourceID, shared bool) (object directory.Object) {
	w.t.Helper()
	w.update(func(tx store.Tx) (err error) {
		object, err = directory.CreateIdentity(tx, owner.Name(), owner, shared, w.now)
		return err
	})
	return object
}

// certificate is that of an identity, hosted by hosting on host; the identity holds it.
func (w *world) certificate(id innate.ObjectID, hosting, host innate.ResourceID) *x509.Certificate {
	w.t.Helper()
	cert := w.unheld(ca.Identities, ca.IdentityURIs(domain, id, hosting, host)...)
	w.hold(directory.Key{
		Thumbprint: ca.Thumbprint(cert.Raw), Principal: id, Hosting: hosting, Host: host,
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter,
	})
	return cert
}

// unheld is a certificate of ours that the directory knows nothing of.
func (w *world) unheld(p ca.Purpose, uris ...*url.URL) *x509.Certificate {
	w.t.Helper()
	der, err := w.ca.Issue(p, newKey(w.t).Public(), ca.Subject{URIs: uris, Life: 24 * time.Hour})
	if err != nil {
		w.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}

func (w *world) hold(k directory.Key) {
	w.t.Helper()
	w.update(func(tx store.Tx) error { return directory.AddKey(tx, k, w.now) })
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// rsaKey is made once: it takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// An answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   string
}

const tokenPath = "/" + tenant + "/oauth2/v2.0/token"

// post sends a form, given as name=value, to LOGIN.
func (w *world) post(path string, form ...string) answer {
	w.t.Helper()
	return w.send(w.tokens.Handler(), request(path, form...))
}

// ask asks for a token for a resource, by secret.
func (w *world) ask(client innate.ClientID, secret, resource string, more ...string) answer {
	w.t.Helper()
	return w.post(tokenPath, append([]string{"grant_type=client_credentials", "client_id=" + string(client), "client_secret=" + secret,
		"scope=" + resource + "/.default"}, more...)...)
}

// present sends a form to the mutual endpoint on a connection with cert.
func (w *world) present(cert *x509.Certificate, form ...string) answer {
	w.t.Helper()
	return w.send(w.tokens.MutualHandler(), withCertificate(request(tokenPath, form...), cert))
}

// withCertificate is r on a connection with cert, or with none.
func withCertificate(r *http.Request, cert *x509.Certificate) *http.Request {
	r.TLS = &tls.ConnectionState{}
	if cert != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{cert}
	}
	return r
}

// peers counts those who asked.
var peers atomic.Uint32

func request(path string, form ...string) *http.Request {
	values := url.Values{}
	for _, f := range form {
		name, value, _ := strings.Cut(f, "=")
		values.Add(name, value)
	}
	return raw(path, values.Encode())
}

// raw is a request from a peer that has never asked before: what came from one
// address is throttled together.
func raw(path, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, login+path, strings.NewReader(body))
	r.RemoteAddr = fmt.Sprintf("[2001:db8:0:%x::1]:4711", peers.Add(1)&0xffff)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func (w *world) send(h http.Handler, r *http.Request) answer {
	w.t.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return answer{w.t, rec.Code, rec.Header(), rec.Body.String()}
}

// member is a member of the body, as a string whatever its type.
func (a answer) member(name string) string {
	a.t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		a.t.Fatalf("the body is no JSON object: %s", a.body)
	}
	return strings.Trim(string(m[name]), `"`)
}

// refused checks that the answer is a refusal with that status and AADSTS number.
func (a answer) refused(status int, oauth, code string) {
	a.t.Helper()
	if a.status != status || a.member("error") != oauth || a.member("error_codes") != "["+code+"]" {
		a.t.Errorf("got %d %s\nwant %d %s [%s]", a.status, a.body, status, oauth, code)
	}
	if strings.Contains(a.body, "access_token") {
		a.t.Errorf("a refusal with a token: %s", a.body)
	}
}

// claims are those of the token in the answer, verified with the published keys.
func (w *world) claims(a answer) map[string]any {
	w.t.Helper()
	if a.status != http.StatusOK {
		w.t.Fatalf("got %d %s, want a token", a.status, a.body)
	}
	token, err := jwt.Parse(a.member("access_token"), jwt.RS256, jwt.ES256)
	if err != nil {
		w.t.Fatal(err)
	}
	keys := w.send(w.tokens.Handler(), httptest.NewRequest(http.MethodGet, login+"/common/discovery/keys", nil))
	var set jwt.Set
	if err := json.Unmarshal([]byte(keys.body), &set); err != nil {
		w.t.Fatal(err)
	}
	for _, k := range set.Keys {
		if k.ID == token.KeyID && k.Alg == token.Alg {
			raw, err := token.Verify(k.Public)
			if err != nil {
				w.t.Fatal(err)
			}
			var claims map[string]any
			if err := json.Unmarshal(raw, &claims); err != nil {
				w.t.Fatal(err)
			}
			return claims
		}
	}
	w.t.Fatalf("no key %s for %s is published", token.KeyID, token.Alg)
	return nil
}

// header is that of the token in the answer.
func header(t testing.TB, a answer) (h map[string]any) {
	t.Helper()
	first, _, _ := strings.Cut(a.member("access_token"), ".")
	b, err := base64.RawURLEncoding.DecodeString(first)
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// events are what the audit log has.
func (w *world) events() (all []audit.Event) {
	w.t.Helper()
	for ev, err := range audit.Read(filepath.Join(w.dir, "audit.log")) {
		if err != nil {
			w.t.Fatal(err)
		}
		all = append(all, ev)
	}
	return all
}

// last is the newest event.
func (w *world) last() audit.Event {
	w.t.Helper()
	all := w.events()
	if len(all) == 0 {
		w.t.Fatal("nothing is in the audit log")
	}
	return all[len(all)-1]
}

// left is what changes of state have left for the audit log, in order.
func (w *world) left() (all []audit.Event) {
	w.t.Helper()
	if err := w.db.View(w.t.Context(), func(r store.Reader) error {
		for _, b := range r.Scan(audit.OutboxPrefix, "") {
			ev, err := audit.Drained(b)
			if err != nil {
				return err
			}
			all = append(all, ev)
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	return all
}
