package agent_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate/agent/caller"
)

// A container routed through a VM is not the VM (host-attestation §4.6).
func TestAContainerBehindAVMGetsNoAnswer(t *testing.T) {
	p := newPlane(t)
	vm, container := attached(t, p, nil), namespace(t)
	errs := []error{caller.InNamespace(vm, func() error {
		return errors.Join(
			netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "inner0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(container.Fd()))}),
			setUp("inner0", "10.9.9.1/24"),
		)
	}), caller.InNamespace(container, func() error {
		return errors.Join(setUp("eth0", "10.9.9.2/24"), netlink.RouteAdd(&netlink.Route{Gw: net.IPv4(10, 9, 9, 1)}))
	})}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	dial := func(address string) error {
		return caller.InNamespace(container, func() error {
			c, err := net.DialTimeout("tcp4", address, 2*time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	if err := dial("10.9.9.1:1"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("the container does not reach the VM at all: %v", err)
	}
	if err := dial("169.254.169.254:80"); err == nil {
		t.Error("the container reached the VM's metadata service")
	}
	if status, _, err := getInside(t, vm, "/metadata/versions"); err != nil || status != 200 {
		t.Errorf("the VM itself: %d %v", status, err)
	}
}

// setUp gives a device of this thread's namespace an address.
func setUp(device, address string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(link))
}
