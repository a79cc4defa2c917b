package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"innate"
	"innate/hosts"
)

// A prover is what an agent is to the control plane: a host that joined, with
// the certificate of an identity placed on it. The bench is its own agent here,
// since the real one asks for a token once an hour.
type prover struct {
	stage    *stage
	endpoint string // where the certificate is the credential
	cert     tls.Certificate
	object   innate.ObjectID
	client   innate.ClientID
	vaults   string // its token for vaults, once it may use the bench's
}

// prover joins a second host, places a VM on it and gets the certificate of the
// VM's identity, once.
func (b *bench) prover(ctx context.Context) (*prover, error) {
	st, err := b.platform(ctx)
	if err != nil {
		return nil, err
	}
	if st.prover != nil {
		return st.prover, nil
	}
	machine, vm := st.resource(typeMachine, "bench-host"), st.resource(typeVM, "bench-vm")
	if _, err := st.put(ctx, machine, map[string]any{}); err != nil {
		return nil, err
	}
	host, grant, err := st.join(ctx, machine)
	if err != nil {
		return nil, fmt.Errorf("joining as %s: %w", machine.Name(), err)
	}
	identity, err := st.put(ctx, vm, map[string]any{
		"properties": map[string]any{"host": map[string]any{"id": machine}}, "identity": map[string]string{"type": "SystemAssigned"},
	})
	if err != nil {
		return nil, err
	}
	p := &prover{stage: st, endpoint: grant.Token, object: identity.Principal}
	if p.cert, err = st.certify(ctx, host, vm, p.object); err != nil {
		return nil, fmt.Errorf("asking for the certificate of %s: %w", vm.Name(), err)
	}
	p.client = innate.ClientID(p.cert.Leaf.Subject.CommonName)
	st.prover = p
	return p, nil
}

// join lets this process in as the agent of a machine (see hosts.Hosts.Handler).
func (st *stage) join(ctx context.Context, machine innate.ResourceID) (cert tls.Certificate, g hosts.Grant, err error) {
	var ticket struct {
		Join string `json:"join"`
	}
	if err := st.Admin.ARM(ctx, http.MethodPost, string(machine)+"/join", nil, &ticket); err != nil {
		return cert, g, err
	}
	u, err := url.Parse(ticket.Join)
	if err != nil {
		return cert, g, errors.New("the join string is no URL") // url's own error would quote the token
	}
	key, csr, err := newRequest()
	if err != nil {
		return cert, g, err
	}
	if err := st.ask(ctx, nil, "/v1/join", map[string]any{"token": u.User.Username(), "csr": csr}, &g); err != nil {
		return cert, g, err
	}
	cert, err = pair(key, g.Certificate)
	return cert, g, err
}

// certify gets the certificate of an identity of a resource on the host.
func (st *stage) certify(ctx context.Context, host tls.Certificate, resource innate.ResourceID, id innate.ObjectID) (tls.Certificate, error) {
	key, csr, err := newRequest()
	if err != nil {
		return tls.Certificate{}, err
	}
	var answer struct {
		Certificate []byte `json:"certificate"`
	}
	if err := st.ask(ctx, &host, "/v1/identities", map[string]any{"resource": resource, "identity": id, "csr": csr}, &answer); err != nil {
		return tls.Certificate{}, err
	}
	return pair(key, answer.Certificate)
}

func newRequest() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

func pair(key crypto.PrivateKey, der []byte) (tls.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// ask posts JSON to where hosts ask, under a certificate or none.
func (st *stage) ask(ctx context.Context, cert *tls.Certificate, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	l := load{
		Method: http.MethodPost, URL: st.Server.Hosts + path,
		Header: map[string]string{"Content-Type": "application/json"}, Body: string(body),
	}
	r, err := l.once(ctx, st.dial("hosts", cert))
	if err != nil {
		return err
	}
	return json.Unmarshal(r.Body, out)
}

// load is the agent's request for a token.
func (p *prover) load(audience string) load {
	return load{
		Method: http.MethodPost, URL: p.endpoint, Connections: benchHosts,
		Header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		Body: url.Values{
			"grant_type": {"client_credentials"}, "client_id": {string(p.client)},
			"resource": {audience}, "assurance": {innate.NetNS.String()},
		}.Encode(),
	}
}

// dial connects under the identity's certificate.
func (p *prover) dial() dialFunc { return p.stage.dial("hosts", &p.cert) }

// token asks once.
func (p *prover) token(ctx context.Context, audience string) (string, error) {
	r, err := p.load(audience).once(ctx, p.dial())
	if err != nil {
		return "", err
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(r.Body, &answer); err != nil || answer.Token == "" {
		return "", errors.New("the answer holds no token")
	}
	return answer.Token, nil
}

// algorithm is the alg of a token's header.
func algorithm(token string) (string, error) {
	first, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(first)
	if err != nil {
		return "", errors.New("the token is no JWT")
	}
	var header struct {
		Alg string `json:"alg"`
	}
	return header.Alg, json.Unmarshal(b, &header)
}
