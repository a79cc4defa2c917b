package tokens_test

import (
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"innate"
	"innate/audit"
	"innate/ca"
	"innate/directory"
	"innate/store"
)

// from sends a form from an address, host:port.
func (w *world) from(address string, form ...string) answer {
	w.t.Helper()
	r := request(tokenPath, form...)
	r.RemoteAddr = address
	return w.send(w.tokens.Handler(), r)
}

// asking is the form of a client that has a secret.
func asking(id innate.ClientID, secret string) []string {
	return []string{"grant_type=client_credentials", "client_id=" + string(id), "client_secret=" + secret, "scope=api://ec/.default"}
}

// api makes the API that the tests of throttling ask for: its tokens are quickly signed.
func (w *world) api() {
	w.t.Helper()
	w.register(directory.Registration{Name: "ec", IdentifierURIs: []string{"api://ec"}, SigningAlg: "ES256"})
}

// throttled checks that the answer is a 429, and returns for how long.
func (a answer) throttled() time.Duration {
	a.t.Helper()
	a.refused(http.StatusTooManyRequests, "invalid_request", "90055")
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || seconds < 1 || seconds > 20 {
		a.t.Errorf("Retry-After %q: want a small number of seconds", a.header.Get("Retry-After"))
	}
	return time.Duration(seconds) * time.Second
}

const (
	home      = "192.0.2.1:4711"
	neighbour = "192.0.2.1:4712" // behind the same address
	away      = "192.0.2.2:4711"
)

func TestFailuresAreCountedByClientAndByAddress(t *testing.T) {
	one := func(s string) func(int) string { return func(int) string { return s } }
	each := func(format string) func(int) string { return func(i int) string { return fmt.Sprintf(format, i) } }
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	const ids = "0f8fad5b-d9cb-469f-a165-%012x"
	for _, c := range []struct {
		name            string
		address, client func(i int) string
		pause           time.Duration // between two requests
		most            int           // that are let through at once; 0 means all
		wait            time.Duration
	}{
		{"one client", one(home), one(id), 0, 20, 2 * time.Second},
		{"one client on many ports", each("192.0.2.1:%d"), one(id), 0, 20, 2 * time.Second},
		{"one client in one IPv6 network", each("[2001:db8::%x]:1"), one(id), 0, 20, 2 * time.Second}, // a /64 is one customer's
		{"one client at many addresses", each("10.1.1.%d:1"), one(id), 0, 0, 0},
		{"one client as IPv4 and as IPv4 in IPv6", func(i int) string { return []string{home, "[::ffff:192.0.2.1]:1"}[i%2] }, one(id), 0, 20, 2 * time.Second},
		{"one client at a bearable rate", one(home), one(id), 2 * time.Second, 0, 0},
		{"many clients at an address", one(home), each(ids), 0, 200, time.Second},
		{"many clients in one IPv6 network", each("[2001:db8::%x]:1"), each(ids), 0, 200, time.Second},
		{"many clients in many IPv6 networks", each("[2001:db8:0:%x::1]:1"), each(ids), 0, 0, 0},
		{"no client", one(home), one(""), 0, 200, time.Second},
		{"no GUID", one(home), each("nobody%d"), 0, 200, time.Second},
		{"no address", one("@"), each(ids), 0, 200, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t)
			for i := range 250 {
				a := w.from(c.address(i), asking(innate.ClientID(c.client(i)), "x")...)
				if c.most > 0 && i >= c.most {
					if wait := a.throttled(); wait != c.wait {
						t.Fatalf("request %d: wait %s, want %s", i, wait, c.wait)
					}
				} else if a.status == http.StatusTooManyRequests {
					t.Fatalf("request %d is throttled", i)
				}
				w.now = w.now.Add(c.pause)
			}
		})
	}
}

