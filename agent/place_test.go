package agent_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"innate"
	"innate/agent"
	"innate/feed/client"
)

func path(ns *os.File) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.Fd()) }

func TestThreeNamespacesHaveThreeIdentities(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 3)
	spaces := []*os.File{namespace(t), namespace(t), namespace(t)}
	for i, ns := range spaces {
		a.attach(t, i+1, agent.Place{NetNS: path(ns)})
	}
	for i, ns := range spaces {
		wants(t, fmt.Sprintf("namespace %d", i+1), ns, i+1, innate.NetNS)
	}
	if got, err := asks(t, namespace(t)); err == nil {
		t.Errorf("a fourth namespace: got %q, want no answer", got)
	}
	if got, err := asks(t, nil); err == nil {
		t.Errorf("the host: got %q, want no answer", got)
	}
}

// An open listener keeps a namespace alive after everybody has left it.
func TestTheServiceEndsWithItsNamespaceAndLeavesNoCableBehind(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)

	name := fmt.Sprintf("innate-test-%d", os.Getpid())
	run(t, nil, "ip", "netns", "add", name)
	t.Cleanup(func() { try(nil, "ip", "netns", "del", name) }) // after a failure
	run(t, nil, "ip", "link", "add", "cable1", "type", "veth", "peer", "name", "eth0", "netns", name)
	a.attach(t, 1, agent.Place{NetNS: "/run/netns/" + name})

	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "ip", "link", "add", "cable2", "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(sleep.Process.Pid))
	a.attach(t, 2, agent.Place{NetNS: fmt.Sprintf("/proc/%d/ns/net", sleep.Process.Pid)})

	for cable, end := range map[string]func(){
		"cable1": func() { run(t, nil, "ip", "netns", "del", name) },
		"cable2": func() { sleep.Process.Kill(); sleep.Wait() },
	} {
		if _, err := net.InterfaceByName(cable); err != nil {
			t.Fatalf("before: %v", err)
		}
		end()
		eventually(t, cable+" is gone", func() bool { _, err := net.InterfaceByName(cable); return err != nil })
	}
	eventually(t, "nothing is attached", func() bool { return len(a.Status().Attached) == 0 })
}

func TestADestroyedListenerIsBackWithinASecond(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)
	one, two := namespace(t), namespace(t)
	a.attach(t, 1, agent.Place{NetNS: path(one)})
	a.attach(t, 2, agent.Place{NetNS: path(two)})
	wants(t, "before", one, 1, innate.NetNS)
	var away []time.Duration
	for range 3 {
		if out, err := try(one, "ss", "-K", "-H", "-l", "-t", "src", "169.254.169.254:80"); err != nil || !strings.Contains(out, "169.254.169.254") {
			t.Skipf("this machine's kernel or ss destroys no sockets: %v %s", err, out)
		}
		wants(t, "its neighbour meanwhile", two, 2, innate.NetNS)
		destroyed := time.Now()
		eventually(t, "the listener is back", func() bool { token, _ := asks(t, one); return isToken(token, 1, innate.NetNS) })
		away = append(away, time.Since(destroyed))
	}
	if slices.Sort(away); away[1] > time.Second {
		t.Errorf("it was away for %v, want a median of at most a second", away)
	}
}

