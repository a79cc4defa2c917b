package main_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

// newCertificate is a self-signed certificate with its key, in one file of PEM.
func newCertificate(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048) // azidentity takes no other kind
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// The credentials of a registration change without a gap: with the new one
// beside it the old one still proves it, and removed it proves nothing.
func TestAProgramIsProvedByTheCredentialsOfItsRegistrationWhileItHasThem(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.dev("registrations:\n  orders: {}\n")
	s.env = append(s.env, "AZURE_CLIENT_ID="+s.get("INNATE_REGISTRATION_ORDERS_CLIENT_ID"))
	add := func(args ...string) (keyID, secret string) {
		t.Helper()
		var made struct {
			KeyID  string `json:"keyId"`
			Secret string `json:"secretText"`
		}
		out := s.must(append([]string{"registration", "credential", "add", "orders", "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &made); err != nil {
			t.Fatal(err)
		}
		return made.KeyID, made.Secret
	}
	proved := func(kind, variable string) (refusal string) {
		t.Helper()
		as := *s
		as.env = append(append([]string{}, s.env...), variable)
		if p := as.run("sample", "token", "--credential", kind); p.code() != 0 {
			return p.errout.String()
		}
		return ""
	}
	rotate := func(kind, refused string, old, next, oldID string) {
		t.Helper()
		for _, proof := range []string{old, next} {
			if why := proved(kind, proof); why != "" {
				t.Errorf("%s while both are there: %s", kind, why)
			}
		}
		s.must("registration", "credential", "remove", "orders", oldID)
		if why := proved(kind, old); !strings.Contains(why, refused) {
			t.Errorf("%s that was removed: %q, want %s", kind, why, refused)
		}
		if why := proved(kind, next); why != "" {
			t.Errorf("%s that stays: %s", kind, why)
		}
	}

	firstID, first := add("--secret")
	_, second := add("--secret", "--name", "next")
	rotate("client-secret", "AADSTS7000215", "AZURE_CLIENT_SECRET="+first, "AZURE_CLIENT_SECRET="+second, firstID)

	one, two := s.write("one.pem", newCertificate(t)), s.write("two.pem", newCertificate(t))
	oneID, _ := add("--certificate", one)
	add("--certificate", two)
	rotate("client-certificate", "AADSTS700027", "AZURE_CLIENT_CERTIFICATE_PATH="+one, "AZURE_CLIENT_CERTIFICATE_PATH="+two, oneID)
	if why := proved("client-secret", "AZURE_CLIENT_SECRET="+second); why != "" {
		t.Errorf("the secret, after the certificates changed: %s", why)
	}
}