func TestAThrottledClientIsServedAfterRetryAfter(t *testing.T) {
	w := start(t)
	w.api()
	id, secret := w.application()
	other, otherSecret := w.application()
	for range 20 {
		w.from(home, asking(id, "wrong")...).refused(401, "invalid_client", "7000215")
	}
	w.now = w.now.Add(700 * time.Millisecond)
	before := len(w.events())
	w.from(home, asking(id, "wrong")...).throttled()
	wait := w.from(home, asking(id, secret)...).throttled() // no proof is looked at
	if got := len(w.events()) - before; got != 1 {
		t.Errorf("two throttled requests left %d events, want the one that says it begins", got)
	}
	w.claims(w.from(home, asking(other, otherSecret)...))
	w.claims(w.from(away, asking(id, secret)...))
	w.now = w.now.Add(wait)
	w.claims(w.from(home, asking(id, secret)...))
}

func TestAClientThatSucceededIsNotHurtByItsNeighbours(t *testing.T) {
	w := start(t)
	w.api()
	id, secret := w.application()
	w.claims(w.from(home, asking(id, secret)...))
	for i := range 10_000 {
		if i%2 == 0 {
			w.from(neighbour, asking(innate.ClientID(innate.NewGUID()), "x")...)
		} else {
			w.from(neighbour, asking(id, "x")...) // under its very name
		}
	}
	w.from(neighbour, asking(id, "x")...).throttled()
	w.from(neighbour, "grant_type=client_credentials").throttled()
	if n := len(w.events()); n > 300 {
		t.Errorf("a flood left %d events", n)
	}
	w.claims(w.from(home, asking(id, secret)...))

	stranger, strangers := w.application()
	w.from(home, asking(stranger, strangers)...).throttled() // nothing tells it from the flood
	w.now = w.now.Add(time.Second)
	w.claims(w.from(home, asking(stranger, strangers)...))
}

// The longest of tokens is good for a day, and who keeps it asks no sooner for the next.
func TestASuccessIsRememberedForADayAndAnHour(t *testing.T) {
	for after, served := range map[time.Duration]bool{25*time.Hour - time.Second: true, 25 * time.Hour: false} {
		w := start(t)
		w.api()
		id, secret := w.application()
		w.claims(w.from(home, asking(id, secret)...))
		secret = w.secret(id, w.now.Add(time.Hour)) // good for a day from then
		w.now = w.now.Add(after)
		for range 250 {
			w.from(neighbour, "grant_type=client_credentials")
		}
		if a := w.from(home, asking(id, secret)...); served {
			w.claims(a)
		} else {
			a.throttled()
		}
	}
}

func TestAClientGetsAThousandTokensAtOnceAndThenFiftyASecond(t *testing.T) {
	w := start(t)
	w.api()
	id, secret := w.application()
	got := func(n int) (tokens int) {
		for range n {
			a := w.from(home, asking(id, secret)...)
			if a.status == http.StatusOK {
				tokens++
			} else if wait := a.throttled(); wait != time.Second {
				t.Fatalf("wait %s, want a second", wait)
			}
		}
		return tokens
	}
	if n := got(1100); n != 1000 {
		t.Errorf("%d tokens at once, want 1000", n)
	}
	w.now = w.now.Add(time.Second)
	if n := got(100); n != 50 {
		t.Errorf("%d tokens a second later, want 50", n)
	}
	w.claims(w.from(away, asking(id, secret)...))
}

