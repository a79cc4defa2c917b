package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"innate"
)

// Files in Config.State.
const (
	keyFile   = "host.pem"  // private key, then certificate: one file, so that they are never of two joinings
	joinFile  = "join.json" // a joined
	uidsFile  = "uids.json"
	auditFile = "audit.log"
)

// joined is what Join learned and the agent goes by: where the control plane
// is, how to recognise it, and what this host is to it.
type joined struct {
	Address string            `json:"address"` // host:port to dial
	Name    string            `json:"name"`    // TLS server name there
	Machine innate.ResourceID `json:"machine"`
	Tenant  innate.TenantID   `json:"tenant"`
	Domain  string            `json:"domain"`
	CA      string            `json:"ca"`            // PEM: the authority that alone is believed
	Token   string            `json:"tokenEndpoint"` // where an identity's certificate is the credential
}

func (j joined) roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(j.CA)) {
		return nil, errors.New("the control plane's authority is no certificate: join again")
	}
	return pool, nil
}

// readState reads what Join wrote.
func readState(dir string) (j joined, key *tls.Certificate, err error) {
	b, err := os.ReadFile(filepath.Join(dir, joinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil, fmt.Errorf("this host has not joined (no %s): join it with the line that 'innate host add NAME' prints", filepath.Join(dir, joinFile))
	}
	if err != nil {
		return j, nil, fmt.Errorf("reading how this host joined: %w", err)
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, nil, fmt.Errorf("reading how this host joined: %s: %w", filepath.Join(dir, joinFile), err)
	}
	path := filepath.Join(dir, keyFile)
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return j, nil, fmt.Errorf("reading the host's key and certificate: %w", err)
	}
	return j, &pair, nil
}

// writeState makes what a joining or a renewal gave durable. The key comes
// first: how to reach the control plane is of no use without it.
func writeState(dir string, j joined, key *tls.Certificate) error {
	der, err := x509.MarshalPKCS8PrivateKey(key.PrivateKey)
	if err != nil {
		return err
	}
	var pair bytes.Buffer
	pem.Encode(&pair, &pem.Block{Type: "PRIVATE KEY", Bytes: der}) // a Buffer takes all
	pem.Encode(&pair, &pem.Block{Type: "CERTIFICATE", Bytes: key.Certificate[0]})
	if err := replace(filepath.Join(dir, keyFile), pair.Bytes()); err != nil {
		return fmt.Errorf("writing the host's key and certificate: %w", err)
	}
	b, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, joinFile), b); err != nil {
		return fmt.Errorf("writing how this host joined: %w", err)
	}
	return nil
}

// replace writes a file, mode 0600, so that after a crash it is the old one or the new one, whole.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// newKey makes a private key and a request for its certificate. The names of a
// certificate are the control plane's business.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	return key, csr, err
}

// keyPair puts a certificate that came back beside the key it was asked for.
func keyPair(key *ecdsa.PrivateKey, der []byte) (*tls.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate that came back: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate that came back is for another key")
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}
