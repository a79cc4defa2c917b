package agent_test

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/agent"
	"innate/agent/caller"
	"innate/agent/endpoint"
)

func addresses(all ...string) (ips []netip.Addr) {
	for _, a := range all {
		ips = append(ips, netip.MustParseAddr(a))
	}
	return ips
}

// onBridge gives the host a bridge with n guests at it.
func onBridge(t *testing.T, n int) (guests []guest) {
	t.Helper()
	run(t, nil, "ip", "link", "add", "br0", "address", "02:00:00:00:00:fe", "type", "bridge") // else it is that of some port
	run(t, nil, "ip", "link", "set", "br0", "up")
	run(t, nil, "ip", "address", "add", "10.9.0.254/24", "dev", "br0")
	set(t, nil, "ipv4/conf/br0/rp_filter", "0")
	for i := range n {
		g := newGuest(t, i+1)
		run(t, nil, "ip", "link", "set", g.device, "master", "br0")
		guests = append(guests, g)
	}
	set(t, nil, "ipv4/neigh/br0/locktime", "0") // or a fresh entry would withstand a forgery by itself
	return guests
}

func (g guest) atPort() agent.Place {
	return agent.Place{Port: g.device, MAC: strings.ToUpper(g.mac), Addresses: addresses(g.ip)}
}

// needsNFT skips where the rules of a bridge cannot be written.
func needsNFT(t *testing.T, a running) {
	t.Helper()
	for _, p := range a.Status().Proofs {
		if p.Assurance == innate.Device && p.Note != "" {
			t.Skip(p.Note)
		}
	}
}

func TestAVMIsKnownByItsPortOfABridge(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)
	needsNFT(t, a)
	guests := onBridge(t, 3)
	victim, thief, stranger := guests[0], guests[1], guests[2]
	a.attach(t, 1, victim.atPort())
	a.attach(t, 2, thief.atPort())
	wants(t, "the first", victim.ns, 1, innate.Device)
	wants(t, "the second", thief.ns, 2, innate.Device)
	if got, err := asks(t, stranger.ns); err == nil {
		t.Errorf("a port that is no VM's: got %q, want no answer", got)
	}
	if err := agent.Attach(a.socket(), string(vm(2)), victim.atPort()); err == nil || !strings.Contains(err.Error(), "another VM's") {
		t.Errorf("a second VM at the first one's port: got %v", err)
	}
	a.attach(t, 2, thief.atPort()) // that had ended the second's

	for _, g := range []guest{thief, stranger} {
		run(t, g.ns, "ip", "address", "add", victim.ip+"/32", "dev", "eth0")
		if got, err := asksFrom(t, g.ns, victim.ip, quick); err == nil {
			t.Errorf("%s with the first one's IP: got %q, want nothing", g.device, got)
		}
		run(t, g.ns, "ip", "link", "set", "eth0", "address", victim.mac)
		if got, err := asksFrom(t, g.ns, victim.ip, quick); err == nil {
			t.Errorf("%s with the first one's IP and MAC: got %q, want nothing", g.device, got)
		}
		wants(t, "the first meanwhile", victim.ns, 1, innate.Device)
	}

	if out, err := try(nil, "ss", "-K", "-H", "-l", "-t", "src", "169.254.169.254:80"); err == nil && strings.Contains(out, "169.254") {
		back := func() bool { token, _ := asks(t, victim.ns); return isToken(token, 1, innate.Device) }
		eventually(t, "the bridge's listener, destroyed, is back", back)
	}

	run(t, nil, "ip", "link", "del", thief.device)
	eventually(t, "the second ends with its port", func() bool { return len(a.Status().Attached) == 1 })
	wants(t, "the first, alone", victim.ns, 1, innate.Device)
	if err := agent.Detach(a.socket(), "vm-1"); err != nil {
		t.Fatal(err)
	}
	if rules := run(t, nil, "nft", "list", "ruleset"); strings.Contains(rules, "innate") {
		t.Errorf("rules are left behind the last VM:\n%s", rules)
	}
}

// They share a socket, and no places at it.
func TestAVMThatHoldsManyConnectionsDoesNotKeepItsNeighboursOut(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)
	needsNFT(t, a)
	guests := onBridge(t, 2)
	for i, g := range guests {
		a.attach(t, i+1, g.atPort())
	}
	crowd := guests[1]
	wants(t, "before", crowd.ns, 2, innate.Device)
	const places = 2*endpoint.Connections + 1 // let in, waiting, and one at the door
	ended := make(chan bool, 2*places)
	if err := caller.InNamespace(crowd.ns, func() error {
		for range 2 * places {
			c, err := net.DialTimeout("tcp4", "169.254.169.254:80", patient)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			go func() {
				c.Read(make([]byte, 1)) // nothing ever comes
				ended <- true
			}()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := asks(t, guests[0].ns); err != nil || !isToken(got, 1, innate.Device) {
			t.Errorf("the neighbour meanwhile: got %q %v", got, err)
		}
	}
	late := time.After(4 * time.Second) // a second before all that say nothing are cut off
	for n := range places {
		select {
		case <-ended:
		case <-late:
			t.Fatalf("%d of %d connections were closed, want no more than %d open", n, 2*places, places)
		}
	}
	eventually(t, "who comes from among the crowd is served too", func() bool {
		token, _ := asks(t, crowd.ns)
		return isToken(token, 2, innate.Device)
	})
}

func TestOneHopAtABridgeIsEachVMsOwn(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)
	needsNFT(t, a)
	guests := onBridge(t, 2)
	far := guests[1].atPort()
	far.Hops = 2
	a.attach(t, 1, guests[0].atPort())
	a.attach(t, 2, far)
	for i, want := range []int{1, 2} {
		if got := hopsOfAnswers(t, guests[i]); got != want {
			t.Errorf("VM %d: answers live %d hops, want %d", i+1, got, want)
		}
	}
}

