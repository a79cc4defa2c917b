package hosts_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/access"
	"innate/audit"
	"innate/bearer"
	"innate/ca"
	"innate/directory"
	"innate/feed"
	"innate/feed/client"
	"innate/hosts"
	"innate/resources"
	"innate/rest"
	"innate/seal"
	"innate/store"
	"innate/store/file"
)

const (
	tenant       = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	subscription = "0b1f6471-1bf0-4dda-aec3-cb9272f09590"
	group        = "/subscriptions/" + subscription + "/resourceGroups/rg"
	node1        = innate.ResourceID(group + "/providers/Microsoft.HybridCompute/machines/Node-1")
	node2        = innate.ResourceID(group + "/providers/Microsoft.HybridCompute/machines/node-2")
	web          = innate.ResourceID(group + "/providers/Microsoft.Compute/virtualMachines/Web")
	plan         = innate.ResourceID(group + "/providers/Microsoft.Web/serverfarms/plan")
	api          = innate.ResourceID(group + "/providers/Microsoft.Web/sites/api")
	shared       = innate.ResourceID(group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/shared")
)

// A world is the control plane around package hosts: the real thing, but for
// who is asking, which is put into the request.
type world struct {
	t         *testing.T
	db        *store.DB
	audit     *audit.Log
	auditPath string
	ca        *ca.Authorities
	directory *directory.Directory
	resources http.Handler
	hosts     hosts.Config
	server    *httptest.Server
	admin     innate.Principal
	ahead     atomic.Int64 // of the clock
}

func (w *world) now() time.Time          { return time.Now().Add(time.Duration(w.ahead.Load())) }
func (w *world) advance(d time.Duration) { w.ahead.Add(int64(d)) }

func newWorld(t *testing.T, change ...func(*hosts.Config)) *world {
	t.Helper()
	ctx, dir := context.Background(), t.TempDir()
	w := &world{t: t, auditPath: filepath.Join(dir, "audit.log")}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	master, err := seal.CreateMaster(filepath.Join(dir, "master.key"))
	w.must(err)
	engine, err := file.Create(filepath.Join(dir, "store"))
	w.must(err)
	w.db, err = store.Open(ctx, engine)
	w.must(err)
	w.audit, err = audit.Open(w.auditPath)
	w.must(err)
	w.ca, err = ca.Open(ctx, ca.Config{DB: w.db, Seal: master, Domain: "innate.test", Now: w.now})
	w.must(err)

	var (
		may *access.Access
		h   *hosts.Hosts
	)
	w.directory, err = directory.New(directory.Config{
		DB: w.db, Audit: w.audit, Tenant: tenant, Graph: "https://graph.innate.test", Now: w.now,
		MayEdit: func(ctx context.Context, who innate.Principal, action string) error {
			return may.Require(ctx, who, access.Control(action), innate.Root)
		},
		OnEnable: []func(store.Tx, directory.Object) error{func(tx store.Tx, o directory.Object) error { return h.Forget(tx, o) }},
	})
	w.must(err)
	may, err = access.New(access.Config{DB: w.db, Audit: w.audit, Directory: w.directory, Tenant: tenant, Now: w.now})
	w.must(err)
	config := hosts.Config{
		DB: w.db, Audit: w.audit, CA: w.ca, Directory: w.directory, Tenant: tenant, Domain: "innate.test",
		Mutual: "https://hosts.innate.test:8443", Address: "192.0.2.1:8443", Now: w.now, Log: log, Challenges: master,
		Require: func(ctx context.Context, who innate.Principal, action string, at innate.Scope) error {
			return may.Require(ctx, who, access.Control(action), at)
		},
	}
	for _, c := range change {
		c(&config)
	}
	w.hosts = config
	h, err = hosts.New(config)
	w.must(err)
	res, err := resources.New(resources.Config{
		DB: w.db, Audit: w.audit, Directory: w.directory, Access: may, Tenant: tenant,
		Endpoints: resources.Endpoints{
			Login: "https://login.innate.test", Management: "https://management.innate.test", Graph: "https://graph.innate.test",
			Portal: "https://portal.innate.test", VaultSuffix: "vault.innate.test", PostgresSuffix: "postgres.innate.test",
		},
		OnWrite:  []func(store.Tx, *resources.Resource, *resources.Resource) error{h.Placed},
		OnDelete: []func(store.Tx, *resources.Resource) error{h.Gone},
		Actions:  h.Actions(), Now: w.now,
	})
	w.must(err)
	w.resources = rest.Tidy(res.Handler())

	_, err = w.db.Update(ctx, func(tx store.Tx) error {
		admin, err := directory.CreateUser(tx, "admin", "admin@innate.test", w.now())
		if err != nil {
			return err
		}
		w.admin = innate.Principal{Tenant: tenant, Object: admin.ID, Name: admin.Name}
		if err := resources.CreateSubscription(tx, subscription, "test", w.now()); err != nil {
			return err
		}
		return access.Assign(tx, access.Assignment{ID: innate.NewGUID(), Scope: innate.Root, Role: access.Owner, Principal: admin.ID})
	})
	w.must(err)

	t.Cleanup(func() {
		w.db.Close()
		w.audit.Close()
	})
	w.serve(h)
	w.put(group, nil)
	for _, m := range []innate.ResourceID{node1, node2} {
		w.put(string(m), map[string]any{"identity": map[string]any{"type": "SystemAssigned"}})
	}
	return w
}

// serve makes h the server that hosts ask.
func (w *world) serve(h *hosts.Hosts) {
	server := httptest.NewUnstartedServer(rest.Tidy(h.Handler()))
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	w.server = server
	w.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// arm asks the resource manager as who.
func (w *world) arm(who innate.Principal, method, path string, in any, out any) int {
	w.t.Helper()
	body := []byte{}
	if in != nil {
		var err error
		body, err = json.Marshal(in)
		w.must(err)
	}
	r := httptest.NewRequest(method, path+"?api-version=2025-01-01", bytes.NewReader(body))
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	w.resources.ServeHTTP(rec, r.WithContext(bearer.With(r.Context(), who)))
	if out != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), out); err != nil {
			w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
	} else if rec.Code >= 400 && w.admin == who {
		w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
	}
	return rec.Code
}

