package agent

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// A ticket is what a join string says: a one-time token, where to take it, and
// how to recognise who is there.
type ticket struct {
	token   string            // empty: the host's TPM is allowed to join without
	address string            // host:port
	name    string            // TLS server name
	ca      [sha256.Size]byte // SHA-256 of the authority's certificate
}

// maxTicket bounds a join string.
const maxTicket = 1024

// parseTicket reads innate+join://[TOKEN@]HOST:PORT/?ca=sha256:HEX&name=NAME. Its
// errors do not quote the string: there is a token in it.
func parseTicket(s string) (t ticket, err error) {
	const form = "innate+join://[TOKEN@]HOST:PORT/?ca=sha256:HEX&name=NAME"
	if len(s) > maxTicket {
		return t, fmt.Errorf("a join string of %d characters: want at most %d", len(s), maxTicket)
	}
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Scheme != "innate+join" {
		return t, errors.New("this is no join string: want " + form + ", as 'innate host add NAME' prints it")
	}
	t.token, t.address, t.name = u.User.Username(), u.Host, u.Query().Get("name")
	if t.token == "" && u.User != nil {
		return t, errors.New("the join string's token is empty: want " + form)
	}
	if host, port, err := net.SplitHostPort(t.address); err != nil || host == "" || port == "" {
		return t, fmt.Errorf("the join string's address is %q: want HOST:PORT", t.address)
	}
	if t.name == "" || strings.ContainsAny(t.name, "/:@ ") {
		return t, fmt.Errorf("the join string's name is %q: want the server's TLS name", t.name)
	}
	sum, ok := strings.CutPrefix(u.Query().Get("ca"), "sha256:")
	raw, err := hex.DecodeString(sum)
	if !ok || err != nil || len(raw) != len(t.ca) {
		return t, errors.New("the join string's ca is no SHA-256: want sha256: and 64 hexadecimal digits")
	}
	copy(t.ca[:], raw)
	return t, nil
}

// tls trusts the chain that contains the pinned authority, and no other.
func (t ticket) tls() *tls.Config {
	return &tls.Config{
		ServerName: t.name,
		MinVersion: tls.VersionTLS12,
		// The standard check wants the authority's certificate in advance; we have
		// its hash. VerifyConnection makes the same check with the pinned one as root.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, cert := range cs.PeerCertificates {
				if sha256.Sum256(cert.Raw) == t.ca {
					roots := x509.NewCertPool()
					roots.AddCert(cert)
					_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: t.name, Roots: roots})
					return err
				}
			}
			return errors.New("the server is not the one that the join string names: no certificate of its chain has that hash")
		},
	}
}

// asker asks whoever the ticket leads to, if it is the one that it names.
func (t ticket) asker() asker {
	transport := &http.Transport{TLSClientConfig: t.tls(), DialContext: dialer(t.address), DisableKeepAlives: true}
	return asker{base: "https://" + t.name, http: &http.Client{Transport: transport}}
}

// Join uses a join string once: it makes a key, sends a request for its
// certificate, and writes what came back to dir (mode 0700). The key never
// leaves the host.
func Join(ctx context.Context, dir, join string) error {
	t, err := parseTicket(join)
	if err != nil {
		return err
	}
	if t.token == "" {
		return errors.New("the join string has no token: it is for a host whose TPM is allowed, which says --tpm")
	}
	if err := ownFolder(dir); err != nil {
		return err
	}
	key, csr, err := newKey()
	if err != nil {
		return err
	}
	var g grant
	if err := t.asker().post(ctx, "/v1/join", map[string]any{"token": t.token, "csr": csr}, &g); err != nil {
		return fmt.Errorf("joining at %s: %w", t.address, err)
	}
	return t.keep(dir, g, key, "")
}

// keep writes what joining gave. device is the TPM that key is in, or empty.
func (t ticket) keep(dir string, g grant, key crypto.Signer, device string) error {
	pair, err := keyPair(key, g.Certificate)
	if err != nil {
		return err
	}
	j := g.joined
	j.Address, j.Name, j.TPM = t.address, t.name, device
	if _, err := j.roots(); err != nil {
		return err
	}
	return writeState(dir, j, pair)
}

// ownFolder makes the folder for the host's key, or refuses one that others may look
// into. What it is in must be the way to it for the agent's worker, who is not root.
func ownFolder(dir string) error {
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o755), os.MkdirAll(dir, 0o700)); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, and the host's key is to be there: chmod 700 it", dir, mode)
	}
	return nil
}
