package innatetest_test

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent/caller"
	"innate/innatetest"
)

// fetch reads a page, which must be there.
func fetch(t *testing.T, client *http.Client, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Metadata", "true")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %s %v", url, resp.Status, body, err)
	}
	return body
}

// A stranger needs the authority's certificate, openssl, and nothing of ours.
func TestAStrangerVerifiesWhichVMSentADocument(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl, as a verifier that is not ours")
	}
	p := innatetest.Start(t)
	vm := p.VM("web-1")
	ns := namespace(t, p, vm)

	inside := &http.Client{Transport: &http.Transport{Dial: func(network, addr string) (c net.Conn, err error) {
		err = caller.InNamespace(ns, func() error { c, err = net.Dial(network, addr); return err })
		return c, err
	}}}
	defer inside.CloseIdleConnections()
	var document struct{ Signature []byte }
	if err := json.Unmarshal(fetch(t, inside, "http://169.254.169.254/metadata/attested/document?api-version=2020-09-01&nonce=1234567890"), &document); err != nil {
		t.Fatal(err)
	}
	id := fetch(t, inside, "http://169.254.169.254/metadata/instance/compute/vmId?api-version=2020-09-01&format=text")

	dir := t.TempDir()
	documents := fetch(t, p.Client(), "https://login.innate.test/authorities/documents")
	for name, content := range map[string][]byte{"document.der": document.Signature, "documents.pem": documents, "servers.pem": p.Server.Bundle()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if block, rest := pem.Decode(documents); block == nil || len(rest) != 0 {
		t.Fatalf("the authority's certificate is %s", documents)
	}
	verify := func(authority string) (content, signer string, err error) {
		cmd := exec.Command(openssl, "cms", "-verify", "-inform", "DER", "-in", "document.der", "-CAfile", authority, "-signer", "signer.pem")
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			return "", "", err
		}
		cmd = exec.Command(openssl, "x509", "-in", "signer.pem", "-noout", "-subject", "-ext", "subjectAltName")
		cmd.Dir = dir
		names, err := cmd.Output()
		return string(out), string(names), err
	}
	content, signer, err := verify("documents.pem")
	if err != nil {
		t.Fatalf("openssl: %v", err)
	}
	for _, want := range []string{`"nonce":"1234567890"`, `"vmId":"` + string(id) + `"`} {
		if !strings.Contains(content, want) {
			t.Errorf("the document lacks %s: %s", want, content)
		}
	}
	for _, want := range []string{string(bytes.TrimSpace(id)), ".metadata.innate.test", "/resources" + vm.ID().Key(), "/hosts" + p.Machine.Key()} {
		if !strings.Contains(signer, want) {
			t.Errorf("the signer's certificate lacks %s: %s", want, signer)
		}
	}
	if _, _, err := verify("servers.pem"); err == nil {
		t.Error("it verifies with the authority for servers too")
	}
}
