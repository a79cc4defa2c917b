package postgres

import (
	"fmt"
	"net/netip"
	"strings"

	"innate"
	"innate/gateway/postgres/block"
)

// HBA are the lines of pg_hba.conf that let the members of Managed log in by a
// method: ByToken's or ByCertificate. They belong above everything broader: the
// first line that matches decides. Whoever is no member falls to the lines below.
func HBA(method string) []string {
	return []string{
		"local     postgres  " + Management + "               peer map=" + managementMap,
		"local     all       +" + Managed + "              reject",
		"hostnossl all       +" + Managed + "  all         reject",
		"hostssl   all       +" + Managed + "  0.0.0.0/0   " + method,
		"hostssl   all       +" + Managed + "  ::/0        " + method,
	}
}

// ByToken makes PostgreSQL ask the gateway at that address whether the password is
// a good token.
func ByToken(server innate.ResourceID, gateway netip.AddrPort) string {
	return fmt.Sprintf(`ldap ldapserver=%s ldapport=%d ldaptls=1 ldapprefix="%s" ldapsuffix="%s"`,
		gateway.Addr(), gateway.Port(), Prefix, Suffix(server))
}

// ByCertificate makes PostgreSQL look for the whole name in the client's
// certificate in the rows that the gateway keeps.
const ByCertificate = "cert map=" + CertificateMap + " clientname=DN"

// Environment is what the server's environment must say to libldap, where clients
// log in by token; ca is the path of CAFile. Without the timeouts a log-in outlives
// every limit of PostgreSQL's own (postgres.md §3.3). Without SASL_PATH the process
// of each log-in loads all of SASL's plugins, a tenth of what it costs, and
// PostgreSQL binds by password alone. The folder is the kernel's: it is there, and
// nobody can put a library into it.
func Environment(ca string) []string {
	return []string{"LDAPTLS_CACERT=" + ca, "LDAPNETWORK_TIMEOUT=2", "LDAPTIMEOUT=3", "SASL_PATH=/proc/sys"}
}

// The maps of pg_ident.conf.
const (
	managementMap = "innate" // the gateway's user to its role

	// CertificateMap maps names in client certificates to roles.
	CertificateMap = "innate_certificates"
)

// Ident is the line of pg_ident.conf that lets the gateway's user be the management role.
func Ident(user string) string { return strings.Join([]string{managementMap, user, Management}, "  ") }

// Rows is the mark of the block in pg_ident.conf whose lines are the gateway's:
// prepare makes it, for a server where clients log in by certificate.
const Rows block.Mark = "# BEGIN innate gateway: kept by 'innate gateway postgres', changes in here are lost"

// row is the line of pg_ident.conf by which an identity logs in as a role with a
// certificate that it got at a place, for this server. PostgreSQL compares it with
// the name in the certificate as RFC 2253 writes it, the last part first.
//
// Inside of quotes nothing has a meaning but a quote, which is doubled, and, from
// PostgreSQL 16 on, a slash at the beginning of a role, which makes it a pattern;
// a line ends where it ends. Such roles have no row.
func row(server innate.ResourceID, place string, who innate.ObjectID, role string) (line string, ok bool) {
	name := "OU=" + strings.ToLower(server.Name()) + ",OU=" + place + ",CN=" + string(who)
	if strings.HasPrefix(role, "/") || strings.ContainsAny(role+name, "\n\r\x00") {
		return "", false
	}
	quoted := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	return strings.Join([]string{CertificateMap, quoted(name), quoted(role)}, "  "), true
}
