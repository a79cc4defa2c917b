package discovery_test

import (
	"net/netip"
	"testing"

	"innate/discovery"
)

func TestOnlyAddressesOfTheInternetAreOutside(t *testing.T) {
	for addr, want := range map[string]string{
		"1.1.1.1":                "",
		"11.0.0.0":               "",
		"100.63.255.255":         "", // the last below the carriers' range
		"100.128.0.0":            "",
		"172.15.255.255":         "",
		"172.32.0.0":             "",
		"168.63.129.15":          "",
		"2606:4700::1":           "",
		"2a00:1450:4001::1":      "",
		"::ffff:1.1.1.1":         "", // a socket's way to write 1.1.1.1
		"64:ff9b::101:101":       "", // how a machine with IPv6 alone gets to 1.1.1.1
		"2002:101:101::1":        "",
		"0.0.0.0":                "an unspecified address",
		"0.1.2.3":                "an unspecified address",
		"10.0.0.8":               "a private address",
		"100.64.0.1":             "a carrier's shared address",
		"100.100.100.200":        "a carrier's shared address", // a cloud's metadata service
		"127.0.0.1":              "a loopback address",
		"127.255.255.254":        "a loopback address",
		"168.63.129.16":          "an address of the cloud's own",
		"169.254.169.254":        "a link-local address",
		"172.16.0.1":             "a private address",
		"172.31.255.255":         "a private address",
		"192.0.0.192":            "a reserved address",
		"192.0.2.1":              "a documentation address",
		"192.168.1.1":            "a private address",
		"198.18.0.1":             "a benchmark address",
		"198.19.255.255":         "a benchmark address",
		"224.0.0.1":              "a multicast address",
		"239.255.255.255":        "a multicast address",
		"240.0.0.1":              "a reserved address",
		"255.255.255.255":        "a reserved address",
		"::":                     "an unspecified address",
		"::1":                    "a loopback address",
		"::127.0.0.1":            "a reserved address", // IPv4-compatible, deprecated
		"::ffff:127.0.0.1":       "a loopback address",
		"::ffff:10.0.0.8":        "a private address",
		"::ffff:0:10.0.0.8":      "a reserved address", // IPv4-translated
		"64:ff9b::7f00:1":        "a loopback address",
		"64:ff9b::a9fe:a9fe":     "a link-local address",
		"64:ff9b:1::a9fe:a9fe":   "a reserved address", // a site's own NAT64
		"2002:a00:8::1":          "a private address",
		"2002:7f00:1::":          "a loopback address",
		"2001:0:a9fe:a9fe::1":    "a reserved address", // Teredo
		"2001:db8::1":            "a documentation address",
		"3fff::1":                "a documentation address",
		"100::1":                 "a reserved address",
		"4000::1":                "a reserved address",
		"fc00::1":                "a private address",
		"fd00:ec2::254":          "a private address", // a cloud's metadata service
		"fe80::1":                "a link-local address",
		"fe80::1%eth0":           "a link-local address",
		"fec0::1":                "a reserved address",
		"ff02::1":                "a multicast address",
		"::ffff:169.254.169.254": "a link-local address",
	} {
		if got := discovery.Refused(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %q, want %q", addr, got, want)
		}
	}
	if got := discovery.Refused(netip.Addr{}); got == "" {
		t.Error("no address at all is outside")
	}
}
