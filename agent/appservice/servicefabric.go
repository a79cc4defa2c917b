package appservice

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"innate"
	"innate/agent/endpoint"
	"innate/jsonobject"
)

// fabric is Service Fabric's dialect (managed-identity-endpoints §3.1). Most SDKs
// refuse to select an identity there, so the only one will do. Which token was
// refused somewhere (token_sha256_to_refresh) need not be read: revocations are
// pushed to the agent.
var fabric = dialect{
	path: "/metadata/identity/oauth2/token",
	versions: []version{
		{"2019-07-01-preview", "Secret", fabricSelectors},
		{"2020-05-01", "Secret", fabricSelectors}, // newer .NET
	},
	alone:   true,
	refusal: refusalOfFabric,
	token:   tokenOfFabric,
	failure: failureOfFabric,
}

var fabricSelectors = []string{"client_id", "object_id", "principal_id", "principalId", "mi_res_id", "msi_res_id"}

// refusalOfFabric answers 400 where the real one has 404: .NET and Node ask
// again after a 404, and would for an identity that is not there.
func refusalOfFabric(err error, _ innate.Selector) innate.Refusal {
	switch {
	case errors.Is(err, innate.ErrNoIdentity):
		return innate.Refusal{Status: http.StatusBadRequest, Text: "Managed identity not found for this application, or the one that is named is not attached to it", Cause: err}
	case errors.Is(err, innate.ErrManyIdentities):
		return innate.Refusal{Status: http.StatusBadRequest, Text: "Several user-assigned identities are attached: turn the application's own identity on, or name one by client_id", Cause: err}
	}
	return endpoint.Grade(err)
}

// tokenOfFabric is of a 200; here the time is a number.
func tokenOfFabric(b []byte, q question, t innate.Token, _ time.Time) []byte {
	b = jsonobject.String(b, "token_type", "Bearer")
	b = jsonobject.String(b, "access_token", t.Value)
	b = jsonobject.Number(b, "expires_on", t.Expires.Unix()) // seconds since the epoch
	return jsonobject.String(b, "resource", q.resource)      // byte for byte as asked
}

func failureOfFabric(no innate.Refusal, correlation string, _ time.Time) any {
	type failure struct {
		CorrelationID string `json:"correlationId"`
		Code          string `json:"code"`
		Message       string `json:"message"`
	}
	return map[string]failure{"error": {correlation, fabricCode(no), no.Error()}}
}

// fabricCode is the code that Service Fabric documents, where it has one.
func fabricCode(no innate.Refusal) string {
	switch {
	case errors.Is(no.Cause, errSecret):
		return "SecretHeaderNotFound"
	case errors.Is(no.Cause, innate.ErrNoIdentity), errors.Is(no.Cause, innate.ErrManyIdentities):
		return "ManagedIdentityNotFound"
	case errors.Is(no.Cause, errResource):
		return "ArgumentNullOrEmpty"
	case errors.Is(no.Cause, errVersion):
		return "InvalidApiVersion"
	case no.Status >= http.StatusInternalServerError:
		return "InternalServerError"
	case no.OAuth != "":
		return no.OAuth
	}
	return "invalid_request"
}

// newCertificate makes the certificate of one generation; nobody signs it, for
// the process is told its thumbprint. It outlives every process.
func newCertificate(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "innate app endpoint"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making the endpoint's certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// encodeCertificate is a certificate with its key, as decodeCertificate reads it.
func encodeCertificate(c *tls.Certificate) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return nil, err
	}
	b := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	return append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...), nil
}

func decodeCertificate(b []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(b, b)
	return &c, err
}

// thumbprint is how SDKs know a certificate: 40 hexadecimal digits. SHA-1 is
// theirs to choose; a second certificate with it would need a second preimage.
func thumbprint(c *tls.Certificate) string {
	sum := sha1.Sum(c.Certificate[0])
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}
