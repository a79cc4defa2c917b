package caller

import (
	"fmt"
	"net"
	"os"

	"innate"
)

// Probe reaches for the highest assurance by which this process can recognise a
// local caller: it attests a loopback connection of its own. own is the id of
// this process's cgroup (launch.OwnCgroup). The error says why it is not
// innate.CgroupUID; it is nil when it is. Kernel versions are never asked.
func Probe(own uint64) (innate.Assurance, error) {
	facts, err := attestSelf()
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

func attestSelf() (Facts, error) {
	d, err := NewDiag()
	if err != nil {
		return Facts{}, err
	}
	defer d.Close()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		return Facts{}, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return Facts{}, err
	}
	defer client.Close()
	server, err := l.AcceptTCP()
	if err != nil {
		return Facts{}, err
	}
	defer server.Close()
	return d.Attest(server)
}
