package postgres

import (
	"fmt"
	"net/netip"
	"strings"

	"innate"
)

// HBA are the lines of pg_hba.conf that make PostgreSQL ask the gateway at that
// address. They belong above everything broader: the first line that matches
// decides. Whoever is not a member of Managed falls to the lines below.
func HBA(server innate.ResourceID, gateway netip.AddrPort, certificate bool) []string {
	method := fmt.Sprintf(`ldap ldapserver=%s ldapport=%d ldaptls=1 ldapprefix="%s" ldapsuffix="%s"`,
		gateway.Addr(), gateway.Port(), Prefix, Suffix(server))
	if certificate {
		method = "cert map=" + certificateMap
	}
	lines := []string{
		"local     postgres  " + Management + "               peer map=" + managementMap,
		"local     all       +" + Managed + "              reject",
		"hostnossl all       +" + Managed + "  all         reject",
		"hostssl   all       +" + Managed + "  0.0.0.0/0   " + method,
		"hostssl   all       +" + Managed + "  ::/0        " + method,
	}
	return lines
}

// The maps of pg_ident.conf.
const (
	managementMap  = "innate"              // the gateway's user to its role
	certificateMap = "innate_certificates" // names in client certificates to roles
)

// Ident is the line of pg_ident.conf that lets the gateway's user be the management role.
func Ident(user string) string { return strings.Join([]string{managementMap, user, Management}, "  ") }
