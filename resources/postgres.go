package resources

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/netip"
	"regexp"
	"strings"

	"innate"
	"innate/rest"
	"innate/store"
)

// Properties of PostgreSQL servers that mean something to us. In Azure the first
// is computed; here it is whatever host the server is found at.
const (
	propFQDN        = "fullyQualifiedDomainName"
	propPort        = "port"
	propAuthorities = "certificateAuthorities" // PEM, of the server's own TLS certificate
	propAcceptAzure = "acceptAzureAudiences"
	propLogIn       = "authentication" // by token or by certificate
)

const (
	postgresPort   = 5432
	logInByToken   = "token"
	logInByCert    = "certificate"
	maxHost        = 253      // RFC 1035 §2.3.4, without the root's dot
	maxAuthorities = 16 << 10 // bytes: each workload that may log in is told them
)

var (
	postgresNameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])$`)
	hostRule         = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
)

// A PostgresSettings is what a PostgreSQL server's properties say of logging in.
type PostgresSettings struct {
	Host        string // as clients connect; empty means {name}.{Endpoints.PostgresSuffix}
	Port        int
	Authorities string // PEM; empty means the platform's own
	AcceptAzure bool   // tokens for Azure's audiences are good there too
	Certificate bool   // clients log in by certificate, and not by token
}

// Postgres reads r's properties as those of a PostgreSQL server.
func (r *Resource) Postgres() PostgresSettings {
	p := PostgresSettings{Port: postgresPort, AcceptAzure: is(r, propAcceptAzure)}
	p.Host, _ = property[string](r, propFQDN)
	p.Authorities, _ = property[string](r, propAuthorities)
	if port, err := property[int](r, propPort); err == nil && port != 0 {
		p.Port = port
	}
	word, _ := property[string](r, propLogIn)
	p.Certificate = strings.EqualFold(word, logInByCert)
	return p
}

// postgresNaming is Azure's rule: the name becomes a label of a host name.
func postgresNaming(name string) error {
	if postgresNameRule.MatchString(strings.ToLower(name)) {
		return nil
	}
	return rest.Errorf(http.StatusBadRequest, "InvalidServerName",
		"the server name %q: want 3 to 63 letters, digits and hyphens, neither beginning nor ending with a hyphen: it becomes a label of a host name", name)
}

func checkPostgres(_ *Resources, r *Resource) error {
	host, err := property[string](r, propFQDN)
	if err != nil || host != "" && !isHost(host) {
		return invalid(propFQDN, "want the DNS name or IP address at which clients reach the server, without a port, as its TLS certificate says it")
	}
	port, err := property[*int](r, propPort)
	if err != nil || port != nil && (*port < 1 || *port > 65535) {
		return invalid(propPort, "want a number from 1 to 65535, not in quotes")
	}
	if _, err := property[bool](r, propAcceptAzure); err != nil {
		return invalid(propAcceptAzure, "want true or false")
	}
	word, err := property[string](r, propLogIn)
	if err != nil {
		return invalid(propLogIn, "want %q or %q", logInByToken, logInByCert)
	}
	switch {
	case word == "":
	case strings.EqualFold(word, logInByToken):
		keep(r, propLogIn, logInByToken)
	case strings.EqualFold(word, logInByCert):
		keep(r, propLogIn, logInByCert)
	default:
		return invalid(propLogIn, "%.40q: want %q or %q", word, logInByToken, logInByCert)
	}
	bundle, err := property[string](r, propAuthorities)
	if err != nil {
		return invalid(propAuthorities, "want one text with PEM certificates in it")
	}
	return checkBundle(bundle)
}

// isHost accepts a DNS name or an IP address: no path of a Unix socket, no port.
func isHost(s string) bool {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Zone() == ""
	}
	return len(s) <= maxHost && hostRule.MatchString(s)
}

// checkBundle accepts PEM certificates and nothing else. What it refuses it does
// not quote: it may be a key.
func checkBundle(bundle string) error {
	if len(bundle) > maxAuthorities {
		return invalid(propAuthorities, "%d bytes: want at most %d, the certificates of the authorities alone", len(bundle), maxAuthorities)
	}
	left := []byte(bundle)
	for n := 1; len(strings.TrimSpace(string(left))) > 0; n++ {
		var block *pem.Block
		if block, left = pem.Decode(left); block == nil {
			return invalid(propAuthorities, "there is something after %d PEM blocks that is none: want -----BEGIN CERTIFICATE----- and nothing else", n-1)
		}
		if block.Type != "CERTIFICATE" {
			return invalid(propAuthorities, "PEM block %d is no certificate: want those of authorities, and never a key", n)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return invalid(propAuthorities, "PEM block %d cannot be read as a certificate", n)
		}
	}
	return nil
}

func showPostgres(s *Resources, r *Resource, p map[string]any) {
	orElse(p, propFQDN, s.PostgresHost(r))
	orElse(p, propPort, postgresPort)
	orElse(p, propAcceptAzure, false)
	orElse(p, propLogIn, logInByToken)
	p["audience"] = s.PostgresAudience(r.ID.Name())
	p["state"] = "Ready"
}

// PostgresHost is the host at which clients reach a server.
func (s *Resources) PostgresHost(r *Resource) string {
	if host := r.Postgres().Host; host != "" {
		return host
	}
	return strings.ToLower(r.ID.Name()) + "." + s.config.Endpoints.PostgresSuffix
}

// PostgresAudience is the audience of the server of that name: tokens for it are
// worthless at any other.
func (s *Resources) PostgresAudience(name string) string {
	return "https://" + strings.ToLower(name) + "." + s.config.Endpoints.PostgresSuffix
}

// PostgresByAudience returns the server whose audience uri is, with or without a
// trailing slash. reserved says that it is or would be one, whether or not there is a server.
func (s *Resources) PostgresByAudience(uri string) (id innate.ResourceID, ok, reserved bool) {
	host, web := strings.CutPrefix(strings.ToLower(strings.TrimSuffix(uri, "/")), "https://")
	name, below := strings.CutSuffix(host, "."+s.config.Endpoints.PostgresSuffix)
	if !web || !below || strings.ContainsAny(name, "./:") {
		return "", false, false
	}
	id, ok = s.index.server(name)
	return id, ok, true
}

// PostgresServers lists the ids of all servers, in order of name.
func (s *Resources) PostgresServers() []innate.ResourceID { return s.index.allServers() }

// takePostgresName makes a server the one that answers to its name.
func takePostgresName(tx store.Tx, id innate.ResourceID) error {
	name := strings.ToLower(id.Name())
	_, taken, err := postgresNames.Get(tx, name)
	if err != nil {
		return err
	}
	if taken {
		return rest.Errorf(http.StatusConflict, "ServerNameAlreadyExists",
			"the server name %s is taken: it names a host and an audience, and is unique on the platform", id.Name())
	}
	return postgresNames.Put(tx, name, id)
}
