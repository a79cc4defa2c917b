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

func logins(c *hosts.Config) {
	c.Logins = func(r store.Reader, id innate.ObjectID) ([]client.Login, error) {
		all, _, err := mayLogIn.Get(r, string(id))
		return all, err
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
	if s := cert.Subject; s.CommonName != string(id) || len(s.OrganizationalUnit) != 1 || s.OrganizationalUnit[0] != "orders" || len(s.Names) != 2 {
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
