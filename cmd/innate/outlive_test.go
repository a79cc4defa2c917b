package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// asking is an app that asks for tokens with the vendor's package, unmodified, and
// says of each how it was.
const askingApp = "while :; do " + program + " sample token 2>&1 >/dev/null && echo good; sleep 0.1; done"

// reading is an app that reads the files of its secrets and log-ins.
const readingApp = `while :; do echo "$(cat $INNATE_SECRETS_DIR/DB_PASSWORD) $(grep -c . $PGPASSFILE)"; sleep 0.1; done`

func TestEveryKindOfWorkloadOutlivesTheAgentsProcesses(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.Run("mount", "-o", "remount,bind,rw", "/proc/sys") // settings of the network namespaces of VMs are there
	m.Run("mount", "--make-rshared", "/")                // as on a host: what is mounted later is seen by units
	m.Run("systemctl", "restart", "innate-agent")
	innate := func(args ...string) string { return m.Run(append([]string{program}, args...)...) }
	said := func(app string) (all []string) {
		for line := range strings.Lines(innate("app", "logs", app)) {
			_, text, _ := strings.Cut(strings.TrimSpace(line), " g1 ")
			all = append(all, text)
		}
		return all
	}
	last := func(app string) string {
		all := append([]string{""}, said(app)...)
		return all[len(all)-1]
	}

	asking := map[string][]string{"plain": nil, "alone": {"--isolate-net"}, "fabric": {"--endpoint", "servicefabric"}, "arc": {"--endpoint", "arc"}}
	for app, how := range asking {
		innate("app", "create", app, "-g", "team", "--identity")
		innate(append(append([]string{"run", "--app", app, "--detach"}, how...), "--", "/bin/sh", "-c", askingApp)...)
	}
	innate("app", "create", "reader", "-g", "team", "--identity")
	innate("vault", "create", "kv1", "-g", "team")
	set := func(value string) {
		m.Run("/bin/sh", "-c", "echo "+value+" | "+program+" secret set db-password --vault kv1")
	}
	set("first")
	innate("role", "assign", "--to", "reader", "--role", "Key Vault Secrets User", "--at", "kv1")
	innate("app", "settings", "reader", "DB_PASSWORD=@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)")
	innate("postgres", "create", "orders", "-g", "team")
	innate("postgres", "map", "orders", "--to", "reader", "--role", "role0")
	eventually(t, "the app has its settings", func() bool {
		_, err := m.Try(program, "run", "--app", "reader", "--detach", "--", "/bin/sh", "-c", readingApp)
		return err == nil
	})
	eventually(t, "the app reads its files", func() bool { return last("reader") == "first 1" })

	// One VM is a namespace, the other comes in by a port of a bridge in another.
	m.Run("/bin/sh", "-e", "-c", `
ip netns add guest
ip netns add switch
ip netns add vm
ip netns exec guest ip link set lo up
ip netns exec switch ip link set lo up
ip netns exec switch ip link add br0 type bridge
ip netns exec switch ip address add 10.9.0.254/24 dev br0
ip netns exec switch ip link set br0 up
ip link add tap1 netns switch type veth peer name eth0 address 02:00:00:00:00:01 netns vm
ip netns exec switch ip link set tap1 master br0 up
ip netns exec vm ip address add 10.9.0.1/24 dev eth0
ip netns exec vm ip link set eth0 up
ip netns exec vm ip route add 169.254.169.254 dev eth0`)
	vms := map[string][]string{
		"guest": {"--netns", "guest"},
		"vm":    {"--netns", "switch", "--bridge-port", "tap1", "--mac", "02:00:00:00:00:01", "--address", "10.9.0.1"},
	}
	for vm, at := range vms {
		innate("vm", "create", vm, "-g", "team", "--identity", "--host", "node-1")
		innate(append([]string{"attach", "--vm", vm}, at...)...)
	}
	const metadata = "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
	asks := func(vm string) error {
		out, err := m.Try("ip", "netns", "exec", vm, "curl", "-sS", "--fail", "--max-time", "10", "-H", "Metadata: true", metadata)
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for vm := range vms {
		if err := asks(vm); err != nil {
			t.Fatalf("%s: %v", vm, err)
		}
	}

	if log := m.Log("innate-agent.service"); strings.Contains(log, "cannot be seen from here") {
		t.Errorf("the agent's unit does not see network namespaces that are made later:\n%s", log)
	}
	pids := func() string { return innate("app", "ps", "-o", "json") }
	was := pids()
	other := func(what string, pid func() string) func() {
		before := pid()
		return func() {
			eventually(t, "another "+what, func() bool { now := pid(); return now != "" && now != "0" && now != before })
			m.running() // it answers
		}
	}
	opener := func() string { return m.property("innate-agent", "MainPID") }
	for i, c := range []struct {
		what string
		do   func()
		cuts bool // requests that are being answered
	}{
		{"the agent became the installed program", func() { another := other("worker", m.worker); m.Run("systemctl", "reload", "innate-agent"); another() }, false},
		{"the worker was killed", func() { another := other("worker", m.worker); m.Run("kill", "-KILL", m.worker()); another() }, true},
		{"the agent was restarted", func() { another := other("opener", opener); m.Run("systemctl", "restart", "innate-agent"); another() }, false},
		{"the opener was killed", func() { another := other("opener", opener); m.Run("kill", "-KILL", opener()); another() }, true},
	} {
		before := map[string]int{}
		for app := range asking {
			before[app] = len(said(app))
		}
		c.do()
		for app := range asking {
			good := 0
			eventually(t, c.what+", and "+app+" is answered", func() bool {
				good = 0
				for _, line := range said(app)[before[app]:] {
					if line == "good" {
						good++
					} else if !c.cuts {
						t.Fatalf("%s: %s hears %q", c.what, app, line)
					}
				}
				return good > 3
			})
		}
		for vm := range vms {
			if err := asks(vm); err != nil {
				t.Errorf("%s, and %s asks: %v", c.what, vm, err)
			}
		}
		value, role := fmt.Sprintf("value%d", i), fmt.Sprintf("role%d", i+1)
		set(value)
		innate("postgres", "map", "orders", "--to", "reader", "--role", role)
		want := fmt.Sprintf("%s %d", value, i+2)
		eventually(t, c.what+", and the files follow", func() bool { return last("reader") == want })
	}
	if now := pids(); now != was {
		t.Errorf("what runs was\n%s\nand is\n%s", was, now)
	}
	for app := range asking {
		innate("app", "stop", app)
	}
	for vm := range vms {
		innate("detach", "--vm", vm)
		if err := asks(vm); err == nil {
			t.Errorf("%s was detached and is answered", vm)
		}
	}
	if left := innate("app", "ps"); strings.Count(left, "\n") != 2 || !strings.Contains(left, "\nreader ") {
		t.Errorf("after all but one were stopped:\n%s", left)
	}
}
