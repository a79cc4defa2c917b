package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"innate/agent/tpm/tpmtest"
	"innate/innatetest"
)

func TestAHostJoinsByItsTPMAndWhatIsOnItsDiskIsWorthNothingElsewhere(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("a mount namespace, where the platform's names resolve, needs root")
	}
	chip := tpmtest.Start(t)
	s := newShell(t)
	newControl(s)
	hosts := s.write("hosts", "127.0.0.1 localhost login."+domain+" hosts."+domain+"\n")
	state := filepath.Join(s.tmp, "agent")
	agent := []string{"agent", "--state", state, "--runtime", filepath.Join(s.tmp, "run"), "--tpm-device", chip}
	join := func(line, chip, state string) *process {
		t.Helper()
		p := s.named(hosts, line, "agent", "join", "--tpm", "--tpm-device", chip, "--state", state)
		p.wait()
		return p
	}

	ek := strings.TrimSpace(s.must("agent", "tpm", "--tpm-device", chip))
	line := s.must("host", "allow", "node-1", "-g", "hosts", "--ek", ek)
	if p := join(line, chip, state); p.code() != 0 {
		t.Fatalf("joining: %s", p.all())
	}
	stranger := tpmtest.Start(t)
	if p := join(line, stranger, filepath.Join(s.tmp, "stranger")); p.code() == 0 || !strings.Contains(p.all(), "innate host allow NAME --ek") {
		t.Errorf("another TPM with the line, which is no secret: want that it is told its own hash, got\n%s", p.all())
	}
	if pair, err := os.ReadFile(filepath.Join(state, "host.pem")); err != nil || strings.Contains(string(pair), "BEGIN PRIVATE KEY") {
		t.Errorf("the host's key is on its disk (%v)", err)
	}

	s.must("app", "create", "api", "-g", "team", "--identity")
	show := []string{"run", "--app", "api", "--", innatetest.Program(t), "token", "show", "--resource", "https://vault.azure.net"}
	running := s.named(hosts, "", agent...)
	running.waitFor("callers are proved by")
	s.must(show...)
	running.kill() // and with it the key in its memory
	running = s.named(hosts, "", agent...)
	running.waitFor("callers are proved by")
	eventually(t, "the agent, started again, serves its apps", func() bool { return s.run(show...).code() == 0 })
	if got := s.must("host", "show", "node-1"); !regexp.MustCompile(`(?m)^node-1 +\(joined by TPM\) +[0-9a-f]{64} +20`).MatchString(got) {
		t.Errorf("the server's view:\n%s", got)
	}
	running.signal(syscall.SIGTERM)

	// The disk is stolen, the chip is not.
	how, err := os.ReadFile(filepath.Join(state, "join.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "join.json"), []byte(strings.Replace(string(how), chip, stranger, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	stolen := s.named(hosts, "", append(agent, "--tpm-device", stranger, "-v")...)
	stolen.waitFor("is it of this TPM")
	stolen.signal(syscall.SIGTERM)
}
