package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"innate/agent"
)

// attachCommand tells the agent where a VM is.
func (s *session) attachCommand() *cobra.Command {
	var vm, socket string
	var at agent.Place
	var addresses []string
	cmd := &cobra.Command{
		Use:   "attach --vm NAME [--netns NETNS] [--device DEVICE | --bridge-port PORT --mac MAC --address IP | --host]",
		Short: "Serve 169.254.169.254 to a VM, where the VM is met",
		Long: `Serves the metadata service, and with it the VM's identity, to whoever comes in
at the place that is named. Choose by what the VM is:

  --netns        a container, or anything in a network namespace of its own: every
                 process in it is the VM
  --device       a VM with a tap or veth of its own, in no bridge
  --bridge-port  a VM at a bridge with others. The port is the proof; its MAC and
                 addresses are needed so that a neighbour cannot take its answers
                 over. Needs nft.
  --host         the host itself: every process of it is the VM

With --device and --bridge-port, --netns says where the device is; without, it is
the host's own, which needs an agent started with --take-over-imds, as --host does.
The service ends with the namespace or the device, and with 'innate detach'.`,
		Example: `  innate attach --vm web-1 --netns web-1
  innate attach --vm web-2 --device tap2
  innate attach --vm web-3 --bridge-port vnet3 --mac 52:54:00:12:34:56 --address 192.168.122.13`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if at.NetNS != "" && !strings.HasPrefix(at.NetNS, "/") {
				at.NetNS = "/run/netns/" + at.NetNS
			}
			for _, text := range addresses {
				ip, err := netip.ParseAddr(text)
				if err != nil {
					return fmt.Errorf("--address: %w", err)
				}
				at.Addresses = append(at.Addresses, ip)
			}
			if err := agent.Attach(socket, vm, at); err != nil {
				return err
			}
			return s.say(map[string]any{"vm": vm, "place": at}, "%s has its metadata service at %s.", vm, at)
		},
	}
	f := cmd.Flags()
	f.StringVar(&vm, "vm", "", "`name` or id of the VM")
	f.StringVar(&at.NetNS, "netns", "", "network `namespace`: a name under /run/netns, or a path such as /proc/PID/ns/net")
	f.StringVar(&at.Device, "device", "", "the VM's own network `device`")
	f.StringVar(&at.Port, "bridge-port", "", "the VM's `port` of a bridge")
	f.StringVar(&at.MAC, "mac", "", "the VM's `MAC` at its bridge port")
	f.StringArrayVar(&addresses, "address", nil, "an IPv4 `address` of the VM at its bridge port; may be repeated")
	f.BoolVar(&at.Host, "host", false, "the VM is the host itself")
	f.IntVar(&at.Hops, "hops", 0, "how many IP `hops` answers live, at a device or bridge port: 2 also serves containers that the VM routes for (default 1)")
	f.StringVar(&socket, "agent", defaultAgentSocket(), "the agent's `socket` (INNATE_AGENT_SOCKET)")
	cmd.MarkFlagRequired("vm")
	return cmd
}

// detachCommand is the inverse.
func (s *session) detachCommand() *cobra.Command {
	var vm, socket string
	cmd := &cobra.Command{
		Use: "detach --vm NAME", Short: "End the metadata service of a VM",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := agent.Detach(socket, vm); err != nil {
				return err
			}
			return s.say(map[string]string{"vm": vm}, "%s has no metadata service any more.", vm)
		},
	}
	cmd.Flags().StringVar(&vm, "vm", "", "`name` or id of the VM")
	cmd.Flags().StringVar(&socket, "agent", defaultAgentSocket(), "the agent's `socket` (INNATE_AGENT_SOCKET)")
	cmd.MarkFlagRequired("vm")
	return cmd
}
