package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"innate"
	"innate/feed/client"
)

// A loginCertificate says which certificate logs in at a server that wants one.
type loginCertificate struct {
	identity innate.ObjectID
	server   innate.ResourceID
	place    string // of the identity here: when it is another, a new one is wanted
}

// files are the names of its files: a server's name is the platform's only one.
func (c loginCertificate) files() (cert, key string) {
	return "client-" + c.server.Name() + ".crt", "client-" + c.server.Name() + ".key"
}

// A heldCertificate is one that a generation has. The key stays for the
// generation's life: clients read the two files one after the other, and a new
// certificate must fit whichever key they read.
type heldCertificate struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate // nil: none came yet
	renew       time.Time
}

// certificates are those that log-ins take, one for each server: of two identities
// that may log in at one, the first's.
func certificates(rows []client.Login) (all []loginCertificate) {
	seen := map[string]bool{}
	for _, l := range rows {
		if l.Certificate && !seen[l.Server.Key()] {
			seen[l.Server.Key()] = true
			all = append(all, loginCertificate{l.Identity, l.Server, l.Place})
		}
	}
	return all
}

// certify gets a certificate when there is none, or half its life is over, and
// puts it into its file. When the control plane says no, what was there goes.
func (k *logins) certify(ctx context.Context, of loginCertificate) error {
	k.mu.Lock()
	held, now := k.certificates[of], k.agent.config.Now()
	k.mu.Unlock()
	if held != nil && held.certificate != nil && now.Before(held.renew) {
		return nil
	}
	if held == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		held = &heldCertificate{key: key}
	}
	cert, err := k.agent.upstream.certifyLogin(ctx, k.app, of, held.key)
	switch {
	case err == nil:
		next := &heldCertificate{held.key, cert, middle(now, now.Add(cert.NotAfter.Sub(cert.NotBefore)))}
		return k.putCertificate(of, next)
	case ctx.Err() != nil || !refused(err):
		return err // the last good one stays
	}
	return errors.Join(err, k.putCertificate(of, nil))
}

// putCertificate makes the files those of a certificate; nil takes them away.
func (k *logins) putCertificate(of loginCertificate, held *heldCertificate) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !slices.Contains(certificates(k.rows), of) {
		return nil // the log-in went meanwhile
	}
	if held == nil {
		return k.dropCertificate(of)
	}
	key, err := x509.MarshalPKCS8PrivateKey(held.key)
	if err != nil {
		return err
	}
	k.certificates[of] = held
	certFile, keyFile := of.files()
	// The key first: a certificate without one is an error to clients, and no certificate is not.
	return errors.Join(
		k.write(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		k.write(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: held.certificate.Raw})),
	)
}

// dropCertificate takes a certificate's files away; k.mu is held.
func (k *logins) dropCertificate(of loginCertificate) error {
	delete(k.certificates, of)
	var errs []error
	certFile, keyFile := of.files()
	for _, name := range []string{certFile, keyFile} {
		delete(k.written, name)
		errs = append(errs, k.files.Remove(name))
	}
	return errors.Join(errs...)
}

// certifyLogin asks for the certificate by which an identity of a workload on this
// host logs in at a server.
func (u *upstream) certifyLogin(ctx context.Context, workload innate.ResourceID, of loginCertificate, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	csr, err := requestFor(key)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Certificate []byte `json:"certificate"`
	}
	if err := u.post(ctx, "/v1/logins", map[string]any{
		"resource": workload, "identity": of.identity, "server": of.server, "csr": csr,
	}, &answer); err != nil {
		return nil, fmt.Errorf("asking for a certificate to log in by: %w", err)
	}
	pair, err := keyPair(key, answer.Certificate)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}
