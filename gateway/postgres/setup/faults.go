package setup

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"innate/gateway/postgres"
)

// How bad a fault is.
const (
	Unsafe  = "unsafe"  // somebody may get in who should not, or cannot be thrown out
	Missing = "missing" // log-ins by identity do not work
	Advice  = "advice"  // they do, and something could be better
)

// A Fault is something about a server that is not as it should be.
type Fault struct {
	Kind string `json:"kind"`
	What string `json:"what"`
	Do   string `json:"do"` // what mends it
}

const prepare = "'innate postgres prepare' shows the change"

// Faults are what is wrong, the worst first. present says what the gateway
// answered: nil when it is there.
func (s *Server) Faults(gateway error) (all []Fault) {
	add := func(kind, do, format string, args ...any) {
		all = append(all, Fault{kind, fmt.Sprintf(format, args...), do})
	}
	s.buildFaults(add)
	s.ruleFaults(add)
	s.roleFaults(add)
	s.environmentFaults(add)
	s.authorityFaults(add)
	s.certificateFaults(add)
	if gateway != nil {
		add(Missing, "start 'innate gateway postgres' there, and look at what it writes", "no gateway answers at %s: %v", s.config.Gateway, gateway)
	}
	rank := []string{Unsafe, Missing, Advice}
	slices.SortStableFunc(all, func(a, b Fault) int { return slices.Index(rank, a.Kind) - slices.Index(rank, b.Kind) })
	return all
}

type adder func(kind, do, format string, args ...any)

func (s *Server) buildFaults(add adder) {
	if s.version < 140000 && s.config.Certificate {
		add(Missing, "upgrade the server", "PostgreSQL %s cannot compare the whole name in a certificate (clientname): 14 is the oldest that can", s.release)
	} else if s.version < 140000 {
		add(Missing, "upgrade the server", "PostgreSQL %s cuts passwords near 1000 bytes, and a token is longer: 14 is the oldest that works", s.release)
	}
	if !s.ldap && !s.config.Certificate {
		add(Missing, "install a PostgreSQL that is, such as Debian's or PGDG's, or let clients log in by certificate", "this PostgreSQL is built without LDAP, by which it asks the gateway")
	}
	if s.settings["ssl"] != "on" {
		add(Missing, "set ssl = on with a certificate for the name that clients connect to", "TLS is off: a token would travel in clear, so log-ins by identity are refused")
	}
	if s.loginTime() > longestLogin {
		add(Advice, prepare, "a log-in may take %d s (authentication_timeout), and holds a connection meanwhile: 10 s is enough", s.loginTime())
	}
	if s.settings["log_connections"] == "off" {
		add(Advice, prepare, "log-ins are not in the server's log (log_connections)")
	}
}

// ruleFaults looks at pg_hba.conf as the server reads it: the first line that
// matches a log-in decides.
func (s *Server) ruleFaults(add adder) {
	method := "ldap"
	if s.config.Certificate {
		method = "cert"
	}
	asks := func(r rule) bool { return slices.Contains(r.Users, "+"+managed) && r.Method == method }
	ours := !slices.ContainsFunc(s.rules, asks) // without a line of ours nothing comes before it
	if ours {
		add(Missing, prepare, "pg_hba.conf has no line by which the members of %s log in (%s)", managed, method)
	}
	for _, r := range s.rules {
		switch {
		case r.Error != "":
			add(Missing, "mend the line", "pg_hba.conf line %d cannot be read, and the whole file is passed over: %s", r.Line, r.Error)
		case asks(r):
			ours = true
			s.methodFaults(add, r)
		case slices.Contains(r.Users, "+"+managed) && r.Method == "reject", slices.Equal(r.Users, []string{management}):
		case !ours && r.Type != "local" && s.catches(r):
			add(Unsafe, "move the lines of 'innate postgres prepare' to the head of the file", "pg_hba.conf line %d (%s %s, %s) comes before ours and lets roles that are for tokens in by %s",
				r.Line, r.Type, strings.Join(r.Users, ","), strings.Join(r.Databases, ","), r.Method)
		}
	}
	for _, fault := range s.maps {
		add(Missing, "mend the line", "pg_ident.conf %s", fault)
	}
}

// catches reports whether a line matches a role that is for tokens, other than
// by its being one.
func (s *Server) catches(r rule) bool {
	if r.Method == "reject" || slices.Equal(r.Databases, []string{"replication"}) {
		return false // it lets nobody in, or only roles with REPLICATION
	}
	for _, user := range r.Users {
		if user == "all" || strings.HasPrefix(user, "+") && user != "+"+managed || s.roles[user].Managed {
			return true
		}
	}
	return false
}

