package innatetest_test

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"innate/agent"
	"innate/agent/caller"
	"innate/agent/launch"
	"innate/innatetest"
)

// inside runs ip in a network namespace.
func inside(t *testing.T, ns *os.File, args string) {
	t.Helper()
	var out []byte
	err := caller.InNamespace(ns, func() (err error) {
		out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func newSpace(t *testing.T) *os.File {
	t.Helper()
	ns, err := launch.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func pathOf(ns *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }

// VMs' devices need not be in the host's own network: here a router's namespace has them.
func TestAzidentityGetsTheTokenOfTheDeviceThatItComesInBy(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root may make a network namespace")
	}
	p := innatetest.Start(t, innatetest.WithPrograms(t))
	router := newSpace(t)
	inside(t, router, "link set lo up")
	inside(t, router, "link add br0 address 02:00:00:00:00:fe type bridge")
	inside(t, router, "link set br0 up")
	for i, place := range []agent.Place{
		{Device: "tap1", NetNS: pathOf(router)},
		{Port: "tap2", NetNS: pathOf(router), MAC: "02:00:00:00:00:02", Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2")}},
	} {
		t.Run(place.String(), func(t *testing.T) {
			if _, err := exec.LookPath("nft"); err != nil && place.Port != "" {
				t.Skip(err)
			}
			vm, own := p.VM(fmt.Sprintf("web-%d", i+1)), newSpace(t)
			inside(t, router, fmt.Sprintf("link add tap%d type veth peer name eth0 address 02:00:00:00:00:0%d netns %s", i+1, i+1, pathOf(own)))
			inside(t, router, fmt.Sprintf("link set tap%d up", i+1))
			way := "tap1"
			if place.Port != "" {
				inside(t, router, "link set tap2 master br0")
				way = "br0"
			}
			inside(t, router, fmt.Sprintf("route add 10.9.0.%d dev %s", i+1, way)) // a distribution's rp_filter wants it
			inside(t, own, "link set eth0 up")
			inside(t, own, fmt.Sprintf("address add 10.9.0.%d/32 dev eth0", i+1))
			inside(t, own, "route add 169.254.169.254 dev eth0")
			if err := agent.Attach(p.Dir.AgentSocket(), string(vm.ID()), place); err != nil {
				t.Fatal(err)
			}
			claims := tokenInside(t, own)
			if claims["oid"] != string(vm.Principal()) || claims["innate_assurance"] != "device" {
				t.Errorf("oid %v by %v, want %s by device", claims["oid"], claims["innate_assurance"], vm.Principal())
			}
		})
	}
}
