package main_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// An ordinary user's agent is one process, and apps end with it.
func TestAnOrdinaryUsersAgentIsRestartedAndItsAppReadsItsSecretsAgain(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	innate := func(args ...string) string { return m.Run(append([]string{program}, args...)...) }
	const state, runtime, unit = "/var/lib/user/state", "/var/lib/user/run", "user-agent.service"
	m.Run("install", "-d", "-m", "0711", "-o", "daemon", "/var/lib/user")
	m.Write("/run/line", innate("host", "add", "node-2", "-g", "hosts"), 0o644)
	user := []string{"setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups"}
	m.Run(append(user, "/bin/sh", "-c", program+" agent join --state "+state+" </run/line")...)
	innate("vault", "create", "kv1", "-g", "team")
	m.Run("/bin/sh", "-c", "echo first | "+program+" secret set db-password --vault kv1")
	innate("app", "create", "mine", "-g", "team", "--identity", "--host", "node-2", "--run-as", "1")
	innate("role", "assign", "--to", "mine", "--role", "Key Vault Secrets User", "--at", "kv1")
	innate("app", "settings", "mine", "DB_PASSWORD=@Microsoft.KeyVault(VaultName=kv1;SecretName=db-password)")
	var app struct{ ID string }
	if err := json.Unmarshal([]byte(innate("app", "show", "mine")), &app); err != nil {
		t.Fatal(err)
	}
	m.Run("curl", "-sS", "--fail-with-body", "--unix-socket", "/run/innate/admin/admin.sock", "-X", "PATCH", "-H", "Content-Type: application/json",
		"-d", `{"properties":{"minimumAssurance":"secret-only"}}`, "http://management"+app.ID+"?api-version=2022-03-01")

	m.Unit(unit, "[Service]\nType=exec\nUser=daemon\nExecStart="+program+" agent --state "+state+" --runtime "+runtime+"\nRestart=always\nRestartSec=10ms\n")
	m.Run("systemctl", "start", unit)
	reads := func(args ...string) (string, error) {
		return m.Try(append(append(user, program, "run", "--agent", runtime+"/agent.sock", "--app", "mine"), args...)...)
	}
	for _, c := range []struct{ what, signal string }{{"it was started", ""}, {"it was killed", "-KILL"}, {"it was ended", "-TERM"}, {"it was killed again", "-KILL"}} {
		if c.signal != "" {
			if out, err := reads("--detach", "--restart", "always", "--", "/bin/sh", "-c", readingApp); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			before := m.property(unit, "MainPID")
			m.Run("kill", c.signal, before)
			eventually(t, "it is started again", func() bool { now := m.property(unit, "MainPID"); return now != "0" && now != before })
		}
		var out string
		var err error
		eventually(t, c.what+", and an app starts", func() bool {
			out, err = reads("--", "/bin/sh", "-c", `echo "is $(cat $INNATE_SECRETS_DIR/DB_PASSWORD) $DB_PASSWORD"`)
			return err == nil
		})
		if !strings.Contains(out, "is first first\n") {
			t.Errorf("%s: the app reads %q", c.what, out)
		}
		if left, err := m.Try("find", runtime, "-name", "DB_PASSWORD"); err != nil || left != "" {
			t.Errorf("%s: secrets of an app that is over are left: %s %v", c.what, left, err)
		}
	}
}