func (s *Server) methodFaults(add adder, r rule) {
	options := map[string]string{}
	for _, o := range r.Options {
		name, value, _ := strings.Cut(o, "=")
		options[name] = value
	}
	if r.Method == "cert" {
		certificateRuleFaults(add, r, options)
		return
	}
	if options["ldapscheme"] == "ldaps" {
		add(Unsafe, prepare, "pg_hba.conf line %d asks by ldaps: no timeout ends its handshake, and a gateway that is stuck holds every log-in for ever. StartTLS (ldaptls=1) is met in a bounded wait", r.Line)
	} else if options["ldaptls"] != "true" && options["ldaptls"] != "1" {
		add(Unsafe, prepare, "pg_hba.conf line %d sends tokens to the gateway in clear, and believes whoever answers: ldaptls=1 is missing", r.Line)
	}
	if r.Type != "hostssl" {
		add(Unsafe, prepare, "pg_hba.conf line %d takes tokens over connections without TLS: want hostssl", r.Line)
	}
	if server := options["ldapserver"]; server == "localhost" {
		add(Missing, prepare, "pg_hba.conf line %d says ldapserver=localhost, for which libldap expects a certificate with this machine's own name: say 127.0.0.1", r.Line)
	} else if server != s.config.Gateway.Addr().String() || options["ldapport"] != strconv.Itoa(int(s.config.Gateway.Port())) {
		add(Missing, prepare, "pg_hba.conf line %d asks %s port %s, and the gateway is at %s", r.Line, server, options["ldapport"], s.config.Gateway)
	}
	if _, has := options["ldapbasedn"]; has {
		add(Missing, prepare, "pg_hba.conf line %d searches before it binds (ldapbasedn), and the gateway is no directory", r.Line)
	}
}

func (s *Server) roleFaults(add adder) {
	if _, ok := s.roles[managed]; !ok {
		add(Missing, prepare, "there is no role %s, whose members log in by token", managed)
	}
	gateway, ok := s.roles[management]
	switch {
	case !ok:
		add(Missing, prepare, "there is no role %s, by which the gateway ends sessions", management)
	case gateway.Superuser:
		add(Unsafe, "ALTER ROLE "+management+" NOSUPERUSER", "the gateway's role is a superuser, and need not be")
	case !gateway.LogsIn || !gateway.MayEnd || !gateway.MaySee:
		add(Missing, prepare, "%s must log in and be a member of pg_signal_backend and pg_read_all_stats: the gateway could not end sessions", management)
	}
	if gateway.Managed {
		add(Missing, fmt.Sprintf("REVOKE %s FROM %s", managed, management), "%s is a member of %s: it would need a token itself", management, managed)
	}
	for _, name := range slices.Sorted(maps.Keys(s.roles)) {
		if r := s.roles[name]; r.Managed && r.Superuser {
			add(Unsafe, "map identities to a role that is none, and grant it what they need", "role %q is for tokens and a superuser: its sessions cannot be ended when their right is", name)
		}
	}
	for _, name := range s.config.Roles {
		r, ok := s.roles[name]
		switch {
		case !ok:
			add(Missing, prepare, "there is no role %q: a good token for it is refused by the server (role does not exist)", name)
		case r.Superuser && !r.Managed:
			add(Unsafe, "map identities to a role that is none", "role %q is a superuser: no identity should be", name)
		case !r.LogsIn:
			add(Missing, prepare, "role %q may not log in", name)
		case !r.Managed:
			add(Missing, prepare, "role %q is no member of %s: it does not log in by token", name, managed)
		}
	}
}

// missingVariables are those of libldap's that the server runs without.
func (s *Server) missingVariables() (missing []string) {
	for _, v := range postgres.Environment(s.config.CA) {
		if name, _, _ := strings.Cut(v, "="); s.environment[name] == "" {
			missing = append(missing, name)
		}
	}
	return missing
}

func (s *Server) environmentFaults(add adder) {
	if s.config.Certificate {
		return
	}
	if s.environment == nil {
		add(Advice, "run this on the server's host, as root or as its user", "the server's environment could not be read: %v", s.unreadable)
		return
	}
	restart := "restart the server: its environment is read at its start alone"
	if path, _ := s.environmentFile(); path == "" {
		restart = "put them into the environment of whatever starts the server, and restart it"
	}
	for _, name := range s.missingVariables() {
		switch name {
		case "LDAPTLS_CACERT":
			add(Missing, prepare+"; "+restart, "the server runs without LDAPTLS_CACERT and believes no gateway")
		case "SASL_PATH":
			add(Advice, prepare+"; "+restart, "the server runs without SASL_PATH: each log-in loads plugins that it has no use for, a tenth of what it costs")
		default:
			add(Unsafe, prepare+"; "+restart, "the server runs without %s: a gateway that is stuck can hold log-ins for ever, and each holds a connection", name)
		}
	}
	if ca := s.environment["LDAPTLS_CACERT"]; ca != "" && ca != s.config.CA {
		add(Missing, prepare+"; "+restart, "the server runs with LDAPTLS_CACERT=%s, and the gateway's is %s", ca, s.config.CA)
	}
	switch strings.ToLower(s.environment["LDAPTLS_REQCERT"]) {
	case "never", "allow", "try":
		add(Unsafe, "take it out of the server's environment; "+restart, "the server runs with LDAPTLS_REQCERT=%s and believes any gateway: who takes the port gets everybody's tokens, and lets anyone in", s.environment["LDAPTLS_REQCERT"])
	}
}

func (s *Server) authorityFaults(add adder) {
	if s.config.Certificate {
		return
	}
	b, err := os.ReadFile(s.config.CA)
	if err != nil {
		add(Missing, "start the gateway once: it makes it", "the gateway's authority cannot be read: %v", err)
		return
	}
	block, _ := pem.Decode(b)
	if block == nil {
		add(Missing, "remove it and start the gateway again", "%s holds no certificate", s.config.CA)
		return
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		add(Missing, "remove it and start the gateway again", "%s: %v", s.config.CA, err)
		return
	}
	if left := time.Until(cert.NotAfter); left < 365*24*time.Hour {
		add(Advice, "remove it and the key beside it, and restart the gateway and the server", "the gateway's authority ends at %s", cert.NotAfter.Format(time.DateOnly))
	}
}
