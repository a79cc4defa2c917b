package imds_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/smallstep/pkcs7"

	"innate"
	"innate/agent/imds"
)

// voucher makes an authority for documents and a certificate of it, like the platform's.
func voucher(t testing.TB) (authority *x509.Certificate, key *tls.Certificate) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test documents"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, authorityKey.Public(), authorityKey)
	must(err)
	authority, err = x509.ParseCertificate(der)
	must(err)
	leafKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: machine.VMID}, DNSNames: []string{"local.metadata.innate.test"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection},
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, authority, leafKey.Public(), authorityKey)
	must(err)
	key = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: leafKey}
	key.Leaf, err = x509.ParseCertificate(der)
	must(err)
	return authority, key
}

// ask gets JSON from a metadata service.
func ask(t testing.TB, addr, target string, out any) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "169.254.169.254"
	req.Header.Set("Metadata", "true")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp, json.NewDecoder(resp.Body).Decode(out)
}

// attested asks for a document and returns its signature (DER).
func attested(t testing.TB, addr, query string) []byte {
	t.Helper()
	var a struct {
		Encoding  string
		Signature []byte
	}
	resp, err := ask(t, addr, "/metadata/attested/document?"+query, &a)
	if err != nil || resp.StatusCode != 200 || a.Encoding != "pkcs7" {
		t.Fatalf("%s: %s %+v %v", query, resp.Status, a, err)
	}
	return a.Signature
}

func TestAnAttestedDocumentSaysWhichVMAndWhen(t *testing.T) {
	authority, key := voucher(t)
	s, _ := newServer(t, imds.Config{Voucher: func(context.Context) (*tls.Certificate, error) { return key, nil }})
	addr := serve(t, s)
	roots := x509.NewCertPool()
	roots.AddCert(authority)

	const times = `"timeStamp":{"createdOn":"09/21/26 14:13:20 -0000","expiresOn":"09/21/26 15:13:20 -0000"}`
	const plan = `"plan":{"name":"p","product":"","publisher":""}`
	id := `"vmId":"` + machine.VMID + `"`
	subscription := `"subscriptionId":"` + vm.Subscription() + `"`
	for _, test := range []struct{ query, want string }{
		{"api-version=2020-09-01&nonce=1234567890", `{"licenseType":"RHEL_BYOS","nonce":"1234567890",` + plan + `,"sku":"12",` + subscription + `,` + times + `,` + id + `}`},
		{"api-version=2018-10-01&nonce=a1", `{"nonce":"a1",` + plan + `,` + times + `,` + id + `}`},
		{"api-version=2019-04-30&nonce=" + strings.Repeat("n", 32), `{"nonce":"` + strings.Repeat("n", 32) + `",` + plan + `,` + subscription + `,` + times + `,` + id + `}`},
		// Without one, the nonce is the time.
		{"api-version=2018-10-01", `{"nonce":"20260921-141320",` + plan + `,` + times + `,` + id + `}`},
		{"api-version=2018-10-01&nonce=", `{"nonce":"20260921-141320",` + plan + `,` + times + `,` + id + `}`},
	} {
		der := attested(t, addr, test.query)
		p7, err := pkcs7.Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(test.want, string(p7.Content)); d != "" {
			t.Errorf("%s: %s", test.query, d)
		}
		if err := p7.VerifyWithChain(roots); err != nil {
			t.Errorf("%s: %v", test.query, err)
		}
		if p7.VerifyWithChain(x509.NewCertPool()) == nil {
			t.Errorf("%s: it also verifies with nobody's authority", test.query)
		}
		forged := []byte(strings.Replace(string(der), machine.VMID, "dddddddd-0000-0000-0000-000000000001", 1))
		if p7, err = pkcs7.Parse(forged); err == nil && p7.VerifyWithChain(roots) == nil {
			t.Errorf("%s: it verifies after another VM's id was put in", test.query)
		}
	}
}

// What the documentation of our users says to type.
func TestOpenSSLVerifiesAnAttestedDocument(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl, as a verifier that is not ours")
	}
	authority, key := voucher(t)
	s, _ := newServer(t, imds.Config{Now: time.Now, Voucher: func(context.Context) (*tls.Certificate, error) { return key, nil }})
	dir := t.TempDir()
	der := attested(t, serve(t, s), "api-version=2020-09-01&nonce=1234567890")
	_, other := voucher(t)
	for name, content := range map[string][]byte{
		"document.der": der,
		"ca.pem":       pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}),
		"other.pem":    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate[0]}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, verifier := range []string{"smime", "cms"} {
		for ca, good := range map[string]bool{"ca.pem": true, "other.pem": false} {
			cmd := exec.Command(openssl, verifier, "-verify", "-inform", "DER", "-in", "document.der", "-CAfile", ca)
			cmd.Dir = dir
			out, err := cmd.Output()
			if (err == nil) != good || good && !strings.Contains(string(out), `"nonce":"1234567890"`) {
				t.Errorf("openssl %s with %s: %v\n%s", verifier, ca, err, out)
			}
		}
	}
}

func TestADocumentThatNobodyVouchesForIsRefusedForAWhileOnly(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
	}{
		{&innate.Refusal{Status: 503, Text: "the control plane is away"}, 503},
		{errors.New("disk on fire"), 500},
	} {
		s, _ := newServer(t, imds.Config{Voucher: func(context.Context) (*tls.Certificate, error) { return nil, test.err }})
		var a struct{ Error string }
		resp, err := ask(t, serve(t, s), "/metadata/attested/document?api-version=2020-09-01", &a)
		if err != nil || resp.StatusCode != test.status || a.Error == "" || strings.Contains(a.Error, "fire") || !resp.Close {
			t.Errorf("%v: got %s %q %v, want %d", test.err, resp.Status, a.Error, err, test.status)
		}
	}
}
