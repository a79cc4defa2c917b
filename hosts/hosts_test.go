package hosts_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/ca"
	"innate/feed/client"
	"innate/hosts"
)

func TestAJoinStringNamesTheAddressAndTheAuthority(t *testing.T) {
	w := newWorld(t)
	u := w.ticket(node1)
	if u.Scheme != "innate+join" || u.Host != "192.0.2.1:8443" || u.Path != "/" {
		t.Errorf("got %s://…@%s%s", u.Scheme, u.Host, u.Path)
	}
	want := url.Values{"name": {"hosts.innate.test"}, "ca": {"sha256:" + ca.Thumbprint(w.ca.Certificate(ca.Servers).Raw)}}
	if d := cmp.Diff(want, u.Query()); d != "" {
		t.Error(d)
	}
}

func TestAJoinTokenOpensOnlyOnceAndOnlyWhileItMay(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(w *world, token string)
		text  string
	}{
		{"used", func(w *world, token string) { w.join(token) }, "good once"},
		{"late", func(w *world, _ string) { w.advance(16 * time.Minute) }, "ended at"},
		{"a newer one was made", func(w *world, _ string) { w.ticket(node1) }, "a newer one was made"},
		{"the machine was deleted", func(w *world, _ string) { w.delete(node1) }, "its machine was deleted"},
		{"the machine was evicted", func(w *world, _ string) { w.arm(w.admin, http.MethodPost, string(node1)+"/evict", nil, nil) }, "or evicted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			token := w.ticket(node1).User.Username()
			c.spoil(w, token)
			h, a := w.join(token)
			if h.cert != nil || a.status != http.StatusForbidden || a.code != "InvalidJoinToken" || !strings.Contains(a.text, c.text) {
				t.Errorf("got %+v, want 403 InvalidJoinToken with %q", a, c.text)
			}
			if d := cmp.Diff([]string{"InvalidJoinToken"}, w.refusals("join-host")); d != "" {
				t.Errorf("recorded: %s", d)
			}
		})
	}
}

func TestTheTokenItselfIsStoredNowhere(t *testing.T) {
	w := newWorld(t)
	token := w.ticket(node1).User.Username()
	for row := range w.rows("") {
		if strings.Contains(row, token) {
			t.Errorf("the store holds the token: %s", row)
		}
	}
	if h, a := w.join("AAAA" + token[4:]); h.cert != nil || a.status != http.StatusForbidden {
		t.Errorf("another token: got %+v", a)
	}
}

