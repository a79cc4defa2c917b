package agent_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/agent"
	"innate/agent/launch"
	"innate/feed/client"
)

// The test binary is also the stub that starts apps, and an app.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "launch" {
		log.Fatal(launch.Main())
	}
	if len(os.Args) == 2 && os.Args[1] == "ask" {
		if err := askAsApp(); err != nil {
			log.Fatal(err)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		log.Fatal(serveAsApp())
	}
	os.Exit(m.Run())
}

const (
	tenant  = "72f988bf-86f1-41af-91ab-2d7cd011db47"
	prefix  = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/rg/providers/"
	machine = innate.ResourceID(prefix + "Microsoft.HybridCompute/machines/node-1")
	apiApp  = innate.ResourceID(prefix + "Microsoft.Web/sites/Api")
	webVM   = innate.ResourceID(prefix + "Microsoft.Compute/virtualMachines/web-1")
	vault   = "https://vault.azure.net"
)

// A plane is the wire that an agent sees of a control plane, and no more: this
// package may know none of the real one's. It answers as hosts.Handler and the
// v1 token endpoint say.
type plane struct {
	t      *testing.T
	server *httptest.Server
	ca     *x509.Certificate
	caKey  crypto.Signer

	joins        atomic.Int64 // asked for
	renewals     atomic.Int64 // of the host's certificate
	away         atomic.Bool  // it does not answer at all
	certificates atomic.Int64 // issued to identities
	documents    atomic.Int64 // certificates issued for VMs' documents
	logins       atomic.Int64 // certificates issued for log-ins at PostgreSQL servers
	noLogins     atomic.Bool  // the host may have none
	calls        atomic.Int64 // of the token endpoint
	mu           sync.Mutex
	token        http.HandlerFunc // what the token endpoint does
	events       []client.Event
	more         chan struct{} // closed when there are more events
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	p := &plane{t: t, more: make(chan struct{})}
	p.token = p.issue(time.Hour)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.caKey = key
	der := p.sign(key.Public(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	if p.ca, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := p.sign(leafKey.Public(), &x509.Certificate{
		DNSNames: []string{"hosts.innate.test"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", p.join)
	mux.HandleFunc("POST /v1/renew", p.renew)
	mux.HandleFunc("POST /v1/identities", p.identity)
	mux.HandleFunc("POST /v1/documents", p.document)
	mux.HandleFunc("POST /v1/logins", p.login)
	mux.HandleFunc("GET /v1/feed", p.feed)
	mux.HandleFunc("POST /"+tenant+"/oauth2/token", func(w http.ResponseWriter, r *http.Request) {
		p.calls.Add(1)
		p.mu.Lock()
		answer := p.token
		p.mu.Unlock()
		answer(w, r)
	})
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.away.Load() {
			panic(http.ErrAbortHandler)
		}
		mux.ServeHTTP(w, r)
	}))
	p.server.TLS = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf, p.ca.Raw}, PrivateKey: leafKey}},
		ClientAuth:   tls.RequestClientCert,
	}
	p.server.EnableHTTP2 = true
	p.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	p.server.StartTLS()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
	})
	return p
}

// sign issues a certificate; the first one is the authority's own.
func (p *plane) sign(pub crypto.PublicKey, c *x509.Certificate) []byte {
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-5*time.Minute), time.Now().Add(24*time.Hour)
	parent := p.ca
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, p.caKey)
	if err != nil {
		p.t.Error(err)
	}
	return der
}

// joinString leads to the plane; pin is the hash of the authority to trust there.
func (p *plane) joinString(pin [32]byte) string {
	return fmt.Sprintf("innate+join://s3cret@%s/?ca=sha256:%s&name=hosts.innate.test", p.server.Listener.Addr(), hex.EncodeToString(pin[:]))
}

func (p *plane) pin() [32]byte { return sha256.Sum256(p.ca.Raw) }

func (p *plane) certify(w http.ResponseWriter, r *http.Request, v any) []byte {
	var q struct {
		CSR []byte `json:"csr"`
	}
	b, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(b, &q); err != nil {
		p.t.Errorf("%s: %v", r.URL.Path, err)
	}
	if v != nil {
		if err := json.Unmarshal(b, v); err != nil {
			p.t.Errorf("%s: %v", r.URL.Path, err)
		}
	}
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil
	}
	return p.sign(csr.PublicKey, &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func (p *plane) join(w http.ResponseWriter, r *http.Request) {
	p.joins.Add(1)
	var q struct{ Token string }
	der := p.certify(w, r, &q)
	if q.Token != "s3cret" {
		refuse(w, http.StatusForbidden, "InvalidJoinToken")
		return
	}
	json.NewEncoder(w).Encode(map[string]any{
		"certificate": der, "machine": machine, "tenant": tenant, "domain": "innate.test",
		"ca":            string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw})),
		"tokenEndpoint": "https://hosts.innate.test/" + tenant + "/oauth2/token",
	})
}

func (p *plane) renew(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		refuse(w, http.StatusUnauthorized, "InvalidHostCertificate")
		return
	}
	if der := p.certify(w, r, nil); der != nil {
		json.NewEncoder(w).Encode(map[string]any{"certificate": der, "machine": machine})
		p.renewals.Add(1)
	}
}

func (p *plane) identity(w http.ResponseWriter, r *http.Request) {
	if len(r.TLS.PeerCertificates) == 0 {
		refuse(w, http.StatusUnauthorized, "InvalidHostCertificate")
		return
	}
	p.certificates.Add(1)
	json.NewEncoder(w).Encode(map[string]any{"certificate": p.certify(w, r, nil)})
}

