package caller

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"innate"
)

// Probe reaches for the highest assurance by which this process can recognise a
// local caller: it attests a loopback connection of its own. own is the id of
// this process's cgroup (launch.OwnCgroup). The error says why it is not
// innate.CgroupUID; it is nil when it is. Kernel versions are never asked.
func (d *Diag) Probe(own uint64) (innate.Assurance, error) {
	var facts Facts
	err := d.attestSelf(func(f Facts) error { facts = f; return nil })
	switch {
	case err != nil:
		return innate.SecretOnly, fmt.Errorf("attesting a loopback connection of our own: %w", err)
	case facts.UID != uint32(os.Geteuid()):
		return innate.SecretOnly, fmt.Errorf("the kernel says that uid %d made our own socket; we are %d", facts.UID, os.Geteuid())
	case facts.Cgroup == 0:
		return innate.UID, fmt.Errorf("%w: it is older than 5.8, or built without CONFIG_SOCK_CGROUP_DATA", ErrNoCgroup)
	case facts.Cgroup != own:
		return innate.UID, fmt.Errorf("the kernel says that our own socket is of cgroup %d; we are in %d (a v1 net_cls or net_prio hierarchy in use does that before 5.15)", facts.Cgroup, own)
	}
	return innate.CgroupUID, nil
}

// ProbeHolders says why HeldIn cannot stand in where the kernel names no cgroup;
// nil when it can. dir is the directory of this process's cgroup.
func (d *Diag) ProbeHolders(dir string) error {
	return d.attestSelf(func(f Facts) error {
		f.UID = math.MaxUint32 // nobody's: what else runs under our uid does not matter here
		return HeldIn(dir, f)
	})
}

// attestSelf calls fn with the facts about a loopback connection of our own, while it is open.
func (d *Diag) attestSelf(fn func(Facts) error) error {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer client.Close()
	server, err := l.AcceptTCP()
	if err != nil {
		return err
	}
	defer server.Close()
	f, err := d.Attest(server)
	if err != nil {
		return err
	}
	return fn(f)
}

// ProbeNamespaces says why this process cannot serve inside a network namespace;
// nil when it can. It enters the one that it is in.
func ProbeNamespaces() error {
	ns, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	err = InNamespace(ns, func() error { return nil })
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w (it takes CAP_SYS_ADMIN)", err)
	}
	return err
}

// ProbeDevices says why this process cannot tell callers apart by the device
// that they come in by; nil when it can. It binds a socket to the loopback device.
func ProbeDevices() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.BindToDevice(fd, "lo"); err != nil {
		return fmt.Errorf("binding a socket to a device: %w", err)
	}
	return nil
}
