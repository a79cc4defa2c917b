package hosts_test

import (
	"crypto/x509"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"innate"
	"innate/ca"
)

// document asks for the certificate of a VM's attested documents.
func (h *host) document(vm innate.ResourceID) (*x509.Certificate, answer) {
	h.w.t.Helper()
	_, csr := request(h.w.t)
	var v struct{ Certificate []byte }
	a := h.post("/v1/documents", map[string]any{"resource": vm, "csr": csr}, &v)
	if a.status != http.StatusOK {
		return nil, a
	}
	cert, err := x509.ParseCertificate(v.Certificate)
	h.w.must(err)
	return cert, a
}

func TestADocumentCertificateNamesTheVMAndItsHostAndIsGoodForNothingElse(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	var vm struct{ Properties struct{ VMID string } }
	w.arm(w.admin, http.MethodGet, string(web), nil, &vm)

	cert, a := w.joined(node1).document(web)
	if a.status != http.StatusOK {
		t.Fatalf("%+v", a)
	}
	if err := w.ca.Verify(ca.Documents, cert, w.now()); err != nil {
		t.Error(err)
	}
	for _, p := range []ca.Purpose{ca.Servers, ca.Hosts, ca.Identities} {
		if w.ca.Verify(p, cert, w.now()) == nil {
			t.Errorf("it is good for %s too", p)
		}
	}
	var names []string
	for _, u := range cert.URIs {
		names = append(names, u.String())
	}
	want := []string{"innate://innate.test/resources" + web.Key(), "innate://innate.test/hosts" + node1.Key()}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
	if cert.Subject.CommonName != vm.Properties.VMID || vm.Properties.VMID == "" {
		t.Errorf("common name %q, want the VM's id %q", cert.Subject.CommonName, vm.Properties.VMID)
	}
	if !slices.Equal(cert.DNSNames, []string{"local.metadata.innate.test"}) {
		t.Errorf("DNS names %q", cert.DNSNames)
	}
	if life := cert.NotAfter.Sub(w.now()); life > 6*time.Hour {
		t.Errorf("good for %v, want at most six hours", life)
	}
}

func TestAHostSpeaksOnlyForTheVMsPlacedOnIt(t *testing.T) {
	w := newWorld(t)
	w.vm(node1)
	first, second := w.joined(node1), w.joined(node2)
	if _, a := second.document(web); a.status != http.StatusForbidden || a.code != "NotPlacedHere" {
		t.Errorf("another host: got %+v, want 403 NotPlacedHere", a)
	}
	if _, a := first.document(node1); a.status != http.StatusBadRequest || a.code != "InvalidResourceId" {
		t.Errorf("a machine: got %+v, want 400", a)
	}
	w.vm(node2)
	if _, a := first.document(web); a.status != http.StatusForbidden {
		t.Errorf("after the VM moved away: got %+v, want 403", a)
	}
	if _, a := second.document(web); a.status != http.StatusOK {
		t.Errorf("where it moved to: got %+v", a)
	}
	if d := cmp.Diff([]string{"NotPlacedHere", "NotPlacedHere"}, w.refusals("issue-document-certificate")); d != "" {
		t.Errorf("recorded: %s", d)
	}
	w.arm(w.admin, http.MethodPost, string(node2)+"/evict", nil, nil)
	if _, a := second.document(web); a.status != http.StatusUnauthorized {
		t.Errorf("an evicted host: got %+v, want 401", a)
	}
}
