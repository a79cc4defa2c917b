package innatetest_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"innate/innatetest"
)

// The kinds of credential that a program brings with it. Each is the vendor's
// own class, in a process of its own.
var credentialKinds = []string{"client-secret", "client-certificate", "client-certificate-chain", "workload-identity"}

// credentials are those of a registration, one of each kind, in files and
// variables for a program under any uid.
type credentials struct {
	r           registration
	certificate string // file with a key beside it
	assertion   string // the outside issuer's token
	env         []string
}

func newCredentials(t *testing.T, p *innatetest.Platform, issuer *outsideIssuer) credentials {
	t.Helper()
	r := register(t, p, map[string]any{"displayName": "deploy"})
	dir := folder(t, 0o755)
	der, key := selfSigned(t)
	var certificate bytes.Buffer
	for _, block := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: key}, {Type: "CERTIFICATE", Bytes: der}} {
		if err := pem.Encode(&certificate, block); err != nil {
			t.Fatal(err)
		}
	}
	application := "/v1.0/applications/" + string(r.Object)
	if err := p.Admin.Graph(t.Context(), http.MethodPatch, application, map[string]any{
		"keyCredentials": []any{map[string]any{"type": "AsymmetricX509Cert", "usage": "Verify", "key": der}},
	}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Admin.Graph(t.Context(), http.MethodPost, application+"/federatedIdentityCredentials", map[string]any{
		"name": "main-branch", "issuer": issuer.url, "subject": "repo:contoso/shop:ref:refs/heads/main", "audiences": []string{"api://AzureADTokenExchange"},
	}, nil); err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	assertion := issuer.sign(t, map[string]any{
		"iss": issuer.url, "sub": "repo:contoso/shop:ref:refs/heads/main", "aud": "api://AzureADTokenExchange",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	c := credentials{r: r, certificate: write("certificate.pem", certificate.Bytes()), assertion: assertion}
	c.env = []string{
		"AZURE_TENANT_ID=" + string(p.Admin.Info.Tenant), "AZURE_CLIENT_ID=" + string(r.Client),
		"AZURE_AUTHORITY_HOST=" + p.Admin.Info.Login + "/",
		"AZURE_CLIENT_SECRET=" + r.secret,
		"AZURE_CLIENT_CERTIFICATE_PATH=" + c.certificate,
		"AZURE_FEDERATED_TOKEN_FILE=" + write("token", []byte(assertion)),
	}
	return c
}

// selfSigned is a new certificate (DER) and its key (PKCS #8).
func selfSigned(t *testing.T) (der, pkcs8 []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "deploy"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, crypto.Signer(key).Public(), key); err != nil {
		t.Fatal(err)
	}
	if pkcs8, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		t.Fatal(err)
	}
	return der, pkcs8
}

// checkCredentials runs a program that reads a secret with each kind of
// credential (arguments: kind, vault, name), before and after it may.
func checkCredentials(t *testing.T, command ...string) {
	t.Helper()
	issuer := newOutsideIssuer(t)
	p := innatetest.Start(t, innatetest.WithPrograms(t), issuer.allowed())
	kv := p.Vault("kv1")
	kv.Put("db-password", "hunter2")
	c := newCredentials(t, p, issuer)
	shell := p.App("shell") // its own identity may do nothing
	read := func(kind string) (string, error) {
		args := slices.Concat([]string{"env"}, fenced(t), c.env, command, []string{kind, kv.URL(), "db-password"})
		out, err := shell.Run(args...)
		return strings.TrimSpace(out), err
	}
	if out, err := read("client-secret"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("without a role: got %q, %v; want 403", out, err)
	}
	p.Grant(servicePrincipal(t, p, c.r), "Key Vault Secrets User", kv)
	for _, kind := range credentialKinds {
		if out, err := read(kind); err != nil || out != "hunter2" {
			t.Errorf("%s: got %q, %v; want hunter2", kind, out, err)
		}
	}
}

func TestAzidentityBringsItsOwnCredentialOfEachKind(t *testing.T) {
	t.Parallel()
	checkCredentials(t, "sh", "-c", `exec "$0" sample secret --credential "$1" "$2" "$3"`, innatetest.Program(t))
}

func TestNodeBringsItsOwnCredentialOfEachKind(t *testing.T) {
	needsNode(t)
	t.Parallel()
	checkCredentials(t, "node", filepath.Join(public(t, "testdata/node"), "credential.mjs"))
}

func TestInteropPythonBringsItsOwnCredentialOfEachKind(t *testing.T) {
	installed(t, "python3-azure")
	t.Parallel()
	checkCredentials(t, "/usr/bin/python3", filepath.Join(public(t, "testdata/python"), "credential.py"))
}