func TestAnIdentitysCertificateIsNotCounted(t *testing.T) {
	w := start(t)
	w.api()
	object := w.identity(app, false)
	cert := w.certificate(object.ID, app, machine)
	present := func(cert *x509.Certificate, scope string) answer {
		r := request(tokenPath, "grant_type=client_credentials", "client_id="+string(object.Client), "scope="+scope)
		r.RemoteAddr = home
		return w.send(w.tokens.MutualHandler(), withCertificate(r, cert))
	}
	for range 300 {
		present(cert, "api://nobody/.default").refused(400, "invalid_resource", "500011")
	}
	for range 1100 {
		if a := present(cert, "api://ec/.default"); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}

	// Anybody can make a certificate that says so.
	twin, err := x509.ParseCertificate(selfSigned(t, newKey(t), noon.Add(-time.Hour), noon.Add(time.Hour)))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		present(twin, "api://ec/.default").refused(401, "invalid_client", "700027")
	}
	present(twin, "api://ec/.default").throttled()
	present(w.unheld(ca.Hosts, ca.HostURI(domain, machine)), "api://ec/.default").throttled() // nor one of ours for another purpose
	if a := present(cert, "api://ec/.default"); a.status != http.StatusOK {
		t.Errorf("beside a twin: %d %s", a.status, a.body)
	}
}

func TestAThrottlingIsRecordedWhenItBeginsAndOnceAMinute(t *testing.T) {
	w := start(t)
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	lines := func() (found []audit.Event) {
		for _, ev := range w.events() {
			if ev.Action == "throttle" {
				found = append(found, ev)
			}
		}
		return found
	}
	flood := func(n int) {
		for range n {
			w.from(home, asking(id, "x")...)
		}
	}
	flood(120)
	all := lines()
	if len(all) != 1 || all[0].Client != id || all[0].Address != "192.0.2.1" || all[0].Allowed || !strings.Contains(all[0].Why, "90055") {
		t.Fatalf("it begins: %+v", all)
	}
	w.now = w.now.Add(59 * time.Second)
	flood(1) // it waited: not throttled
	if n := len(lines()); n != 1 {
		t.Errorf("before a minute passed: %d lines", n)
	}
	w.now = w.now.Add(time.Second)
	w.from(away, "grant_type=client_credentials") // whoever asks next
	if all = lines(); len(all) != 2 || all[1].Detail["count"] != "99" || all[1].Client != id || all[1].Address != "192.0.2.1" {
		t.Errorf("a minute later: %+v", all)
	}
	w.now = w.now.Add(time.Minute)
	flood(1) // the minute had none: it is over
	if n := len(lines()); n != 2 {
		t.Errorf("over: %d lines", n)
	}
	flood(30)
	if n := len(lines()); n != 3 {
		t.Errorf("again: %d lines", n)
	}

	for range 300 {
		w.from("[2001:db8::1]:1", "grant_type=client_credentials")
	}
	if all = lines(); len(all) != 4 || all[3].Address != "2001:db8::/64" || all[3].Client != "" {
		t.Errorf("of an address: %+v", all[3:])
	}
}

func TestMemoryIsBoundedHoweverManyFail(t *testing.T) {
	w := start(t)
	handler := w.tokens.Handler()
	var next atomic.Uint32
	// fail asks from n addresses, many at a time: the audit log is written for all of them at once.
	fail := func(n int) {
		const atOnce = 250
		var all sync.WaitGroup
		for range atOnce {
			all.Go(func() {
				r := raw(tokenPath, "")
				r.Header.Del("Content-Type") // refused for that, again and again
				for range n / atOnce {
					i := next.Add(1)
					r.RemoteAddr = fmt.Sprintf("[2001:db9:%x:%x::1]:1", i>>16, i&0xffff)
					handler.ServeHTTP(httptest.NewRecorder(), r)
				}
			})
		}
		all.Wait()
	}
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for range 201 {
		w.from(home, "grant_type=client_credentials")
	}
	w.from(home, "grant_type=client_credentials").throttled()
	fail(33_000) // of which 1 << 15 are remembered
	if a := w.from(home, "grant_type=client_credentials"); a.status == http.StatusTooManyRequests {
		t.Error("whoever failed longest ago is not forgotten")
	}
	before := heap()
	fail(10_000)
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("another 10000 addresses take %d KiB", grown>>10)
	}
}

