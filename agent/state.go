package agent

import (
	"bytes"
	"crypto"
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
	"syscall"

	"innate"
	"innate/agent/tpm"
)

// Files in Config.State.
const (
	keyFile   = "host.pem"  // private key, or its TPM's blob, then certificate: one file, so that they are never of two joinings
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
	TPM     string            `json:"tpm,omitempty"` // device of the TPM that the host's key is in; empty: it is in keyFile
}

func (j joined) roots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(j.CA)) {
		return nil, errors.New("the control plane's authority is no certificate: join again")
	}
	return pool, nil
}

// readState reads what Join wrote; find gets the TPM that the host's key may be in.
func readState(dir string, find func(path string) (*tpm.Device, error)) (j joined, key *tls.Certificate, err error) {
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
	if b, err = os.ReadFile(filepath.Join(dir, keyFile)); err == nil {
		key, err = readPair(b, j.TPM, find)
	}
	if err != nil {
		return j, nil, fmt.Errorf("reading the host's key and certificate: %w", err)
	}
	return j, key, nil
}

// readPair reads a keyFile, whose key may be one of the TPM at device.
func readPair(b []byte, device string, find func(path string) (*tpm.Device, error)) (*tls.Certificate, error) {
	if device == "" {
		pair, err := tls.X509KeyPair(b, b)
		return &pair, err
	}
	key, rest := pem.Decode(b)
	cert, _ := pem.Decode(rest)
	if key == nil || key.Type != tpm.PEMType || cert == nil {
		return nil, fmt.Errorf("%s: want a %s and a certificate", keyFile, tpm.PEMType)
	}
	chip, err := find(device)
	if err != nil {
		return nil, err
	}
	signer, err := chip.Key(key.Bytes)
	if err != nil {
		return nil, err
	}
	return keyPair(signer, cert.Bytes)
}

// writeState makes what a joining or a renewal gave durable. The key comes
// first: how to reach the control plane is of no use without it.
func writeState(dir string, j joined, key *tls.Certificate) error {
	private, err := privateKey(key)
	if err != nil {
		return err
	}
	var pair bytes.Buffer
	pem.Encode(&pair, private) // a Buffer takes all
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

// privateKey is how the key of a pair is kept.
func privateKey(pair *tls.Certificate) (*pem.Block, error) {
	if key, ok := pair.PrivateKey.(*tpm.Key); ok {
		der, err := key.Marshal()
		return &pem.Block{Type: tpm.PEMType, Bytes: der}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	return &pem.Block{Type: "PRIVATE KEY", Bytes: der}, err
}

// replace writes a file, mode 0600, so that after a crash it is the old one or the new one, whole.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is none
	_, err = f.Write(content)
	if err = errors.Join(err, giveTo(f, filepath.Dir(path)), f.Sync(), f.Close()); err != nil {
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

// giveTo has a file belong to whom its folder does: when root joins again on a
// host whose state is the worker's, the new state is, too.
func giveTo(f *os.File, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Getuid() != 0 || st.Uid == 0 {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// newKey makes a private key and a request for its certificate. The names of a
// certificate are the control plane's business.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := requestFor(key)
	return key, csr, err
}

// requestFor asks for a certificate for a key; names in it would be ignored.
func requestFor(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
}

// keyPair puts a certificate that came back beside the key it was asked for.
func keyPair(key crypto.Signer, der []byte) (*tls.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("the certificate that came back: %w", err)
	}
	if own, ok := key.Public().(*ecdsa.PublicKey); !ok || !own.Equal(cert.PublicKey) {
		return nil, errors.New("the certificate that came back is for another key")
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}
