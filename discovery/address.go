package discovery

import "net/netip"

// inside are the networks to which nothing goes that someone else's input
// causes. Of IPv6 they are those within 2000::/3: all else is no address of the
// internet (IANA's registries of special-purpose addresses, RFC 6890).
var inside = []struct {
	network netip.Prefix
	what    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an unspecified address"}, // Linux connects 0.0.0.0 to itself
	{netip.MustParsePrefix("10.0.0.0/8"), "a private address"},
	{netip.MustParsePrefix("100.64.0.0/10"), "a carrier's shared address"}, // RFC 6598; some clouds serve metadata here
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("168.63.129.16/32"), "an address of the cloud's own"}, // what Azure's machines ask of their host
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},            // metadata services, ours too
	{netip.MustParsePrefix("172.16.0.0/12"), "a private address"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved address"},
	{netip.MustParsePrefix("192.0.2.0/24"), "a documentation address"},
	{netip.MustParsePrefix("192.88.99.0/24"), "a reserved address"}, // relays of 6to4
	{netip.MustParsePrefix("192.168.0.0/16"), "a private address"},
	{netip.MustParsePrefix("198.18.0.0/15"), "a benchmark address"},
	{netip.MustParsePrefix("198.51.100.0/24"), "a documentation address"},
	{netip.MustParsePrefix("203.0.113.0/24"), "a documentation address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"}, // broadcast is its last

	{netip.MustParsePrefix("2001::/23"), "a reserved address"}, // Teredo, which has an IPv4 address in it, and others
	{netip.MustParsePrefix("2001:db8::/32"), "a documentation address"},
	{netip.MustParsePrefix("3fff::/20"), "a documentation address"},

	// Refused by not being within 2000::/3; here for their names.
	{netip.MustParsePrefix("::/128"), "an unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("fc00::/7"), "a private address"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
}

var (
	internet  = netip.MustParsePrefix("2000::/3")
	sixToFour = netip.MustParsePrefix("2002::/16")    // RFC 3056
	nat64     = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052
)

// Refused is what makes an address one of the inside, such as "a private
// address"; empty when it is one of the internet. An IPv6 address that stands
// for an IPv4 one is judged by that one.
func Refused(addr netip.Addr) string {
	addr = embedded(addr.WithZone("").Unmap())
	for _, n := range inside {
		if n.network.Contains(addr) {
			return n.what
		}
	}
	if !addr.Is4() && !internet.Contains(addr) {
		return "a reserved address"
	}
	return ""
}

// embedded is the IPv4 address to which packets for addr end up going; addr
// itself when there is none.
func embedded(addr netip.Addr) netip.Addr {
	b := addr.As16()
	switch {
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:16]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return addr
}
