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
const placed store.Table[client.DatabasePlace] = "test/placed/"

func logins(c *hosts.Config) {
	c.Logins = func(r store.Reader, id innate.ObjectID) ([]client.Login, error) {
		all, _, err := mayLogIn.Get(r, string(id))
		return all, err
	}
	row := func(p client.DatabasePlace) string { return string(p.Object) + p.Hosting.Key() + p.Host.Key() }
	c.Place = func(tx store.Tx, _ innate.ResourceID, p client.DatabasePlace) (string, error) {
		return "place", placed.Put(tx, row(p), p)
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
	if s := cert.Subject; s.CommonName != string(id) || !slices.Equal(s.OrganizationalUnit, []string{"place", "orders"}) || len(s.Names) != 3 {
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
		left []innate.ResourceID // hosts from where the identity's certificates are good
	}{
		"as it was":                {func(*world) {}, []innate.ResourceID{node1}},
		"the identity is detached": {func(w *world) { w.vm(node1) }, nil},
		"the resource moves":       {func(w *world) { w.vm(node2, shared) }, []innate.ResourceID{node2}},
		"the resource is deleted":  {func(w *world) { w.arm(w.admin, http.MethodDelete, string(web), nil, nil) }, nil},
		"the host is evicted":      {func(w *world) { w.arm(w.admin, http.MethodPost, string(node1)+"/evict", nil, nil) }, nil},
		"the host joins again":     {func(w *world) { w.joined(node1) }, nil}, // until it asks
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, logins)
			w.put(string(shared), nil)
			w.vm(node1, shared)
			id := w.own(shared)
			host := w.joined(node1)
			w.joined(node2)
			w.logIn(id, client.Login{Server: orders, Role: "app", Identity: id, Certificate: true})
			from := func() (hosts []innate.ResourceID) {
				w.must(w.db.View(t.Context(), func(r store.Reader) error {
					for _, p := range placed.All(r, string(id), "") {
						hosts = append(hosts, p.Host)
					}
					return nil
				}))
				return hosts
			}
			if got := from(); len(got) != 1 || !got[0].Equal(node1) {
				t.Errorf("before there is a certificate, they are good from %q, want the host", got)
			}
			if cert, a := host.loginCertificate(web, id, orders); cert == nil {
				t.Fatalf("%+v", a)
			}
			c.end(w)
			if got := from(); !slices.EqualFunc(got, c.left, innate.ResourceID.Equal) {
				t.Errorf("certificates are good from %q, want %q", got, c.left)
			}
		})
	}
}