func (w *world) put(path string, body map[string]any) {
	w.t.Helper()
	if body == nil {
		body = map[string]any{}
	}
	body["location"] = "local"
	w.arm(w.admin, http.MethodPut, path, body, nil)
}

func (w *world) delete(id innate.ResourceID) {
	w.t.Helper()
	w.arm(w.admin, http.MethodDelete, string(id), nil, nil)
}

// vm places the VM with an identity of its own and those shared.
func (w *world) vm(on innate.ResourceID, user ...innate.ResourceID) {
	w.t.Helper()
	block := map[string]any{"type": "SystemAssigned"}
	if len(user) > 0 {
		ids := map[string]any{}
		for _, id := range user {
			ids[string(id)] = map[string]any{}
		}
		block = map[string]any{"type": "SystemAssigned, UserAssigned", "userAssignedIdentities": ids}
	}
	w.put(string(web), map[string]any{"identity": block, "properties": map[string]any{"host": map[string]any{"id": on}}})
}

// own is a resource's system-assigned identity.
func (w *world) own(id innate.ResourceID) innate.ObjectID {
	w.t.Helper()
	var v struct {
		Identity   struct{ PrincipalID innate.ObjectID }
		Properties struct{ PrincipalID innate.ObjectID }
	}
	w.arm(w.admin, http.MethodGet, string(id), nil, &v)
	if v.Identity.PrincipalID == "" {
		return v.Properties.PrincipalID
	}
	return v.Identity.PrincipalID
}

// ticket makes a join token.
func (w *world) ticket(machine innate.ResourceID) *url.URL {
	w.t.Helper()
	var v struct{ Join string }
	if status := w.arm(w.admin, http.MethodPost, string(machine)+"/join", nil, &v); status != http.StatusOK {
		w.t.Fatalf("join: %d", status)
	}
	u, err := url.Parse(v.Join)
	w.must(err)
	return u
}

// A host is what the agent of a machine holds.
type host struct {
	w    *world
	cert *tls.Certificate // nil: none
}

// request makes a key and a CSR that asks for names nobody should get.
func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"hosts.innate.test"},
		URIs: []*url.URL{ca.HostURI("innate.test", node2)},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// An answer is a status and, where it is an error, its code and text.
type answer struct {
	status     int
	code, text string
}

// post asks the control plane as the host.
func (h *host) post(path string, in map[string]any, out any) answer {
	h.w.t.Helper()
	b, err := json.Marshal(in)
	h.w.must(err)
	resp, err := h.client().Post(h.w.server.URL+path, "application/json", bytes.NewReader(b))
	h.w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	h.w.must(err)
	return read(h.w.t, resp.StatusCode, body, out)
}

func read(t *testing.T, status int, body []byte, out any) answer {
	t.Helper()
	a := answer{status: status}
	if status == http.StatusOK {
		if err := json.Unmarshal(body, out); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		return a
	}
	var e struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	a.code, a.text = e.Error.Code, e.Error.Message
	return a
}

func (h *host) client() *http.Client {
	c := &tls.Config{InsecureSkipVerify: true} // the other side is this test
	if h.cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return h.cert, nil }
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
}

// join uses a join token; the host it returns has no certificate if it was refused.
func (w *world) join(token string) (*host, answer) {
	w.t.Helper()
	h := &host{w: w}
	key, csr := request(w.t)
	var g hosts.Grant
	a := h.post("/v1/join", map[string]any{"token": token, "csr": csr}, &g)
	if a.status == http.StatusOK {
		h.cert = &tls.Certificate{Certificate: [][]byte{g.Certificate}, PrivateKey: key}
	}
	return h, a
}