func TestManyAskAtOnce(t *testing.T) {
	w := start(t)
	w.api()
	id, secret := w.application()
	w.claims(w.from(home, asking(id, secret)...))
	handler := w.tokens.Handler()
	send := func(form []string) int {
		r := request(tokenPath, form...)
		r.RemoteAddr = home
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		return rec.Code
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				send(asking(innate.ClientID(innate.NewGUID()), "x"))
				send(asking(id, "x"))
				if code := send(asking(id, secret)); code != http.StatusOK {
					t.Errorf("got %d", code)
				}
			}
		})
	}
	all.Wait()
	recorded := 0
	for _, ev := range w.events() {
		if ev.Action == "issue-token" && !ev.Allowed {
			recorded++
		}
	}
	if recorded > 200 {
		t.Errorf("%d failures are recorded, want at most the limit of the address", recorded)
	}
}

// Anybody can name a key that an issuer does not publish, and the answer is to
// try again: the issuer may publish it yet.
func TestAskingForKeysThatNobodyHasIsCounted(t *testing.T) {
	s := startStranger(t)
	s.claims(s.present(s.token(nil)))
	for i := range 25 {
		s.clock.move(time.Millisecond)
		a := s.token(nil)
		a.header = map[string]any{"kid": fmt.Sprint("nobody's", i)}
		r := request(tokenPath, assertionForm(s.client, a.compact(t))...)
		r.RemoteAddr = home
		if a := s.send(s.world.tokens.Handler(), r); i >= 20 {
			a.throttled()
		} else if i >= 5 { // it was asked often enough for now
			a.refused(503, "temporarily_unavailable", "90033")
		}
	}
}

func TestACertificateThatIsNoLongerHeldIsCounted(t *testing.T) {
	w := start(t)
	object := w.identity(app, false)
	cert := w.certificate(object.ID, app, machine)
	w.update(func(tx store.Tx) error { return directory.DropKeys(tx, object.ID, "", machine) })
	for i := range 25 {
		r := request(tokenPath, "grant_type=client_credentials", "client_id="+string(object.Client), "scope="+vault+"/.default")
		r.RemoteAddr = home
		if a := w.send(w.tokens.MutualHandler(), withCertificate(r, cert)); i >= 20 {
			a.throttled()
		} else {
			a.refused(401, "invalid_client", "700027")
		}
	}
}

// Whoever is in front of us may say what it likes about where it comes from.
func TestNoHeaderAboutForwardingIsBelieved(t *testing.T) {
	w := start(t)
	for i := range 25 {
		r := request(tokenPath, asking("0f8fad5b-d9cb-469f-a165-70867728950e", "x")...)
		r.RemoteAddr = home
		for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "X-Azure-ClientIP", "Forwarded", "True-Client-Ip"} {
			r.Header.Set(name, fmt.Sprintf("198.51.100.%d", i))
		}
		if a := w.send(w.tokens.Handler(), r); i >= 20 {
			a.throttled()
		} else if ev := w.last(); ev.Address != "192.0.2.1" {
			t.Errorf("the record has the address %s", ev.Address)
		}
	}
}

// A client that is called by another spelling of its id, at another name of the
// token endpoint, is the same client.
func TestAClientIsCountedOnceUnderAllItsNames(t *testing.T) {
	w := start(t)
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	paths := []string{tokenPath, "/adfs/oauth2/v2.0/token", "/ADFS/oauth2/token", "/" + domain + "/oauth2/v2.0/token", "/" + strings.ToUpper(tenant) + "/oauth2/token"}
	for i := range 25 {
		client := []string{id, strings.ToUpper(id)}[i%2]
		r := request(paths[i%len(paths)], asking(innate.ClientID(client), "x")...)
		if i%3 == 0 { // by HTTP Basic
			r = request(paths[i%len(paths)], "grant_type=client_credentials", "scope="+vault+"/.default")
			r.SetBasicAuth(client, "x")
		}
		r.RemoteAddr = home
		if a := w.send(w.tokens.Handler(), r); i >= 20 {
			a.throttled()
		} else {
			a.refused(400, "unauthorized_client", "700016")
		}
	}
}
