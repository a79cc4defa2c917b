package opener

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// rules is what nft reads for the ports of a bridge; without ports it takes the
// rules away. All names in it are indexes, which mean one device for ever, where
// the name of a device can pass to the next one.
//
// What comes in by a VM's port bears the VM's MAC and addresses, or is dropped:
// a forged ARP answer in the name of the metadata service or of a neighbour would
// draw tokens to the forger. Ports that are no VM's, an uplink for instance, may
// not use a VM's MAC or addresses either, and what they send to the metadata
// address loses its mark.
func (b *bridge) rules() string {
	var s strings.Builder
	table := fmt.Sprintf("innate_%d", b.key.index)
	for _, family := range []string{"bridge", "arp"} {
		// Deleting what may not be there yet: adding it first is no error.
		fmt.Fprintf(&s, "table %s %s\ndelete table %s %s\n", family, table, family, table)
	}
	if len(b.ports) == 0 {
		return s.String()
	}
	ports := b.sorted()
	fmt.Fprintf(&s, "table bridge %s {\n", table)
	var macs []string
	for _, p := range ports {
		p.writeRules(&s)
		macs = append(macs, p.MAC)
	}
	s.WriteString("chain ingress {\ntype filter hook prerouting priority -300; policy accept;\n")
	for _, p := range ports {
		fmt.Fprintf(&s, "iif %d goto port_%d\n", p.device, p.device)
	}
	fmt.Fprintf(&s, "ether saddr { %s } drop\n", strings.Join(macs, ", "))
	fmt.Fprintf(&s, "arp saddr ip %s drop\nip saddr %s drop\nip daddr %s meta mark set 0\n}\n}\n", Metadata, Metadata, Metadata)

	// The bridge's own ARP, by which the answers find their way: by the bridge, so
	// that other bridges may have the same addresses.
	fmt.Fprintf(&s, "table arp %s {\nchain ingress {\ntype filter hook input priority -300; policy accept;\n", table)
	for _, p := range ports {
		fmt.Fprintf(&s, "iif %d arp saddr ip { %s } meta mark != %#x drop\n", b.key.index, p.addresses(), p.mark)
	}
	s.WriteString("}\n}\n")
	return s.String()
}

// writeRules writes the chain for what comes in by one port. An ARP probe and a
// question for an address by DHCP come from 0.0.0.0 (RFC 5227 §1.1, RFC 2131 §4.1).
func (p *port) writeRules(s *strings.Builder) {
	fmt.Fprintf(s, `chain port_%d {
ether type != { ip, arp, ip6 } drop
ether saddr != %s drop
arp saddr ether != %s drop
arp saddr ip != { 0.0.0.0, %s } drop
ip saddr != { 0.0.0.0, %s } drop
ether type arp meta mark set %#x
ip daddr %s meta mark set %#x
}
`, p.device, p.MAC, p.MAC, p.addresses(), p.addresses(), p.mark, Metadata, p.mark)
}

// applyRules has nft replace the rules of the thread's namespace, all at once.
func applyRules(rules string) error {
	path, err := nft()
	if err != nil {
		return err
	}
	cmd := exec.Command(path, "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("writing the rules for the ports of a bridge: nft: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return nil
}

// nft is the program that puts rules at the ports of a bridge.
func nft() (string, error) {
	for _, name := range []string{"nft", "/usr/sbin/nft"} { // a service's PATH may lack the folder
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("there is no nft here: install the package nftables")
}
