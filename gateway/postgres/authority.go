package postgres

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour // PostgreSQL must be restarted for another
	leafLife      = 90 * 24 * time.Hour
	backdated     = time.Hour // for clocks that are set right after the certificate was made

	// CAFile is the name, in the gateway's folder, of what LDAPTLS_CACERT names.
	CAFile = "ca.crt"

	// ClientsFile is the name there of the platform's authority that client
	// certificates are of; prepare tells the server of it.
	ClientsFile = "clients.crt"
	clientsMost = 64 << 10 // bytes
)

// An authority signs the gateway's certificate and nothing else. It is made on
// this host for one PostgreSQL, which believes it alone: any certificate of the
// platform's for 127.0.0.1 could otherwise pose as the gateway.
type authority struct {
	path string // of its certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ip   net.IP
	now  func() time.Time

	mu    sync.Mutex
	leaf  *tls.Certificate // in memory only: it is made again at each start
	renew time.Time
}

// openAuthority reads the authority in dir and makes one when there is none.
func openAuthority(dir string, ip net.IP, now func() time.Time) (*authority, error) {
	a := &authority{path: filepath.Join(dir, CAFile), ip: ip, now: now}
	keyPath := filepath.Join(dir, "ca.key")
	key, err := os.ReadFile(keyPath)
	if errors.Is(err, fs.ErrNotExist) {
		return a, a.create(keyPath)
	}
	if err != nil {
		return nil, err
	}
	cert, err := os.ReadFile(a.path)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w: remove both to have others made; PostgreSQL must be restarted then", a.path, keyPath, err)
	}
	ec, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not an authority that a gateway made", a.path)
	}
	if now().After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("%s ended at %s: remove it and %s to have another made, and restart PostgreSQL", a.path, pair.Leaf.NotAfter.Format(time.RFC3339), keyPath)
	}
	a.cert, a.key = pair.Leaf, ec
	return a, nil
}

// create makes the authority. The certificate is there before the key: without
// a key all is made again, and a key is never without its certificate.
func (a *authority) create(keyPath string) error {
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	now := a.now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Innate PostgreSQL gateway of this host"},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		return err
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return err
	}
	if err := replace(a.path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return replace(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600)
}

// tls is how the gateway serves. libldap compares the address that it was told
// to reach, so that must be one (postgres.md §3.1).
func (a *authority) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.certificate() },
	}
}

// certificate is the gateway's own, made anew at half its life.
func (a *authority) certificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if a.leaf != nil && now.Before(a.renew) {
		return a.leaf, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: a.ip.String()},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(leafLife), IPAddresses: []net.IP{a.ip},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	a.leaf, a.renew = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, now.Add(leafLife/2)
	return a.leaf, nil
}

// pool holds the authority alone.
func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// keepClients writes the authority of client certificates down, for prepare, and
// looks now and then whether it is another.
func (g *Gateway) keepClients(ctx context.Context) {
	if g.config.Clients == "" {
		return
	}
	for {
		pause := keysEvery
		if err := g.fetchClients(ctx); err != nil {
			pause = keysRetry
			if ctx.Err() == nil {
				g.config.Log.Warn("fetching the authority of client certificates; trying again", "err", err)
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gateway) fetchClients(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.config.Clients, nil)
	if err != nil {
		return err
	}
	resp, err := g.config.PlaneHTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", g.config.Clients, resp.Status)
	}
	now, err := io.ReadAll(io.LimitReader(resp.Body, clientsMost))
	if err != nil {
		return err
	}
	block, rest := pem.Decode(now)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return fmt.Errorf("%s answered something else than one certificate (PEM)", g.config.Clients)
	}
	path := filepath.Join(g.config.Dir, ClientsFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, now) {
		return nil
	}
	return replace(path, now, 0o644)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // it never fails
	}
	return n
}

// replace puts a whole file in the place of another.
func replace(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone when all went well
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
