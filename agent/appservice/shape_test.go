package appservice_test

import (
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"innate"
	"innate/agent/appservice"
	"innate/agent/caller"
	"innate/agent/endpoint/endpointtest"
)

// variable is one of an endpoint's variables.
func (e endpoint) variable(t testing.TB, name string) string {
	t.Helper()
	for _, v := range e.env(testSecret) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	t.Fatalf("%s is not in the environment", name)
	return ""
}

func TestTheEnvironmentIsThatOfOneShape(t *testing.T) {
	for shape, want := range map[appservice.Shape]string{
		// Both pairs, or SDKs take it for another product's (managed-identity-endpoints §0.10).
		appservice.AppService:    "IDENTITY_ENDPOINT=http://{}/msi/token IDENTITY_HEADER=s3 MSI_ENDPOINT=http://{}/msi/token MSI_SECRET=s3",
		appservice.ServiceFabric: "IDENTITY_ENDPOINT=https://{}/metadata/identity/oauth2/token IDENTITY_HEADER=s3 IDENTITY_SERVER_THUMBPRINT=<40> IDENTITY_API_VERSION=2019-07-01-preview",
		appservice.AzureML:       "MSI_ENDPOINT=http://{}/msi/token MSI_SECRET=s3 DEFAULT_IDENTITY_CLIENT_ID=" + system,
		appservice.Arc:           "IDENTITY_ENDPOINT=http://{}/metadata/identity/oauth2/token IMDS_ENDPOINT=http://{}",
	} {
		e := start(t, appservice.Config{Shape: shape, Client: system, Challenges: folder(t.TempDir())})
		got := strings.ReplaceAll(strings.Join(e.env("s3"), " "), e.addr.String(), "{}")
		if shape == appservice.ServiceFabric {
			got = strings.ReplaceAll(got, e.variable(t, "IDENTITY_SERVER_THUMBPRINT"), fmt.Sprintf("<%d>", len(e.variable(t, "IDENTITY_SERVER_THUMBPRINT"))))
		}
		if got != want {
			t.Errorf("%s: got %s\nwant %s", shape, got, want)
		}
	}
}

// words are what the transcripts of every shape may use.
func words(e endpoint) map[string]string {
	return map[string]string{"host": e.addr.String(), "secret": testSecret, "system": system, "user": user, "userid": string(userID)}
}

// anyOne answers as the agent does where a shape's clients name no identity.
func anyOne(which innate.Selector, resource string) (innate.Token, error) {
	if resource == "several" {
		return innate.Token{}, innate.ErrManyIdentities
	}
	if which == (innate.Selector{}) {
		which.System = true
	}
	return identities(which, resource)
}

func TestRequestsInServiceFabricsShape(t *testing.T) {
	e := start(t, appservice.Config{Shape: appservice.ServiceFabric, Tokens: tokenSource(anyOne)})
	endpointtest.Player{Dial: func() (net.Conn, error) { return pinned(e.addr, e.variable(t, "IDENTITY_SERVER_THUMBPRINT")) }, Words: words(e)}.
		Play(t, "testdata/servicefabric.txt")
}

// pinned connects as SDKs do: the thumbprint instead of a chain.
func pinned(addr net.Addr, thumbprint string) (net.Conn, error) {
	return tls.Dial("tcp", addr.String(), &tls.Config{InsecureSkipVerify: true, VerifyPeerCertificate: func(raw [][]byte, _ [][]*x509.Certificate) error {
		if sum := sha1.Sum(raw[0]); !strings.EqualFold(hex.EncodeToString(sum[:]), thumbprint) {
			return errors.New("another certificate")
		}
		return nil
	}})
}

