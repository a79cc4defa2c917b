package hosts_test

import (
	"crypto/x509"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"innate"
	"innate/ca"
	"innate/feed/client"
	"innate/hosts"
	"innate/store"
)

const (
	orders  = innate.ResourceID(group + "/providers/Microsoft.DBforPostgreSQL/flexibleServers/Orders")
	payroll = innate.ResourceID(group + "/providers/Microsoft.DBforPostgreSQL/flexibleServers/payroll")
)

// mayLogIn is what databases tells of an identity: its rows are in the store, so
// that they change in the transaction that tells of them.
const mayLogIn store.Table[[]client.Login] = "test/logins/"

// placed is the same of where certificates for servers were given.
const placed store.Table[place] = "test/placed/"

type place struct {
	ID string
	client.DatabasePlace
}

func logins(c *hosts.Config) {
	c.Logins = func(r store.Reader, id innate.ObjectID) ([]client.Login, error) {
		all, _, err := mayLogIn.Get(r, string(id))
		return all, err
	}
	row := func(p client.DatabasePlace) string { return string(p.Object) + p.Hosting.Key() + p.Host.Key() }
	c.Place = func(tx store.Tx, _ innate.ResourceID, p client.DatabasePlace) (string, error) {
		at, known, err := placed.Get(tx, row(p))
		if err != nil || known {
			return at.ID, err
		}
		id := innate.NewGUID()
		return id, placed.Put(tx, row(p), place{id, p})
	}
	c.Displace = func(tx store.Tx, p client.DatabasePlace) error {
		placed.Delete(tx, row(p))
		return nil
	}
}

// logIn lets an identity log in at these.
func (w *world) logIn(id innate.ObjectID, at ...client.Login) {
	w.t.Helper()
	h, err := hosts.New(w.hosts)
	w.must(err)
	_, err = w.db.Update(w.t.Context(), func(tx store.Tx) error {
		if err := mayLogIn.Put(tx, string(id), at); err != nil {
			return err
		}
		return h.LoginsChanged(tx, id)
	})
	w.must(err)
}

// places are where an identity's certificates are good from.
func (w *world) places(id innate.ObjectID) (all []place) {
	w.t.Helper()
	w.must(w.db.View(w.t.Context(), func(r store.Reader) error {
		for _, p := range placed.All(r, string(id), "") {
			all = append(all, p)
		}
		return nil
	}))
	return all
}

// loginCertificate asks for what an identity logs in by.
func (h *host) loginCertificate(resource innate.ResourceID, id innate.ObjectID, server innate.ResourceID) (*x509.Certificate, answer) {
	h.w.t.Helper()
	_, csr := request(h.w.t)
	var v struct{ Certificate []byte }
	a := h.post("/v1/logins", map[string]any{"resource": resource, "identity": id, "server": server, "csr": csr}, &v)
	if a.status != http.StatusOK {
		return nil, a
	}
	cert, err := x509.ParseCertificate(v.Certificate)
	h.w.must(err)
	return cert, a
}

func TestAHostHearsWhereTheIdentitiesOnItMayLogIn(t *testing.T) {
	w := newWorld(t, logins)
	w.put(string(shared), nil)
	w.vm(node1, shared)
	own, common := w.own(web), w.own(shared)
	feed, _ := w.joined(node1).feed()
	hears := func(what string, want ...innate.ObjectID) {
		t.Helper()
		feed.until(what, func(client.Event) bool {
			var got []innate.ObjectID
			for _, l := range feed.placement(web).Logins {
				got = append(got, l.Identity)
			}
			return slices.Equal(got, want)
		})
	}
	w.logIn(own, client.Login{Server: orders, Host: "db", Port: 5432, Role: "app", Identity: own})
	hears("a log-in of its own", own)
	w.logIn(common, client.Login{Server: payroll, Host: "db", Port: 5432, Role: "app", Identity: common})
	hears("one of an identity that it shares", own, common)
	w.vm(node1)
	hears("that identity detached", own)
	w.vm(node1, shared)
	hears("and attached again", own, common)
	w.logIn(own)
	hears("its own mapping gone", common)
}

