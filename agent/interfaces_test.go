package agent_test

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/vishvananda/netlink"

	"innate/agent"
	"innate/agent/caller"
	"innate/feed/client"
)

// attached is a network namespace that is web-1, and its agent.
func attached(t *testing.T, p *plane, change func(*agent.Config)) *os.File {
	t.Helper()
	ns := namespace(t)
	p.place(client.Placement{Resource: webVM, VMID: "cccccccc-0000-0000-0000-000000000001"})
	a := p.start(change)
	if err := agent.Attach(a.socket(), "web-1", agent.Place{NetNS: path(ns)}); err != nil {
		t.Fatal(err)
	}
	return ns
}

func TestAVMReadsTheInterfacesThatItHas(t *testing.T) {
	p := newPlane(t)
	ns := attached(t, p, nil)
	tell := func() string {
		t.Helper()
		status, body, err := getInside(t, ns, "/metadata/instance/network?api-version=2021-02-01")
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %s %v", status, body, err)
		}
		return string(body)
	}
	// The loopback device is no interface, though the metadata address is on it.
	if got, want := tell(), `{"interface":[]}`; got != want {
		t.Errorf("without a network: got %s, want %s", got, want)
	}
	if err := caller.InNamespace(ns, func() error {
		eth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: net.HardwareAddr{0x02, 0, 0, 0xaa, 0, 1}},
			PeerName:  "peer0", PeerHardwareAddr: net.HardwareAddr{0x02, 0, 0, 0xaa, 0, 2},
		}
		if err := netlink.LinkAdd(eth); err != nil {
			return err
		}
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		var errs []error
		for _, address := range []string{"10.1.2.3/24", "fd00::3/64", "fe80::3/64"} { // the last is for neighbours alone
			a, err := netlink.ParseAddr(address)
			errs = append(errs, err, netlink.AddrAdd(link, a))
		}
		return errors.Join(append(errs, netlink.LinkSetUp(link))...)
	}); err != nil {
		t.Fatal(err)
	}
	var network struct {
		Interface []struct {
			MACAddress string
			IPv4       json.RawMessage
			IPv6       json.RawMessage
		}
	}
	if err := json.Unmarshal([]byte(tell()), &network); err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, i := range network.Interface {
		found[i.MACAddress] = string(i.IPv4) + string(i.IPv6)
	}
	want := `{"ipAddress":[{"privateIpAddress":"10.1.2.3","publicIpAddress":""}],"subnet":[{"address":"10.1.2.0","prefix":"24"}]}` +
		`{"ipAddress":[{"privateIpAddress":"fd00::3"}]}`
	if got := found["020000AA0001"]; got != want || len(found) != 2 {
		t.Errorf("got %v\nwant %s", found, want)
	}
}

// What is behind a cable cannot be read from the host, and is not guessed.
func TestOfAVMsInterfacesNoMoreIsToldThanItsPlaceShows(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 3)
	port, device := onBridge(t, 1)[0], newGuest(t, 2)
	a.attach(t, 2, agent.Place{Device: device.device})
	a.attach(t, 3, agent.Place{Host: true})
	tell := func(ns *os.File) string {
		t.Helper()
		status, body, err := getFrom(t, ns, "", patient, "/metadata/instance/network?api-version=2021-02-01")
		if err != nil || status != http.StatusOK {
			t.Fatalf("%d %s %v", status, body, err)
		}
		return string(body)
	}
	if got, want := tell(device.ns), `{"interface":[]}`; got != want {
		t.Errorf("behind a device: got %s, want %s", got, want)
	}
	if got := tell(nil); !strings.Contains(got, `"0200000000FE"`) {
		t.Errorf("the host: got %s, want its own", got)
	}
	needsNFT(t, a)
	a.attach(t, 1, port.atPort())
	if got, want := tell(port.ns), `{"interface":[{"ipv4":{"ipAddress":[{"privateIpAddress":"10.9.0.1","publicIpAddress":""}],`+
		`"subnet":[{"address":"10.9.0.1","prefix":"32"}]},"ipv6":{"ipAddress":[]},"macAddress":"020000000001"}]}`; got != want {
		t.Errorf("at a port: got %s\nwant %s", got, want)
	}
}

func TestAVMsDocumentsAreSignedOnItsHostForAsLongAsTheControlPlaneSays(t *testing.T) {
	p := newPlane(t)
	ahead := new(clock)
	ns := attached(t, p, func(c *agent.Config) { c.Now = ahead.now })
	roots := x509.NewCertPool()
	roots.AddCert(p.ca)
	ask := func() (status int, p7 *pkcs7.PKCS7) {
		t.Helper()
		status, body, err := getInside(t, ns, "/metadata/attested/document?api-version=2020-09-01&nonce=1234567890")
		if err != nil {
			t.Fatal(err)
		}
		if status != http.StatusOK {
			return status, nil
		}
		var a struct{ Signature []byte }
		if err := json.Unmarshal(body, &a); err != nil {
			t.Fatal(err)
		}
		if p7, err = pkcs7.Parse(a.Signature); err != nil {
			t.Fatal(err)
		}
		return status, p7
	}
	for range 3 {
		status, p7 := ask()
		if status != http.StatusOK {
			t.Fatalf("got %d", status)
		}
		if err := p7.VerifyWithChain(roots); err != nil {
			t.Error(err)
		}
		var document struct{ Nonce, VMID string }
		if err := json.Unmarshal(p7.Content, &document); err != nil || document.Nonce != "1234567890" || document.VMID != "cccccccc-0000-0000-0000-000000000001" {
			t.Errorf("%s: %v", p7.Content, err)
		}
	}
	if n := p.documents.Load(); n != 1 {
		t.Errorf("%d certificates for three documents, want 1", n)
	}
	ahead.advance(20 * time.Hour) // of 24: past the middle
	if status, _ := ask(); status != http.StatusOK || p.documents.Load() != 2 {
		t.Errorf("past half its life: got %d and %d certificates, want a second one", status, p.documents.Load())
	}
	p.server.CloseClientConnections()
	p.server.Listener.Close()
	if status, _ := ask(); status != http.StatusOK {
		t.Errorf("with the control plane away: got %d, want what it vouched for", status)
	}
	ahead.advance(4 * time.Hour)
	if status, _ := ask(); status != http.StatusServiceUnavailable {
		t.Errorf("with nothing left of that: got %d, want 503", status)
	}
}