func TestEachGenerationHasACertificateOfItsOwn(t *testing.T) {
	first, second := start(t, appservice.Config{Shape: appservice.ServiceFabric}), start(t, appservice.Config{Shape: appservice.ServiceFabric})
	c, err := pinned(second.addr, second.variable(t, "IDENTITY_SERVER_THUMBPRINT"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	leaf := c.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if err := errors.Join(leaf.VerifyHostname("127.0.0.1"), leaf.VerifyHostname("localhost")); err != nil || leaf.IsCA {
		t.Errorf("%v; an authority: %v", err, leaf.IsCA)
	}
	if c, err := pinned(second.addr, first.variable(t, "IDENTITY_SERVER_THUMBPRINT")); err == nil {
		c.Close()
		t.Error("one generation's thumbprint is another's too")
	}
}

// A stranger gets its refusal through TLS; an app's places are not taken by those who never finish a handshake.
func TestThePeerBehindTLSIsProvedToo(t *testing.T) {
	e := start(t, appservice.Config{
		Shape: appservice.ServiceFabric, Attestor: newDiag(t),
		Generation: appservice.Generation{UID: uint32(os.Getuid()) + 1, Proof: innate.UID},
	})
	c, err := pinned(e.addr, e.variable(t, "IDENTITY_SERVER_THUMBPRINT"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /metadata/identity/oauth2/token?api-version=2019-07-01-preview&resource=x HTTP/1.1\r\nHost: %s\r\nSecret: %s\r\n\r\n", e.addr, testSecret)
	answer, err := io.ReadAll(c) // ends, because the connection does
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 403 ") {
		t.Errorf("got %q, %v; want 403 and the end", answer, err)
	}
	for _, ev := range e.events(t) {
		if ev.Why == "right secret, wrong caller" && ev.Assurance == innate.Unproved {
			return
		}
	}
	t.Error("no alarm")
}

// A folder is a directory that the test's own user alone reads.
type folder string

func (f folder) Write(name string, content []byte) (bool, error) {
	return true, os.WriteFile(filepath.Join(string(f), name), content, 0o400)
}

func (f folder) Remove(name string) error { return os.Remove(filepath.Join(string(f), name)) }

// An arc is an endpoint of that shape, its directory, and a clock that moves.
type arc struct {
	endpoint
	dir   string
	later atomic.Int64 // how far the clock is ahead
}

func startArc(t testing.TB, c appservice.Config) *arc {
	t.Helper()
	a := &arc{dir: t.TempDir()}
	c.Shape, c.Challenges, c.Tokens = appservice.Arc, folder(a.dir), tokenSource(anyOne)
	c.Now = func() time.Time { return now.Add(time.Duration(a.later.Load())) }
	if c.Generation.UID == 0 { // root's files need no chown
		c.Generation.UID = uint32(os.Getuid())
	}
	a.endpoint = start(t, c)
	return a
}

// get asks with or without the content of a file.
func (a *arc) get(t testing.TB, secret string) *http.Response {
	t.Helper()
	req, err := http.NewRequest("GET", a.variable(t, "IDENTITY_ENDPOINT")+"?api-version=2020-06-01&resource=r1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	if secret != "" {
		req.Header.Set("Authorization", "Basic "+secret)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

// challenge makes the first request, checks what SDKs check of the file that is
// named, and returns its name on the host and what it has.
func (a *arc) challenge(t testing.TB) (file, secret string) {
	t.Helper()
	resp := a.get(t, "")
	realm, ok := strings.CutPrefix(resp.Header.Get("Www-Authenticate"), "Basic realm=")
	if resp.StatusCode != 401 || !ok {
		t.Fatalf("got %d, Www-Authenticate %q; want 401 and a realm", resp.StatusCode, resp.Header.Get("Www-Authenticate"))
	}
	if filepath.Dir(realm) != "/var/opt/azcmagent/tokens" || filepath.Ext(realm) != ".key" {
		t.Errorf("SDKs refuse the path %q", realm)
	}
	file = filepath.Join(a.dir, filepath.Base(realm))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o400 || len(b) > 4096 || len(b) < 43 || strings.TrimSpace(string(b)) != string(b) {
		t.Errorf("the file has mode %v and %d characters", info.Mode(), len(b))
	}
	return file, string(b)
}

func TestRequestsInArcsShape(t *testing.T) {
	a := startArc(t, appservice.Config{})
	challenge := func() string {
		_, secret := a.challenge(t)
		return secret
	}
	used := challenge()
	if got := a.get(t, used).StatusCode; got != 200 {
		t.Fatalf("status %d", got)
	}
	w := words(a.endpoint)
	w["used"] = used
	endpointtest.Player{
		Dial:  func() (net.Conn, error) { return net.Dial("tcp", a.addr.String()) },
		Words: w, Fresh: map[string]func() string{"challenge": challenge},
	}.Play(t, "testdata/arc.txt")
	for _, ev := range a.events(t) {
		if !ev.Allowed && strings.Contains(ev.Why, "Www-Authenticate") {
			t.Errorf("the first request of two is recorded as a refusal: %+v", ev)
		}
	}
}

func TestAChallengeEndsWithItsUseOrAfterAMinute(t *testing.T) {
	a := startArc(t, appservice.Config{})
	used, secret := a.challenge(t)
	if got := a.get(t, secret).StatusCode; got != 200 {
		t.Fatalf("in time: status %d", got)
	}
	if _, err := os.Stat(used); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after its use: %v, want no file", err)
	}
	late, secret := a.challenge(t)
	forgotten, _ := a.challenge(t)
	a.later.Add(int64(time.Minute))
	if got := a.get(t, secret).StatusCode; got != 401 {
		t.Errorf("after a minute: status %d, want 401", got)
	}
	a.challenge(t) // looks for what is over
	for _, file := range []string{late, forgotten} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after a minute: %v, want no file", err)
		}
	}
	left, _ := a.challenge(t)
	a.stop()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the end: %v, want no file", err)
	}
}

// A workload that asks and never reads fills no disk.
func TestChallengesThatNobodyTakesAreBounded(t *testing.T) {
	a := startArc(t, appservice.Config{})
	_, first := a.challenge(t)
	for range 63 {
		a.challenge(t)
	}
	resp := a.get(t, "")
	if resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "1" || resp.Header.Get("Www-Authenticate") != "" {
		t.Errorf("the 65th: got %d after %q, want 429 after 1", resp.StatusCode, resp.Header.Get("Retry-After"))
	}
	if got := a.get(t, first).StatusCode; got != 200 {
		t.Errorf("the first one then: status %d, want 200", got)
	}
	a.challenge(t)
}

func TestAStrangerMakesNoChallenge(t *testing.T) {
	a := startArc(t, appservice.Config{Attestor: newDiag(t), Generation: appservice.Generation{UID: uint32(os.Getuid()) + 1, Proof: innate.UID}})
	resp := a.get(t, "")
	if resp.StatusCode != 401 || resp.Header.Get("Www-Authenticate") != "" || !resp.Close {
		t.Errorf("got %d, Www-Authenticate %q, closed %v; want 401, none and the end", resp.StatusCode, resp.Header.Get("Www-Authenticate"), resp.Close)
	}
	files, err := os.ReadDir(a.dir)
	if err != nil || len(files) > 0 {
		t.Errorf("files %v, %v", files, err)
	}
}

// A turncoat is the app until it is told to be somebody else.
type turncoat struct {
	*caller.Diag
	uid atomic.Uint32
}

func (c *turncoat) Attest(conn *net.TCPConn) (caller.Facts, error) {
	f, err := c.Diag.Attest(conn)
	f.UID = c.uid.Load()
	return f, err
}

func TestWhoeverReadsAnothersChallengeIsRefusedAndRaisesTheAlarm(t *testing.T) {
	who := &turncoat{Diag: newDiag(t)}
	who.uid.Store(60001)
	a := startArc(t, appservice.Config{Attestor: who, Generation: appservice.Generation{UID: 60001, Proof: innate.UID}})
	file, secret := a.challenge(t)
	who.uid.Store(60002)
	if got := a.get(t, secret).StatusCode; got != 403 {
		t.Errorf("status %d, want 403", got)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("then: %v, want no file", err)
	}
	for _, ev := range a.events(t) {
		if ev.Why == "right secret, wrong caller" && ev.Detail["uid"] == "60002" {
			return
		}
	}
	t.Error("no alarm")
}

func TestAChallengeThatNobodyTakesIsRemovedAfterAMinute(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := appservice.NewChallenges(folder(dir), time.Now)
		file, err := s.Issue()
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(dir, filepath.Base(file))
		<-time.After(59 * time.Second)
		if _, err := os.Stat(file); err != nil {
			t.Errorf("after 59 seconds: %v", err)
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after 61 seconds: %v, want no file", err)
		}
		s.Close()
	})
}

func FuzzAuthorization(f *testing.F) {
	a := startArc(f, appservice.Config{})
	for _, s := range []string{"", "Basic", "Basic ", "basic x", "Basic  x", "Bearer x", "Basic x y", "Basic " + testSecret, "Basic é", strings.Repeat("Basic ", 100)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if strings.ContainsAny(header, "\r\n") || len(header) > 4096 {
			return // several headers, or too many
		}
		c, err := net.Dial("tcp", a.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(c, "GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=x HTTP/1.1\r\nHost: %s\r\nMetadata: true\r\nAuthorization: %s\r\n\r\n", a.addr, header)
		answer, err := io.ReadAll(c)
		status := strings.TrimPrefix(string(answer[:min(len(answer), len("HTTP/1.1 401"))]), "HTTP/1.1 ")
		if err != nil || status != "401" && status != "400" { // 400: net/http's own, of a header that is none
			t.Errorf("%q: %s, %v", header, answer, err)
		}
		if strings.Contains(string(answer), "Www-Authenticate") {
			t.Errorf("%q is taken for a first request: %s", header, answer)
		}
	})
}