func TestAHostCertificateNamesTheMachineAndNothingOfTheRequest(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	cert, err := x509.ParseCertificate(h.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if machine, err := ca.ParseHostURI(cert); err != nil || !machine.Equal(node1) || len(cert.DNSNames) != 0 {
		t.Errorf("got %v %v %v, want %v alone", machine, cert.DNSNames, err, node1)
	}
	if life := cert.NotAfter.Sub(w.now()); life > 24*time.Hour {
		t.Errorf("good for %v, want at most a day", life)
	}
}

func TestOnlyWhoMayMakesJoinTokensAndEvicts(t *testing.T) {
	w := newWorld(t)
	nobody := innate.Principal{Tenant: tenant, Object: innate.ObjectID(innate.NewGUID()), Name: "nobody"}
	for _, action := range []string{"join", "evict", "status"} {
		var e struct{ Error struct{ Code string } }
		if status := w.arm(nobody, http.MethodPost, string(node1)+"/"+action, nil, &e); status != http.StatusForbidden || e.Error.Code != "AuthorizationFailed" {
			t.Errorf("%s: got %d %s, want 403", action, status, e.Error.Code)
		}
	}
}

func TestJoiningAgainEndsWhatTheMachineHeld(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	old := w.joined(node1)
	if _, a := old.certify(web, w.own(web)); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	w.joined(node1)
	if _, a := old.certify(web, w.own(web)); a.status != http.StatusUnauthorized {
		t.Errorf("the older certificate: got %+v, want 401", a)
	}
	if keys := w.directory.Keys(w.own(web)); len(keys) != 0 {
		t.Errorf("the identity still holds %+v", keys)
	}
}

func TestTheCertificateBeforeARenewalIsGoodUntilTheNext(t *testing.T) {
	w := newWorld(t)
	first := w.joined(node1)
	second, a := first.renew()
	if a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	lost, a := first.renew() // the answer before was lost
	if a.status != http.StatusOK {
		t.Fatalf("the renewal again: %+v", a)
	}
	if _, a := second.renew(); a.status != http.StatusUnauthorized {
		t.Errorf("the lost certificate: got %+v, want 401", a)
	}
	if _, a := lost.renew(); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	if _, a := first.feed(); a.status != http.StatusUnauthorized {
		t.Errorf("two renewals later: got %+v, want 401", a)
	}
}

func TestAnEndedCertificateRenewsItselfForThirtyDaysAndDoesNothingElse(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	w.advance(25 * time.Hour)
	if _, a := h.feed(); a.status != http.StatusUnauthorized {
		t.Errorf("its feed: got %+v, want 401", a)
	}
	if _, a := h.certify(node1, w.own(node1)); a.status != http.StatusUnauthorized {
		t.Errorf("an identity's certificate: got %+v, want 401", a)
	}
	w.advance(28 * 24 * time.Hour)
	next, a := h.renew()
	if a.status != http.StatusOK {
		t.Fatalf("after 29 days: %+v", a)
	}
	if _, a := next.feed(); a.status != http.StatusOK {
		t.Errorf("after the renewal: %+v", a)
	}
	w.advance(33 * 24 * time.Hour)
	if _, a := next.renew(); a.status != http.StatusUnauthorized || a.code != "InvalidHostCertificate" {
		t.Errorf("after 32 days: got %+v, want 401", a)
	}
}

func TestStrangersAreNoHosts(t *testing.T) {
	w := newWorld(t)
	w.joined(node1)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issued := func(p ca.Purpose) *tls.Certificate {
		t.Helper()
		der, err := w.ca.Issue(p, key.Public(), ca.Subject{CommonName: "x", URIs: []*url.URL{ca.HostURI("innate.test", node1)}, Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	self := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: w.now().Add(-time.Hour), NotAfter: w.now().Add(time.Hour),
		URIs: []*url.URL{ca.HostURI("innate.test", node1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, self, self, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, cert := range map[string]*tls.Certificate{
		"no certificate":                        nil,
		"one signed by itself":                  {Certificate: [][]byte{der}, PrivateKey: key},
		"an identity's":                         issued(ca.Identities),
		"a host's that is not the one it holds": issued(ca.Hosts),
	} {
		h := &host{w, cert}
		_, renewed := h.renew()
		_, certified := h.certify(node1, w.own(node1))
		_, heard := h.feed()
		for what, a := range map[string]answer{"renew": renewed, "identities": certified, "feed": heard} {
			if a.status != http.StatusUnauthorized || a.code != "InvalidHostCertificate" {
				t.Errorf("%s with %s: got %+v, want 401", what, name, a)
			}
		}
	}
}

func TestAHostGetsCertificatesForWhatIsPlacedOnItAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.put(string(shared), nil)
	w.vm(node1)
	one, two := w.joined(node1), w.joined(node2)
	id := w.own(web)

	cert, a := one.certify(innate.ResourceID(strings.ToUpper(string(web))), id)
	if a.status != http.StatusOK {
		t.Fatalf("placed here: %+v", a)
	}
	oid, hosting, machine, err := ca.ParseIdentityURIs(cert)
	if err != nil || oid != id || !hosting.Equal(web) || !machine.Equal(node1) {
		t.Errorf("the certificate names %v %v %v %v", oid, hosting, machine, err)
	}
	held, ok := w.directory.Holder(ca.Thumbprint(cert.Raw))
	if !ok || held.Principal != id || held.Hosting != web || held.Host != node1 {
		t.Errorf("the directory has %+v", held)
	}
	if _, a := one.certify(node1, w.own(node1)); a.status != http.StatusOK {
		t.Errorf("the machine's own identity: %+v", a)
	}

	for _, c := range []struct {
		name string
		h    *host
		on   innate.ResourceID
		id   innate.ObjectID
		code string
	}{
		{"placed on another host", two, web, id, "NotPlacedHere"},
		{"another machine's own", two, node1, w.own(node1), "NotPlacedHere"},
		{"not attached", one, web, w.own(shared), "IdentityNotAttached"},
		{"somebody else's, through a resource placed here", one, web, w.own(node2), "IdentityNotAttached"},
	} {
		if _, a := c.h.certify(c.on, c.id); a.status != http.StatusForbidden || a.code != c.code {
			t.Errorf("%s: got %+v, want 403 %s", c.name, a, c.code)
		}
	}
	if err := w.directory.SetEnabled(t.Context(), w.admin, id, false); err != nil {
		t.Fatal(err)
	}
	if _, a := one.certify(web, id); a.code != "IdentityDisabled" {
		t.Errorf("disabled: got %+v", a)
	}
	want := []string{"NotPlacedHere", "NotPlacedHere", "IdentityNotAttached", "IdentityNotAttached", "IdentityDisabled"}
	if d := cmp.Diff(want, w.refusals("issue-identity-certificate")); d != "" {
		t.Errorf("recorded: %s", d)
	}
}

func TestADetachedIdentityLosesItsCertificate(t *testing.T) {
	w := newWorld(t)
	w.put(string(shared), nil)
	w.vm(node1, shared)
	h := w.joined(node1)
	id := w.own(shared)
	if _, a := h.certify(web, id); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	r, _ := h.feed()
	if n := len(r.placement(web).Identities); n != 2 {
		t.Errorf("the host was told of %d identities, want 2", n)
	}
	w.vm(node1)
	if keys := w.directory.Keys(id); len(keys) != 0 {
		t.Errorf("it still holds %+v", keys)
	}
	r.until("the change", func(ev client.Event) bool { return ev.Key == key(web) })
	if n := len(r.placement(web).Identities); n != 1 {
		t.Errorf("the host was told of %d identities, want 1", n)
	}
	if _, a := h.certify(web, id); a.code != "IdentityNotAttached" {
		t.Errorf("got %+v", a)
	}
}

func TestAHostHearsOfWhatIsPlacedOnItAndNothingElse(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	one, _ := w.joined(node1).feed()
	two, _ := w.joined(node2).feed()
	if got := one.placement(web); got.Name != "Web" || got.VMID == "" || len(got.Identities) != 1 || !got.Identities[0].System {
		t.Errorf("told of %+v", got)
	}
	if d := cmp.Diff([]string{key(node2)}, keys(two.rows)); d != "" {
		t.Errorf("the other host was told of: %s", d)
	}

	w.vm(node2) // moves
	one.until("the VM leaves", func(ev client.Event) bool { return ev.Key == key(web) && ev.Value == nil })
	two.until("the VM comes", func(ev client.Event) bool { return ev.Key == key(web) && ev.Value != nil })
}

func TestAMovedVMLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	one, two := w.joined(node1), w.joined(node2)
	id := w.own(web)
	if _, a := one.certify(web, id); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	w.vm(node2)
	if keys := w.directory.Keys(id); len(keys) != 0 {
		t.Errorf("the old host still holds %+v", keys)
	}
	if _, a := one.certify(web, id); a.code != "NotPlacedHere" {
		t.Errorf("the old host: got %+v", a)
	}
	if _, a := two.certify(web, id); a.status != http.StatusOK {
		t.Errorf("the new host: got %+v", a)
	}
}

func TestASiteIsPlacedOnTheWorkersOfItsPlan(t *testing.T) {
	w := newWorld(t)
	workers := func(m ...innate.ResourceID) {
		w.put(string(plan), map[string]any{"properties": map[string]any{"workers": m}})
	}
	told := func() (on []innate.ResourceID) {
		t.Helper()
		for _, m := range []innate.ResourceID{node1, node2} {
			r, a := w.joined(m).feed()
			if a.status != http.StatusOK {
				t.Fatalf("%+v", a)
			}
			if _, ok := r.rows[key(api)]; ok {
				on = append(on, m)
			}
		}
		return on
	}
	workers(node1)
	w.put(string(api), map[string]any{
		"identity": map[string]any{"type": "SystemAssigned"}, "properties": map[string]any{"serverFarmId": plan, "runAs": []int{1000}},
	})
	for _, c := range []struct {
		name   string
		change func()
		want   []innate.ResourceID
	}{
		{"at first", func() {}, []innate.ResourceID{node1}},
		{"scaled out", func() { workers(node1, node2) }, []innate.ResourceID{node1, node2}},
		{"moved", func() { workers(node2) }, []innate.ResourceID{node2}},
		{"its machine deleted", func() { workers(node1, node2); w.delete(node2); w.put(string(node2), nil) }, []innate.ResourceID{node1}},
		{"deleted", func() { w.delete(api) }, nil},
	} {
		c.change()
		if d := cmp.Diff(c.want, told()); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestEvictionIsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	h := w.joined(node1)
	id := w.own(web)
	if _, a := h.certify(web, id); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	r, _ := h.feed()
	issued := w.now()
	w.arm(w.admin, http.MethodPost, string(node1)+"/evict", nil, nil)
	r.ends()
	if keys := w.directory.Keys(id); len(keys) != 0 {
		t.Errorf("an identity still holds %+v", keys)
	}
	if !w.revoked(node1, issued) || w.revoked(node2, issued) {
		t.Errorf("tokens of the evicted host revoked: %v, of another: %v", w.revoked(node1, issued), w.revoked(node2, issued))
	}
	_, renewed := h.renew()
	_, certified := h.certify(web, id)
	_, heard := h.feed()
	for what, a := range map[string]answer{"renew": renewed, "identities": certified, "feed": heard} {
		if a.status != http.StatusUnauthorized || !strings.Contains(a.text, "evicted") {
			t.Errorf("%s: got %+v, want 401", what, a)
		}
	}
	again := w.joined(node1)
	if _, a := again.certify(web, id); a.status != http.StatusOK {
		t.Errorf("after joining again: %+v", a)
	}
}

func TestADeletedMachineLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	h := w.joined(node1)
	if _, a := h.certify(web, w.own(web)); a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	r, _ := h.feed()
	w.delete(node1)
	r.ends()
	if _, a := h.renew(); a.status != http.StatusUnauthorized {
		t.Errorf("renew: got %+v, want 401", a)
	}
	if keys := w.directory.Keys(w.own(web)); len(keys) != 0 {
		t.Errorf("an identity still holds %+v", keys)
	}
	for row := range w.rows("hosts/") {
		if strings.Contains(row, node1.Key()) {
			t.Errorf("left: %s", row)
		}
	}
	w.put(string(node1), nil) // the same name, another machine
	if _, a := w.joined(node1).certify(web, w.own(web)); a.code != "NotPlacedHere" {
		t.Errorf("a machine made later by that name: got %+v", a)
	}
}

func TestHostsAreToldToForgetADisabledIdentity(t *testing.T) {
	w := newWorld(t)
	w.put(string(shared), nil)
	w.vm(node1, shared)
	r, _ := w.joined(node1).feed()
	for _, id := range []innate.ObjectID{w.own(web), w.own(shared)} {
		if err := w.directory.SetEnabled(t.Context(), w.admin, id, false); err != nil {
			t.Fatal(err)
		}
		r.until("the revocation", func(ev client.Event) bool { return ev.Key == "revoked/identity/"+string(id) })
	}
	other, _ := w.joined(node2).feed()
	if d := cmp.Diff([]string{key(node2)}, keys(other.rows)); d != "" {
		t.Errorf("a host without it was told: %s", d)
	}
}

func TestTheStatusOfAMachineShowsWhatItHolds(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	status := func() (st hosts.Status) {
		t.Helper()
		w.arm(w.admin, http.MethodPost, string(node1)+"/status", nil, &st)
		return st
	}
	if st := status(); st.Joined || len(st.Placements) != 2 {
		t.Errorf("before joining: %+v", st)
	}
	h := w.joined(node1)
	cert, _ := h.certify(web, w.own(web))
	st := status()
	if !st.Joined || st.Thumbprint != ca.Thumbprint(h.cert.Certificate[0]) || st.LastSeen.IsZero() {
		t.Errorf("after joining: %+v", st)
	}
	want := hosts.PlacementStatus{Resource: web, Identities: []hosts.IdentityStatus{
		{Object: w.own(web), Thumbprint: ca.Thumbprint(cert.Raw), NotAfter: cert.NotAfter},
	}}
	if d := cmp.Diff(want, st.Placements[0]); d != "" {
		t.Error(d)
	}
}

func TestBadRequestsOfAHostAreAnsweredInItsEnvelope(t *testing.T) {
	w := newWorld(t)
	h := w.joined(node1)
	for _, c := range []struct {
		name   string
		path   string
		body   map[string]any
		status int
		code   string
	}{
		{"no CSR", "/v1/join", map[string]any{"token": "x"}, 400, "InvalidCertificateRequest"},
		{"a bad CSR", "/v1/renew", map[string]any{"csr": []byte("x")}, 400, "InvalidCertificateRequest"},
		{"no resource", "/v1/identities", map[string]any{"csr": []byte("x")}, 400, "InvalidResourceId"},
		{"a field of the wrong kind", "/v1/join", map[string]any{"token": 1}, 400, "InvalidRequestContent"},
		{"too large", "/v1/join", map[string]any{"token": strings.Repeat("x", 70<<10)}, 413, ""},
		{"no such path", "/v1/dance", nil, 404, "NotFound"},
	} {
		a := h.post(c.path, c.body, nil)
		if a.status != c.status || c.code != "" && a.code != c.code {
			t.Errorf("%s: got %+v, want %d %s", c.name, a, c.status, c.code)
		}
	}
}