func TestAVMIsKnownByItsDeviceAndNotByItsAddress(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 2)
	victim, thief := newGuest(t, 1), newGuest(t, 2)
	stranger := newGuest(t, 3)
	a.attach(t, 1, agent.Place{Device: victim.device})
	a.attach(t, 2, agent.Place{Device: thief.device})
	wants(t, "the first", victim.ns, 1, innate.Device)
	wants(t, "the second", thief.ns, 2, innate.Device)
	if got, err := asks(t, stranger.ns); err == nil {
		t.Errorf("a device that is no VM's: got %q, want no answer", got)
	}

	run(t, thief.ns, "ip", "address", "add", victim.ip+"/32", "dev", "eth0")
	if got, err := asksFrom(t, thief.ns, victim.ip, patient); err != nil || !isToken(got, 2, innate.Device) {
		t.Errorf("with the other's IP: got %q %v, want its own token", got, err)
	}
	run(t, thief.ns, "ip", "link", "set", "eth0", "address", victim.mac)
	if got, err := asksFrom(t, thief.ns, victim.ip, quick); err == nil && !isToken(got, 2, innate.Device) {
		t.Errorf("with the other's IP and MAC: got %q, want its own token or none", got)
	}
	wants(t, "the first, afterwards", victim.ns, 1, innate.Device)
}

// The next device of that name may be another VM's.
func TestTheServiceEndsWithItsDevice(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 1)
	g := newGuest(t, 1)
	a.attach(t, 1, agent.Place{Device: g.device})
	wants(t, "before", g.ns, 1, innate.Device)
	run(t, nil, "ip", "link", "del", g.device)
	g.plug(t)
	for range 20 { // at once, before the agent can have looked, and later
		if got, err := asks(t, g.ns); err == nil {
			t.Fatalf("a new device of the same name: got %q, want no answer", got)
		}
		if len(a.Status().Attached) == 0 {
			break
		}
	}
	eventually(t, "nothing is attached", func() bool { return len(a.Status().Attached) == 0 })
	a.attach(t, 1, agent.Place{Device: g.device})
	wants(t, "attached again", g.ns, 1, innate.Device)
}

func TestOneHopServesTheVMAndTwoWhatItRoutesFor(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 1)
	g := newGuest(t, 1)
	inner := namespace(t)
	run(t, g.ns, "ip", "link", "add", "c1", "type", "veth", "peer", "name", "eth0", "netns", path(inner))
	run(t, g.ns, "ip", "link", "set", "c1", "up")
	run(t, inner, "ip", "link", "set", "eth0", "up")
	run(t, inner, "ip", "address", "add", "10.10.0.2/32", "dev", "eth0")
	run(t, inner, "ip", "route", "add", "default", "dev", "eth0")
	run(t, g.ns, "ip", "route", "add", "10.10.0.2", "dev", "c1")
	set(t, g.ns, "ipv4/ip_forward", "1")
	for _, conf := range []string{"c1", "eth0"} { // in place of a gateway and a masquerade
		set(t, g.ns, "ipv4/conf/"+conf+"/proxy_arp", "1")
		set(t, g.ns, "ipv4/neigh/"+conf+"/proxy_delay", "0")
	}
	for _, c := range []struct {
		hops   int
		served bool
	}{{0, false}, {1, false}, {2, true}} {
		a.attach(t, 1, agent.Place{Device: g.device, Hops: c.hops})
		wants(t, fmt.Sprintf("the VM, %d hops", c.hops), g.ns, 1, innate.Device)
		within := quick
		if c.served {
			within = patient
		}
		if got, err := asksFrom(t, inner, "", within); (err == nil) != c.served {
			t.Errorf("a container in the VM, %d hops: got %q %v, served %v wanted", c.hops, got, err, c.served)
		}
	}
}