func (p *plane) document(w http.ResponseWriter, r *http.Request) {
	var q struct{ Resource innate.ResourceID }
	der := p.certify(w, r, &q)
	if len(r.TLS.PeerCertificates) == 0 || !q.Resource.Equal(webVM) {
		refuse(w, http.StatusForbidden, "NotPlacedHere")
		return
	}
	p.documents.Add(1)
	json.NewEncoder(w).Encode(map[string]any{"certificate": der})
}

func (p *plane) login(w http.ResponseWriter, r *http.Request) {
	var q struct{ Resource, Server innate.ResourceID }
	der := p.certify(w, r, &q)
	if len(r.TLS.PeerCertificates) == 0 || q.Resource != apiApp || q.Server == "" || p.noLogins.Load() {
		refuse(w, http.StatusForbidden, "NotPlacedHere")
		return
	}
	p.logins.Add(1)
	json.NewEncoder(w).Encode(map[string]any{"certificate": der})
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": code, "message": "no"}})
}

// feed sends every event there was, then those that come.
func (p *plane) feed(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", client.ContentType)
	out := json.NewEncoder(w)
	out.Encode(client.Event{Reset: true})
	p.mu.Lock()
	events, more := p.events, p.more
	p.mu.Unlock()
	for sent, synced := 0, false; ; {
		for _, ev := range events[sent:] {
			out.Encode(ev)
		}
		if sent = len(events); !synced {
			out.Encode(client.Event{Revision: 1, Synced: true})
			synced = true
		}
		w.(http.Flusher).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
		p.mu.Lock()
		events, more = p.events, p.more
		p.mu.Unlock()
	}
}

// tell adds an event to the feed; a nil value means that the row is gone.
func (p *plane) tell(key string, value any) {
	ev := client.Event{Revision: 1, Key: key}
	if value != nil {
		ev.Value, _ = json.Marshal(value)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, ev)
	close(p.more)
	p.more = make(chan struct{})
}

func (p *plane) place(pl client.Placement) {
	pl.Type, pl.Name = pl.Resource.Type(), pl.Resource.Name()
	p.tell(row(pl.Resource), pl)
}

func row(id innate.ResourceID) string { return strings.TrimPrefix(id.Key(), "/") }

// answer replaces what the token endpoint does.
func (p *plane) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = h
}

// issue answers with a token that is the client id, the audience and a number.
func (p *plane) issue(life time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { p.issueAt(time.Now(), life)(w, r) }
}

func (p *plane) issueAt(now time.Time, life time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]string{
			"token_type": "Bearer", "resource": r.FormValue("resource"),
			"access_token": fmt.Sprintf("%s|%s|%s|%d", r.FormValue("client_id"), r.FormValue("resource"), r.FormValue("assurance"), p.calls.Load()),
			"expires_on":   strconv.FormatInt(now.Add(life).Unix(), 10), "not_before": strconv.FormatInt(now.Unix(), 10),
		})
	}
}

// no answers as the token service does when it refuses.
func no(status int, oauth string, code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{
			"error": oauth, "error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: t Correlation ID: c Timestamp: s", code, text),
			"error_codes": []int{code}, "trace_id": "t",
		})
	}
}

// leave makes the plane unreachable.
func (p *plane) leave() {
	p.away.Store(true)
	p.server.CloseClientConnections()
}

// A clock is a time that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// folder is a temporary folder with a short path, since sockets are in it, that others may pass through.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A running is an agent that runs until the test ends, or stop.
type running struct {
	*agent.Agent
	dir  string
	stop func() // and wait until it has
}

func (r running) socket() string { return filepath.Join(r.dir, "run", "agent.sock") }

// start joins the plane and runs an agent.
func (p *plane) start(change func(*agent.Config)) running {
	t := p.t
	t.Helper()
	return p.startIn(folder(t), change)
}

// startIn runs an agent with the folders of one before it, which has joined, or as start.
func (p *plane) startIn(dir string, change func(*agent.Config)) running {
	t := p.t
	t.Helper()
	c := agent.Config{
		State: filepath.Join(dir, "state"), Runtime: filepath.Join(dir, "run"), Dev: true,
		Cgroups: "innatetest-", UIDBase: 1_910_000_000, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&c)
	}
	if _, err := os.Stat(c.State); err != nil {
		if err := agent.Join(t.Context(), c.State, p.joinString(p.pin())); err != nil {
			t.Fatal(err)
		}
	}
	a, err := agent.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	end := sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the agent ended with: %v", err)
		}
	})
	t.Cleanup(end)
	listening := filepath.Join(c.Runtime, "agent.sock")
	eventually(t, "the agent listens", func() bool {
		_, err := os.Stat(listening)
		return err == nil || len(ended) > 0
	})
	if !p.away.Load() {
		select {
		case <-a.Ready():
		case err := <-ended:
			ended <- nil
			t.Fatalf("the agent ended with: %v", err)
		}
	}
	return running{a, dir, end}
}

func ident(n int, system bool) client.Identity {
	id := client.Identity{
		Object: innate.ObjectID(fmt.Sprintf("00000000-0000-0000-0000-0000000000%02d", n)),
		Client: innate.ClientID(fmt.Sprintf("11111111-0000-0000-0000-0000000000%02d", n)), System: system,
	}
	if !system {
		id.Resource = innate.ResourceID(fmt.Sprintf("%sMicrosoft.ManagedIdentity/userAssignedIdentities/id-%d", prefix, n))
	}
	return id
}

// eventually waits until ok, for what happens in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(5 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