func TestALogInCertificateIsForWhatIsPlacedThereAndMappedThere(t *testing.T) {
	w := newWorld(t, logins)
	w.vm(node1)
	id := w.own(web)
	here, elsewhere := w.joined(node1), w.joined(node2)
	refused := func(why string, h *host, server innate.ResourceID, code string) {
		t.Helper()
		if _, a := h.loginCertificate(web, id, server); a.status != http.StatusForbidden || a.code != code {
			t.Errorf("%s: got %+v, want 403 %s", why, a, code)
		}
	}
	refused("not mapped", here, orders, "NotMapped")
	w.logIn(id, client.Login{Server: orders, Role: "app", Identity: id, Certificate: true}, client.Login{Server: payroll, Role: "app", Identity: id})
	refused("a server where one logs in by token", here, payroll, "NotByCertificate")
	refused("a host on which it is not placed", elsewhere, orders, "NotPlacedHere")

	cert, a := here.loginCertificate(web, id, innate.ResourceID(strings.ToLower(string(orders))))
	if cert == nil {
		t.Fatalf("mapped and placed: %+v", a)
	}
	if s := cert.Subject; s.CommonName != string(id) || !slices.Equal(s.OrganizationalUnit, []string{w.places(id)[0].ID, "orders"}) || len(s.Names) != 3 {
		t.Errorf("the certificate is of %s", s)
	}
	if first := cert.Subject.Names[0].Value; first != string(id) { // PostgreSQL shows the first 63 bytes of a name
		t.Errorf("the certificate's name begins with %v, want the identity", first)
	}
	if err := w.ca.Verify(ca.Databases, cert, w.now()); err != nil {
		t.Error(err)
	}
	if w.ca.Verify(ca.Identities, cert, w.now()) == nil || w.ca.Verify(ca.Hosts, cert, w.now()) == nil {
		t.Error("it is taken for one of another purpose")
	}
	if life := cert.NotAfter.Sub(w.now()); life > 24*time.Hour || len(cert.ExtKeyUsage) != 1 || cert.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("it lives for %v, for %v", life, cert.ExtKeyUsage)
	}
	if !slices.ContainsFunc(w.refusals("issue-login-certificate"), func(why string) bool { return strings.HasPrefix(why, "NotMapped") }) {
		t.Errorf("recorded: %q", w.refusals("issue-login-certificate"))
	}
	w.logIn(id)
	refused("unmapped", here, orders, "NotMapped")
}

func TestAPlaceOfCertificatesIsThereWithThePlacementAndEndsWithIt(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*world)
		good bool                // what was issued before
		left []innate.ResourceID // hosts from where the identity's certificates are good
	}{
		"as it was":                {func(*world) {}, true, []innate.ResourceID{node1}},
		"the identity is detached": {func(w *world) { w.vm(node1) }, false, nil},
		"detached and attached":    {func(w *world) { w.vm(node1); w.vm(node1, shared) }, false, []innate.ResourceID{node1}},
		"the resource moves":       {func(w *world) { w.vm(node2, shared) }, false, []innate.ResourceID{node2}},
		"the resource is deleted":  {func(w *world) { w.arm(w.admin, http.MethodDelete, string(web), nil, nil) }, false, nil},
		"the host is evicted":      {func(w *world) { w.arm(w.admin, http.MethodPost, string(node1)+"/evict", nil, nil) }, false, nil},
		"the host joins again":     {func(w *world) { w.joined(node1) }, false, []innate.ResourceID{node1}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, logins)
			w.put(string(shared), nil)
			w.vm(node1, shared)
			id := w.own(shared)
			host := w.joined(node1)
			w.joined(node2)
			w.logIn(id, client.Login{Server: orders, Role: "app", Identity: id, Certificate: true})
			before := w.places(id)
			if len(before) != 1 || !before[0].Host.Equal(node1) {
				t.Fatalf("before there is a certificate, they are good from %+v, want the host", before)
			}
			cert, a := host.loginCertificate(web, id, orders)
			if cert == nil || cert.Subject.OrganizationalUnit[0] != before[0].ID {
				t.Fatalf("%+v", a)
			}
			c.end(w)
			good := false
			var from []innate.ResourceID
			for _, p := range w.places(id) {
				from = append(from, p.Host)
				good = good || p.ID == before[0].ID
			}
			if good != c.good || !slices.EqualFunc(from, c.left, innate.ResourceID.Equal) {
				t.Errorf("what was issued before is good: %v, want %v; certificates are good from %q, want %q", good, c.good, from, c.left)
			}
		})
	}
}

func TestAHostHearsOfAnotherPlaceWhenItsCertificatesAreNoGood(t *testing.T) {
	w := newWorld(t, logins)
	w.vm(node1)
	id := w.own(web)
	w.joined(node1)
	w.logIn(id, client.Login{Server: orders, Role: "app", Identity: id, Certificate: true})
	before := w.places(id)[0].ID
	feed, _ := w.joined(node1).feed()
	feed.until("its place", func(client.Event) bool { return len(feed.placement(web).Logins) > 0 })
	if got := feed.placement(web).Logins[0].Place; got == before || got != w.places(id)[0].ID {
		t.Errorf("a host that joined again is told of place %q; it was %q, and is %q", got, before, w.places(id)[0].ID)
	}
}
