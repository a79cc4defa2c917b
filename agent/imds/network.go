package imds

import (
	"net/netip"
	"strconv"
	"strings"
)

// interfaces is network.interface as Azure writes it.
func interfaces(m vm) any {
	all := []any{}
	for _, i := range m.links {
		addresses, subnets, v6 := []any{}, []any{}, []any{}
		for _, p := range i.IPv4 {
			addresses = append(addresses, map[string]any{"privateIpAddress": p.Addr().String(), "publicIpAddress": public(p.Addr())})
			subnets = append(subnets, map[string]any{"address": p.Masked().Addr().String(), "prefix": strconv.Itoa(p.Bits())})
		}
		for _, a := range i.IPv6 {
			v6 = append(v6, map[string]any{"privateIpAddress": a.String()})
		}
		all = append(all, map[string]any{
			"ipv4":       map[string]any{"ipAddress": addresses, "subnet": subnets},
			"ipv6":       map[string]any{"ipAddress": v6},
			"macAddress": strings.ToUpper(strings.ReplaceAll(i.MAC.String(), ":", "")),
		})
	}
	return all
}

// shared is the space of carriers' address translation (RFC 6598): as private as RFC 1918's.
var shared = netip.MustParsePrefix("100.64.0.0/10")

// public is the address by which the world reaches an interface: its own, where
// that is public; what a translation on the way makes of it is not ours to know.
func public(a netip.Addr) string {
	if !a.IsGlobalUnicast() || a.IsPrivate() || shared.Contains(a) {
		return ""
	}
	return a.String()
}