func TestTheHostItselfIsAVMOnlyByConsent(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	p := newPlane(t)
	p.place(client.Placement{Resource: vm(1), Identities: []client.Identity{ident(1, true)}})
	p.place(client.Placement{Resource: vm(2), Identities: []client.Identity{ident(2, true)}})
	g := newGuest(t, 2)

	careful := p.start(func(c *agent.Config) { c.Dev = false })
	for _, at := range []agent.Place{{Host: true}, {NetNS: "/proc/thread-self/ns/net"}, {Device: g.device}, {Device: g.device, NetNS: "/proc/thread-self/ns/net"}} {
		if err := agent.Attach(careful.socket(), string(vm(1)), at); err == nil || !strings.Contains(err.Error(), "--take-over-imds") {
			t.Errorf("%v: got %v, want a refusal that says how to consent", at, err)
		}
	}
	if hasAddress(t) {
		t.Error("a refusal took the address")
	}

	bold := p.start(func(c *agent.Config) { c.Dev, c.TakeOver = false, true })
	bold.attach(t, 1, agent.Place{Host: true})
	bold.attach(t, 2, agent.Place{Device: g.device})
	wants(t, "a process of the host", nil, 1, innate.NetNS)
	wants(t, "a VM beside", g.ns, 2, innate.Device)
	if err := agent.Detach(bold.socket(), "vm-1"); err != nil {
		t.Fatal(err)
	}
	if got, err := asks(t, nil); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the host, detached: got %q %v, want refused", got, err)
	}
	wants(t, "the VM, when the host is none any more", g.ns, 2, innate.Device)
	if err := agent.Detach(bold.socket(), "vm-2"); err != nil {
		t.Fatal(err)
	}
	if hasAddress(t) {
		t.Error("the host still has the address behind the last VM")
	}
}

// hasAddress reports whether the test's own namespace has the metadata address.
func hasAddress(t *testing.T) bool {
	t.Helper()
	return strings.Contains(run(t, nil, "ip", "address"), "169.254.169.254")
}

func TestAPlaceThatIsNoneIsRefusedInWords(t *testing.T) {
	if !inAWorldOfItsOwn(t) {
		return
	}
	a := withVMs(t, 1)
	g := newGuest(t, 1)
	run(t, nil, "ip", "link", "add", "br0", "type", "bridge")
	run(t, nil, "ip", "link", "add", "in0", "type", "veth", "peer", "name", "in1")
	run(t, nil, "ip", "link", "set", "in0", "master", "br0")
	port := agent.Place{Port: "in0", MAC: g.mac, Addresses: addresses(g.ip)}
	with := func(change func(*agent.Place)) agent.Place { at := port; change(&at); return at }
	for _, c := range []struct {
		at   agent.Place
		want string
	}{
		{agent.Place{}, "one of these"},
		{agent.Place{Host: true, Device: g.device}, "one of these"},
		{agent.Place{Device: g.device, Port: "in0"}, "one of these"},
		{agent.Place{Device: "tap9"}, "tap9"},
		{agent.Place{Device: "lo"}, "the machine's own"}, // every process of the host
		{agent.Place{Device: "br0"}, "is a bridge"},      // all its ports would be one VM
		{agent.Place{Device: "in0"}, "is a port of a bridge"},
		{agent.Place{Device: g.device, Hops: 65}, "1 to 64"},
		{agent.Place{Device: g.device, MAC: g.mac}, "are of a port"},
		{agent.Place{NetNS: path(g.ns), Hops: 2}, "answers its own processes only"},
		{with(func(at *agent.Place) { at.Port = g.device }), "no port of a bridge"},
		{with(func(at *agent.Place) { at.MAC = "" }), "MAC"},
		{with(func(at *agent.Place) { at.MAC = "03:00:00:00:00:01" }), "MAC"}, // a group's
		{with(func(at *agent.Place) { at.MAC = "x drop; accept" }), "MAC"},
		{with(func(at *agent.Place) { at.Addresses = nil }), "addresses"},
		{with(func(at *agent.Place) { at.Addresses = addresses("::1") }), "IPv4"},
		{with(func(at *agent.Place) { at.Addresses = addresses("0.0.0.0") }), "IPv4"},
		{with(func(at *agent.Place) { at.Addresses = addresses("169.254.169.254") }), "IPv4"}, // the service's own
	} {
		if err := agent.Attach(a.socket(), string(vm(1)), c.at); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: got %v, want %q in it", c.at, err, c.want)
		}
	}
	if hasAddress(t) || len(a.Status().Attached) > 0 {
		t.Error("a refusal left something behind")
	}
}
