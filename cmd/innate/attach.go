package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"innate/agent"
)

// attachCommand tells the agent where a VM is, or makes a unit an app.
func (s *session) attachCommand() *cobra.Command {
	var vm, app, unit, socket string
	var at agent.Place
	var addresses []string
	cmd := &cobra.Command{
		Use:   "attach [--app NAME --unit UNIT | --vm NAME [--netns NETNS] [--device DEVICE | --bridge-port PORT --mac MAC --address IP | --host]]",
		Short: "Make a systemd unit an app, or serve 169.254.169.254 to a VM where the VM is met",
		Long: `With --unit it makes a service of systemd an app, from its next start on: each start
of the unit has an endpoint and a secret of its own, and its cgroup is what tells it
from everybody else. A template makes all its instances the app, each told apart. The
unit runs under a user that is not root; whoever may install units may attach them.

With --vm it serves the metadata service, and with it the VM's identity, to whoever comes in
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
		Example: `  innate attach --app api --unit api.service
  innate attach --app worker --unit worker@.service
  innate attach --vm web-1 --netns web-1
  innate attach --vm web-2 --device tap2
  innate attach --vm web-3 --bridge-port vnet3 --mac 52:54:00:12:34:56 --address 192.168.122.13`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if unit != "" {
				return s.attachUnit(socket, app, unit)
			}
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
	f.StringVar(&app, "app", "", "`name` or id of the app that the unit is")
	f.StringVar(&unit, "unit", "", "`name` of a service, or of a template of services")
	cmd.MarkFlagsRequiredTogether("app", "unit")
	cmd.MarkFlagsOneRequired("vm", "unit")
	for _, of := range []string{"vm", "netns", "device", "bridge-port", "mac", "address", "host", "hops"} {
		cmd.MarkFlagsMutuallyExclusive("unit", of)
	}
	return cmd
}

// detachCommand is the inverse.
func (s *session) detachCommand() *cobra.Command {
	var vm, unit, socket string
	cmd := &cobra.Command{
		Use: "detach [--unit UNIT | --vm NAME]", Short: "Have a systemd unit be no app any more, or end the metadata service of a VM",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if unit != "" {
				return s.detachUnit(socket, unit)
			}
			if err := agent.Detach(socket, vm); err != nil {
				return err
			}
			return s.say(map[string]string{"vm": vm}, "%s has no metadata service any more.", vm)
		},
	}
	cmd.Flags().StringVar(&vm, "vm", "", "`name` or id of the VM")
	cmd.Flags().StringVar(&unit, "unit", "", "`name` of the service or template, as it was attached")
	cmd.Flags().StringVar(&socket, "agent", defaultAgentSocket(), "the agent's `socket` (INNATE_AGENT_SOCKET)")
	cmd.MarkFlagsOneRequired("vm", "unit")
	cmd.MarkFlagsMutuallyExclusive("vm", "unit")
	return cmd
}
