package appservice_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/caller"
	"innate/agent/endpoint/endpointtest"
	"innate/audit"
)

const (
	app        = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.Web/sites/api")
	userID     = innate.ResourceID("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u1")
	system     = "aaaaaaaa-0000-0000-0000-000000000001"
	user       = "bbbbbbbb-0000-0000-0000-00000000000f"
	testSecret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

var now = time.Unix(1790000000, 0)

// A tokenSource is where tokens come from in these tests.
type tokenSource func(innate.Selector, string) (innate.Token, error)

func (f tokenSource) Token(_ context.Context, workload innate.ResourceID, which innate.Selector, resource string, proof innate.Assurance) (innate.Token, error) {
	if workload != app {
		return innate.Token{}, fmt.Errorf("asked for a token of %s", workload)
	}
	return f(which, resource)
}

func (tokenSource) Refused(innate.ResourceID, [32]byte) {}

// identities answers for an app with a system-assigned and a user-assigned identity.
func identities(which innate.Selector, resource string) (innate.Token, error) {
	switch resource {
	case "no-system":
		return innate.Token{}, innate.ErrNoIdentity
	case "unknown-audience":
		return innate.Token{}, &innate.Refusal{Status: 400, OAuth: "invalid_resource", Code: 500011, Text: "the resource principal was not found"}
	case "bad-certificate":
		return innate.Token{}, &innate.Refusal{Status: 401, OAuth: "invalid_client", Code: 700027, Text: "the certificate is not registered"}
	case "too-weak":
		return innate.Token{}, &innate.Refusal{Status: 403, Text: "uid reached, cgroup+uid demanded"}
	case "not-found":
		return innate.Token{}, &innate.Refusal{Status: 404, Text: "tenant not found"}
	case "throttled":
		return innate.Token{}, &innate.Refusal{Status: 429, Text: "slow down", RetryAfter: time.Minute}
	case "away":
		return innate.Token{}, &innate.Refusal{Status: 503, Text: "the control plane is away"}
	case "broken":
		return innate.Token{}, errors.New("disk on fire")
	case "expired":
		return innate.Token{Value: "old", Client: system, Expires: now}, nil
	}
	id := innate.ClientID(system)
	switch {
	case which == innate.Selector{System: true}:
	case which.Client == user, which.Object == user, which.Resource.Equal(userID):
		id = user
	default:
		return innate.Token{}, innate.ErrNoIdentity
	}
	return innate.Token{Value: "token of " + string(id) + " for " + resource, Client: id, Object: innate.ObjectID(id),
		Resource: resource, NotBefore: now, Expires: now.Add(time.Hour)}, nil
}

// An endpoint under test.
type endpoint struct {
	addr  net.Addr
	audit string // path of its audit log
	env   func(secret string) []string
	stop  func()
}

// start serves a generation until the test ends. Fields of c that are empty get what the tests share.
func start(t testing.TB, c appservice.Config) endpoint {
	t.Helper()
	if c.Listener == nil {
		l, err := caller.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Listener = l
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	c.Generation.App, c.Generation.Number, c.Secret, c.Audit = app, 1, testSecret, log
	if c.Generation.Proof == innate.Unproved {
		c.Generation.Proof = innate.SecretOnly
	}
	if c.Tokens == nil {
		c.Tokens = tokenSource(identities)
	}
	if c.Now == nil {
		c.Now = func() time.Time { return now }
	}
	e, err := appservice.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := log.Close(); err != nil {
			t.Errorf("closing the audit log: %v", err)
		}
	}
	t.Cleanup(stop)
	return endpoint{c.Listener.Addr(), path, e.Environment, stop}
}

// events ends the endpoint and returns what it recorded.
func (e endpoint) events(t *testing.T) []audit.Event {
	t.Helper()
	e.stop()
	var events []audit.Event
	for ev, err := range audit.Read(e.audit) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, ev)
	}
	return events
}

func TestRequests(t *testing.T) {
	e := start(t, appservice.Config{})
	endpointtest.Play(t, "testdata/requests.txt", e.addr.String(), map[string]string{
		"host": e.addr.String(), "secret": testSecret, "system": system, "user": user, "USER": strings.ToUpper(user),
		"userid": string(userID), "useridquoted": strings.ReplaceAll(string(userID), "/", "%2F"),
	})
	b, err := os.ReadFile(e.audit)
	if err != nil {
		t.Fatal(err)
	}
	for _, never := range []string{testSecret, "token of"} {
		if strings.Contains(string(b), never) {
			t.Errorf("the audit log has %q", never)
		}
	}
}