func (w *world) joined(machine innate.ResourceID) *host {
	w.t.Helper()
	h, a := w.join(w.ticket(machine).User.Username())
	if h.cert == nil {
		w.t.Fatalf("joining %s: %+v", machine, a)
	}
	return h
}

func (h *host) renew() (*host, answer) {
	h.w.t.Helper()
	key, csr := request(h.w.t)
	var g hosts.Grant
	a := h.post("/v1/renew", map[string]any{"csr": csr}, &g)
	return &host{h.w, &tls.Certificate{Certificate: [][]byte{g.Certificate}, PrivateKey: key}}, a
}

// certify asks for an identity's certificate.
func (h *host) certify(resource innate.ResourceID, id innate.ObjectID) (*x509.Certificate, answer) {
	h.w.t.Helper()
	_, csr := request(h.w.t)
	var v struct{ Certificate []byte }
	a := h.post("/v1/identities", map[string]any{"resource": resource, "identity": id, "csr": csr}, &v)
	if a.status != http.StatusOK {
		return nil, a
	}
	cert, err := x509.ParseCertificate(v.Certificate)
	h.w.must(err)
	return cert, a
}

// A reader hears a feed.
type reader struct {
	t     *testing.T
	body  io.ReadCloser
	lines *bufio.Scanner
	rows  map[string]json.RawMessage // what was told, by key
}

// feed begins to hear the host's feed and waits until the snapshot is whole.
func (h *host) feed() (*reader, answer) {
	h.w.t.Helper()
	resp, err := h.client().Get(h.w.server.URL + "/v1/feed")
	h.w.must(err)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		h.w.must(err)
		return nil, read(h.w.t, resp.StatusCode, b, nil)
	}
	r := &reader{t: h.w.t, body: resp.Body, lines: bufio.NewScanner(resp.Body), rows: map[string]json.RawMessage{}}
	h.w.t.Cleanup(func() { resp.Body.Close() })
	r.until("the snapshot is whole", func(ev client.Event) bool { return ev.Synced })
	return r, answer{status: http.StatusOK}
}

// until hears events until one is the one that is waited for.
func (r *reader) until(what string, ok func(client.Event) bool) {
	r.t.Helper()
	giveUp := time.AfterFunc(10*time.Second, func() { r.body.Close() })
	defer giveUp.Stop()
	for r.lines.Scan() {
		var ev client.Event
		if err := json.Unmarshal(r.lines.Bytes(), &ev); err != nil {
			r.t.Fatal(err)
		}
		if ev.Key != "" && ev.Value == nil {
			delete(r.rows, ev.Key)
		} else if ev.Key != "" {
			r.rows[ev.Key] = ev.Value
		}
		if ok(ev) {
			return
		}
	}
	r.t.Fatalf("the feed ended before %s: %v", what, r.lines.Err())
}

// ends waits for the server to end the feed.
func (r *reader) ends() {
	r.t.Helper()
	late := time.AfterFunc(10*time.Second, func() { r.t.Error("the feed did not end"); r.body.Close() })
	defer late.Stop()
	for r.lines.Scan() {
	}
}

// key is a resource's key in a feed.
func key(id innate.ResourceID) string { return strings.TrimPrefix(id.Key(), "/") }

func (r *reader) placement(id innate.ResourceID) (p client.Placement) {
	r.t.Helper()
	row, ok := r.rows[key(id)]
	if !ok {
		r.t.Fatalf("the host was not told of %s", id)
	}
	if err := json.Unmarshal(row, &p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

// refusals lists why requests of an action were refused, as recorded.
func (w *world) refusals(action string) (why []string) {
	w.t.Helper()
	for ev, err := range audit.Read(w.auditPath) {
		w.must(err)
		if ev.Action == action && !ev.Allowed {
			code, _, _ := strings.Cut(ev.Why, ":")
			why = append(why, code)
		}
	}
	return why
}

// revoked reports whether a token issued on a machine at a time is worthless.
func (w *world) revoked(machine innate.ResourceID, issued time.Time) bool {
	_, revoked := feed.Revocations(w.db).Revoked(client.Claim{Host: machine, IssuedAt: issued})
	return revoked
}

// rows yields the store's rows, key and value, under a prefix.
func (w *world) rows(prefix string) iter.Seq[string] {
	return func(yield func(string) bool) {
		w.must(w.db.View(context.Background(), func(r store.Reader) error {
			for k, v := range r.Scan(prefix, "") {
				if !yield(k + " " + string(v)) {
					break
				}
			}
			return nil
		}))
	}
}

func keys(m map[string]json.RawMessage) []string { return slices.Sorted(maps.Keys(m)) }
