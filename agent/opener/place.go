package opener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"innate"
	"innate/agent/caller"
)

// A Place says where on the host a VM is met, and with that what proves that a
// caller is the VM (host-attestation §4): the kernel's word about the way by
// which the caller came in, never an address that the caller wrote itself.
// Exactly one of Host, Device and Port is set, or none and NetNS.
type Place struct {
	// NetNS is the path of a network namespace, such as /run/netns/NAME or
	// /proc/PID/ns/net. Alone, every process in it is the VM; with Device or Port,
	// that is where the device is. Empty: the agent's own namespace.
	NetNS  string `json:"netns,omitempty"`
	Host   bool   `json:"host,omitempty"`   // every process of the host itself is the VM
	Device string `json:"device,omitempty"` // name of the VM's own network device: a tap or a veth, in no bridge
	Port   string `json:"port,omitempty"`   // name of the VM's port of a bridge

	// What may come in by Port, so that no neighbour on the bridge can take over
	// the VM's address, and with it answers that are meant for the VM.
	MAC       string       `json:"mac,omitempty"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // IPv4

	// Hops is how many IP hops an answer lives, 1 to 64; 0 means 1: only the VM
	// itself, nothing that it forwards for. Of Device and Port only.
	Hops int `json:"hops,omitempty"`
}

const mostHops = 64

// String is the place in a few words.
func (p Place) String() string {
	in := ""
	if p.NetNS != "" {
		in = " in " + p.NetNS
	}
	switch {
	case p.Device != "":
		return "device " + p.Device + in
	case p.Port != "":
		return "bridge port " + p.Port + in
	case p.Host:
		return "the host itself"
	}
	return "namespace " + p.NetNS
}

// Check refuses what is no place.
func (p Place) Check() error {
	ways := 0
	for _, given := range []bool{p.Host, p.Device != "", p.Port != "", p.NetNS != "" && p.Device == "" && p.Port == ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return errors.New("say where the VM is met by one of these: its network namespace, its device, its port of a bridge, or the host itself")
	case p.Hops < 0 || p.Hops > mostHops:
		return fmt.Errorf("%d hops: want 1 to %d", p.Hops, mostHops)
	case p.Hops != 0 && p.Device == "" && p.Port == "":
		return errors.New("hops are of a device or a port of a bridge: a namespace answers its own processes only; to serve what is routed through it, name the device in it that they come by")
	case p.Port == "" && (p.MAC != "" || len(p.Addresses) > 0):
		return errors.New("a MAC and addresses are of a port of a bridge: a device or a namespace is proof without them")
	case p.Port == "":
		return nil
	}
	if mac, err := net.ParseMAC(p.MAC); err != nil || len(mac) != 6 || mac[0]&1 != 0 {
		return fmt.Errorf("MAC %q: on a shared bridge the VM's own is needed, such as 52:54:00:12:34:56, or a neighbour could take its answers", p.MAC)
	}
	if len(p.Addresses) == 0 {
		return errors.New("on a shared bridge the VM's IPv4 addresses are needed, or a neighbour could take its answers")
	}
	for _, a := range p.Addresses {
		if !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a == netip.MustParseAddr(Metadata) {
			return fmt.Errorf("address %v: want the VM's own IPv4 addresses", a)
		}
	}
	return nil
}

// Assurance is what the place proves about every caller who is met there.
func (p Place) Assurance() innate.Assurance {
	if p.Device != "" || p.Port != "" {
		return innate.Device
	}
	return innate.NetNS
}

// Found is what a worker is told of a spot.
type Found struct {
	ID      string `json:"id"`
	Place   Place  `json:"place"`
	Watched bool   `json:"watched"`        // the end of its namespace can be seen
	Sees    bool   `json:"sees"`           // somebody can say which network interfaces the VM has
	Note    []byte `json:"note,omitempty"` // the worker's own
}

// A spot is a Place that was found: its namespace open, its devices by index,
// since a name may pass to another device.
type spot struct {
	Place
	id     string
	note   []byte
	local  *Local
	ns     *os.File
	own    bool   // ns is our own
	device int    // index of Device or Port; 0: none
	bridge int    // index of the bridge that Port is of; 0: none
	anchor int    // socket bound to the device: says when it is no more; -1: none
	links  *links // of ns, which is the VM's; nil: the VM is behind Device or Port
	named  bool   // NetNS named ns when it was found, and ends with the VM

	listener *os.File // of the VM alone; guarded by local.taking
	port     *port    // of a bridge; guarded by local.taking
}

// find opens a place. It takes ns over: the namespace, nil for our own.
func (p Place) find(ns *os.File) (_ *spot, err error) {
	s := &spot{Place: p, id: innate.NewGUID(), ns: ns, anchor: -1}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := p.Check(); err != nil {
		return nil, err
	}
	if s.ns == nil {
		if p.NetNS != "" {
			return nil, errors.New("the network namespace did not come as an open file")
		}
		if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil { // not /proc/self: that is the first thread, which may be away in another
			return nil, err
		}
	}
	if s.own, err = isOwn(s.ns); err != nil {
		return nil, err
	}
	if mac, err := net.ParseMAC(p.MAC); err == nil {
		s.MAC = mac.String()
	}
	s.named = p.NetNS != "" && s.namedStill()
	if p.Device != "" || p.Port != "" {
		return s, caller.InNamespace(s.ns, s.findDevice)
	}
	if s.links, err = openLinks(s.ns); err != nil {
		return nil, fmt.Errorf("reading the VM's network interfaces: %w", err)
	}
	return s, nil
}

// isOwn reports whether ns is the network namespace that we are in; what
// is no network namespace is an error.
func isOwn(ns *os.File) (bool, error) {
	if typ, err := unix.IoctlRetInt(int(ns.Fd()), unix.NS_GET_NSTYPE); err != nil || typ != unix.CLONE_NEWNET {
		return false, fmt.Errorf("%s is no network namespace: want a file such as /run/netns/NAME or /proc/PID/ns/net", ns.Name())
	}
	return sameFile(ns, "/proc/thread-self/ns/net")
}

func sameFile(f *os.File, path string) (bool, error) {
	var one, other unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &one), unix.Stat(path, &other)); err != nil {
		return false, fmt.Errorf("comparing network namespaces: %w", err)
	}
	return one.Dev == other.Dev && one.Ino == other.Ino, nil
}

// findDevice finds Device or Port; it runs inside the namespace.
func (s *spot) findDevice() error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	name := s.Device + s.Port
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding device %s: %w", name, err)
	}
	s.device = link.Attrs().Index
	master := link.Attrs().MasterIndex
	switch {
	case link.Type() == "device": // the loopback, and hardware
		return fmt.Errorf("%s is the machine's own device and no VM's: everybody behind it would be the VM", name)
	case s.Device != "" && link.Type() == "bridge":
		return fmt.Errorf("%s is a bridge, which all its ports share: name the VM's port of it", name)
	case s.Device != "" && master != 0:
		return fmt.Errorf("%s is a port of a bridge, where connections come in by the bridge: attach it as a port", name)
	}
	if s.Port != "" {
		bridge, err := h.LinkByIndex(master)
		if master == 0 || err == nil && bridge.Type() != "bridge" {
			return fmt.Errorf("%s is no port of a bridge: attach it as a device", name)
		}
		if err != nil {
			return fmt.Errorf("finding the bridge of %s: %w", name, err)
		}
		s.bridge = master
	}
	if s.anchor, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	return unix.SetsockoptInt(s.anchor, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, s.device)
}

// over says why nobody can be met here any more; nil while the VM may live. An
// open listener keeps a namespace and its devices alive after everybody has left
// it, and the name of a device may be the next VM's: whoever comes after this
// one must be attached anew.
func (s *spot) over() error {
	if s.anchor >= 0 {
		if _, err := unix.GetsockoptString(s.anchor, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); err != nil {
			return fmt.Errorf("device %s is gone", s.Device+s.Port)
		}
	}
	if s.named && !s.namedStill() {
		return fmt.Errorf("network namespace %s is gone", s.NetNS)
	}
	return nil
}

// namedStill reports whether NetNS is the namespace's name still.
func (s *spot) namedStill() bool {
	same, err := sameFile(s.ns, s.NetNS)
	return err == nil && same
}

func (s *spot) close() error {
	var errs []error
	if s.listener != nil {
		errs = append(errs, s.listener.Close())
		s.listener = nil
	}
	if s.anchor >= 0 {
		errs = append(errs, unix.Close(s.anchor))
		s.anchor = -1
	}
	if s.links != nil {
		s.links.close()
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	return errors.Join(errs...)
}