// get asks once, on a connection of its own.
func get(t *testing.T, addr net.Addr, query, secret string) int {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr.String()+"/msi/token?api-version=2019-08-01&"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-IDENTITY-HEADER", secret)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestTheFirstUseAndEveryRefusalAreRecordedAndRepeatsCounted(t *testing.T) {
	e := start(t, appservice.Config{})
	for range 5 {
		if code := get(t, e.addr, "resource=r1", testSecret); code != 200 {
			t.Fatalf("status %d", code)
		}
	}
	if code := get(t, e.addr, "resource=r2", testSecret); code != 200 {
		t.Fatalf("status %d", code)
	}
	for range 3 {
		if code := get(t, e.addr, "resource=r1", "guess"); code != 401 {
			t.Fatalf("status %d", code)
		}
	}
	var got []string
	for _, ev := range e.events(t) {
		if ev.Action != "get-token" || ev.Hosting != string(app) || ev.Detail["generation"] != "1" {
			t.Errorf("event %+v does not say whose it is", ev)
		}
		got = append(got, fmt.Sprintf("%v %s %s %s", ev.Allowed, ev.Target, ev.Client, ev.Detail["repeats"]))
	}
	want := map[string]bool{
		"true r1 " + system + " ": true, "true r2 " + system + " ": true, "false   ": true, // at once
		"true r1 " + system + " 4": true, "false   2": true, // at the end
	}
	if len(got) != len(want) {
		t.Errorf("recorded %q, want %d events", got, len(want))
	}
	for _, g := range got {
		if !want[g] {
			t.Errorf("recorded %q, which is not among %v", g, want)
		}
	}
}

func TestAfterItsEndAnEndpointDoesNotAnswer(t *testing.T) {
	e := start(t, appservice.Config{})
	idle, err := net.Dial("tcp", e.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if code := get(t, e.addr, "resource=r1", testSecret); code != 200 {
		t.Fatalf("status %d", code)
	}
	e.stop()
	if c, err := net.Dial("tcp", e.addr.String()); err == nil {
		c.Close()
		t.Error("somebody still listens")
	}
	idle.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := idle.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an open connection: %v, want it closed", err)
	}
}

// Slow or idle clients hold their places only against their own kind.
func TestTooManyConnectionsAreClosedAndPlacesComeBack(t *testing.T) {
	e := start(t, appservice.Config{})
	var held []net.Conn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range 64 {
		c, err := net.Dial("tcp", e.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	over, err := net.Dial("tcp", e.addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	over.SetReadDeadline(time.Now().Add(4 * time.Second)) // sooner than the header timeout of the others
	if _, err := over.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("connection 65: %v, want it closed", err)
	}
	fmt.Fprintf(held[0], "GET /msi/token HTTP/1.1\r\nHost: x\r\n\r\n") // refused, and so closed
	drain(t, held[0])
	if code := get(t, e.addr, "resource=r1", testSecret); code != 200 {
		t.Errorf("after a place came back: status %d", code)
	}
}

func drain(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 4096)
	for {
		if _, err := c.Read(b); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection stays open")
			}
			return
		}
	}
}

func TestAnIncompleteConfigIsRefusedByName(t *testing.T) {
	l, err := caller.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d, err := caller.NewDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	good := appservice.Config{
		Generation: appservice.Generation{App: app, UID: 60001, Cgroup: 42, Proof: innate.CgroupUID},
		Listener:   l, Secret: testSecret, Attestor: d, Tokens: tokenSource(identities), Audit: log,
	}
	if _, err := appservice.New(good); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*appservice.Config){
		"App":      func(c *appservice.Config) { c.Generation.App = "" },
		"Listener": func(c *appservice.Config) { c.Listener = nil },
		"Secret":   func(c *appservice.Config) { c.Secret = "short" },
		"Tokens":   func(c *appservice.Config) { c.Tokens = nil },
		"Audit":    func(c *appservice.Config) { c.Audit = nil },
		"Proof":    func(c *appservice.Config) { c.Generation.Proof = innate.NetNS + 1 },
		"Attestor": func(c *appservice.Config) { c.Attestor = nil },
		"Cgroup":   func(c *appservice.Config) { c.Generation.Cgroup = 0 },
		"appservice, servicefabric, azureml or arc": func(c *appservice.Config) { c.Shape = "cloudshell" },
		"Challenges": func(c *appservice.Config) { c.Shape = appservice.Arc },
		"uid of its": func(c *appservice.Config) { c.Generation.UID = 0 },
	} {
		c := good
		spoil(&c)
		if _, err := appservice.New(c); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "short") {
			t.Errorf("without %s: %v", want, err)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, query := range []string{"", "api-version=2019-08-01&resource=x", "?resource=x", "resource=%zz", "a&b&&=&==", "client_id=x&client_id=y"} {
		f.Add("/msi/token", query, testSecret)
	}
	f.Add("//MSI//token//", "api-version=2017-09-01&resource=x&clientid="+user, "wrong")
	e := start(f, appservice.Config{})
	f.Fuzz(func(t *testing.T, path, query, secret string) {
		for _, s := range []string{path, query, secret} {
			if strings.ContainsAny(s, "\r\n") || len(s) > 4096 {
				return // several requests, or none
			}
		}
		c, err := net.Dial("tcp", e.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s?%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nX-Identity-Header: %s\r\n\r\n", path, query, e.addr, secret)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		head := make([]byte, len("HTTP/1.1 200"))
		if _, err := c.Read(head); err != nil {
			t.Fatalf("no answer to %q?%q: %v", path, query, err)
		}
		if strings.HasSuffix(string(head), " 200") && strings.Trim(secret, " \t") != testSecret {
			t.Errorf("a token for the secret %q", secret)
		}
	})
}