// hopsOfAnswers asks in a guest and returns how many hops the answer has left when it comes.
func hopsOfAnswers(t *testing.T, g guest) int {
	t.Helper()
	fd := g.raw(t, unix.SOCK_DGRAM, unix.ETH_P_IP)
	defer unix.Close(fd)
	wants(t, g.device, g.ns, int(four(g.ip)[3]), innate.Device)
	packet := make([]byte, 4096)
	for range 100 {
		n, _, err := unix.Recvfrom(fd, packet, unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		if strings.Contains(string(packet[:n]), "HTTP/1.1 200") {
			return int(packet[8])
		}
	}
	t.Fatal("no packet with the answer was seen")
	return 0
}

// raw opens a packet socket in a guest.
func (g guest) raw(t *testing.T, typ int, protocol uint16) (fd int) {
	t.Helper()
	err := caller.InNamespace(g.ns, func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, typ|unix.SOCK_CLOEXEC, int(protocol>>8|protocol<<8))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// forge sends an ARP answer from a guest: ip is at the guest's MAC. It is sent
// to the MAC and IP of whom it is to fool.
func (g guest) forge(t *testing.T, ip, mac, toMAC, toIP string) {
	t.Helper()
	fd := g.raw(t, unix.SOCK_RAW, 0)
	defer unix.Close(fd)
	sender, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	to, err := net.ParseMAC(toMAC)
	if err != nil {
		t.Fatal(err)
	}
	frame := slices.Concat(to, sender, []byte{8, 6}, // ARP
		[]byte{0, 1, 8, 0, 6, 4, 0, 2}, // Ethernet, IPv4, an answer
		sender, four(ip), to, four(toIP))
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: device(t, g.ns, "eth0").Index}); err != nil {
		t.Fatal(err)
	}
}

// device finds a network device in a namespace.
func device(t *testing.T, ns *os.File, name string) (found *net.Interface) {
	t.Helper()
	err := caller.InNamespace(ns, func() (err error) {
		found, err = net.InterfaceByName(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// knock has a namespace (nil: the host) find out the MAC of ip: nothing listens there.
func knock(ns *os.File, ip string) {
	dial := func() error {
		c, err := net.DialTimeout("tcp4", ip+":9", quick)
		if err == nil {
			c.Close()
		}
		return err
	}
	if ns == nil {
		dial()
		return
	}
	caller.InNamespace(ns, dial)
}

// believes is the MAC at which a namespace (nil: the host) takes ip to be.
func believes(t *testing.T, ns *os.File, ip string) string {
	t.Helper()
	fields := strings.Fields(run(t, ns, "ip", "neigh", "show", ip))
	if i := slices.Index(fields, "lladdr"); i >= 0 && i+1 < len(fields) {
		return fields[i+1]
	}
	return ""
}

// Whoever is believed to be the metadata service sees what is asked; whoever is
// believed to be a VM sees its answers, tokens among them.
func TestForgedARPFoolsNeitherVMsNorTheHost(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)
	needsNFT(t, a)
	guests := onBridge(t, 3)
	victim := guests[0]
	set(t, victim.ns, "ipv4/neigh/eth0/locktime", "0")
	br0, err := net.InterfaceByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, nil, "ip", "address", "add", "169.254.169.254/32", "dev", "lo")
	fooled := func(by guest) (vm, host bool) {
		run(t, nil, "ip", "neigh", "flush", "dev", "br0") // what an earlier round made them believe
		run(t, victim.ns, "ip", "neigh", "flush", "dev", "eth0")
		knock(nil, victim.ip)
		knock(victim.ns, "169.254.169.254")
		for range 5 {
			by.forge(t, "169.254.169.254", by.mac, victim.mac, victim.ip)
			by.forge(t, victim.ip, by.mac, br0.HardwareAddr.String(), "10.9.0.254")
		}
		return believes(t, victim.ns, "169.254.169.254") == by.mac, believes(t, nil, victim.ip) == by.mac
	}
	if vm, host := fooled(guests[2]); !vm || !host {
		t.Fatalf("without rules: VM fooled %v, host fooled %v; want both, or this test shows nothing", vm, host)
	}
	a.attach(t, 1, victim.atPort())
	a.attach(t, 2, guests[1].atPort())
	for what, by := range map[string]guest{"another VM": guests[1], "a port that is no VM's": guests[2]} {
		if vm, host := fooled(by); vm || host {
			t.Errorf("by %s: VM fooled %v, host fooled %v", what, vm, host)
		}
		wants(t, "the VM, for all that "+what+" sends", victim.ns, 1, innate.Device)
	}
}

func four(ip string) []byte { a := netip.MustParseAddr(ip).As4(); return a[:] }
