package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/gateway/postgres/cluster"
)

// The gateway's unit takes all from it that it does not need. What it needs of the
// server's files it has: where clients log in by certificate, it replaces one.
func TestTheGatewaysUnitLetsItKeepItsRows(t *testing.T) {
	t.Parallel()
	programs, err := cluster.Find()
	if err != nil {
		t.Skip(err)
	}
	m := newMachine(t)
	// Who may see what the gateway was told to is the server's account and root.
	asServer := func(args ...string) []string {
		return append([]string{"setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"}, args...)
	}
	const data = "/var/lib/pgsql/data"
	m.Run("ln", "-s", "/run", "/var/run")
	m.Run("install", "-d", "-o", "postgres", "-g", "postgres", "/var/lib/pgsql", "/run/postgresql")
	m.Run(asServer(filepath.Join(programs, "initdb"), "-D", data, "-A", "peer", "--no-sync")...)
	identity, err := cluster.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m.Write(data+"/server.crt", string(identity.Certificate), 0o644)
	m.Write(data+"/server.key", string(identity.Key), 0o600)
	m.Write(data+"/more.conf", "listen_addresses = '127.0.0.1'\nunix_socket_directories = '/run/postgresql'\nssl = on\n", 0o644)
	m.Run("sh", "-c", "cat "+data+"/more.conf >>"+data+"/postgresql.conf; chown postgres "+data+"/server.*; chgrp ssl-cert "+data+"/pg_ident.conf; chmod 640 "+data+"/pg_ident.conf")
	m.Unit("postgresql.service", "[Service]\nType=notify\nUser=postgres\nExecStart="+filepath.Join(programs, "postgres")+" -D "+data+"\n")
	m.Run("systemctl", "start", "postgresql")

	m.Run(program, "postgres", "create", "orders", "-g", "team", "--host", "localhost", "--ca", data+"/server.crt", "--by-certificate")
	m.Run(program, "app", "create", "pg-gateway", "-g", "team", "--identity")
	m.Run(program, "role", "assign", "--to", "pg-gateway", "--role", "PostgreSQL Gateway", "--at", "orders")
	ships, err := os.ReadFile("../../packaging/systemd/innate-gateway-postgres.service")
	if err != nil {
		t.Fatal(err)
	}
	m.Write("/etc/hosts", "127.0.0.1 localhost login."+domain+" management."+domain+" hosts."+domain+"\n", 0o644)
	m.Write("/run/ca.crt", m.Run(program, "platform", "ca"), 0o644)
	m.Write("/run/gateway.env", "SERVER=orders\nMANAGEMENT=https://management."+domain+":8443\nSSL_CERT_FILE=/run/ca.crt\n", 0o644)
	m.Unit("innate-gateway-postgres.service", strings.NewReplacer("/usr/bin/innate", program, "/etc/innate/gateway-postgres.env", "/run/gateway.env",
		"PrivateDevices=yes\n", "", // the machine may make no devices
	).Replace(string(ships)))
	m.Run(program, "attach", "--app", "pg-gateway", "--unit", "innate-gateway-postgres.service")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the gateway said:\n%s\nPostgreSQL:\n%s", m.Log("innate-gateway-postgres.service"), m.Log("postgresql.service"))
		}
	})
	m.Run("systemctl", "start", "innate-gateway-postgres")

	host := func(command string, more ...string) (string, error) {
		return m.Try(asServer(append([]string{program, "postgres", command, "--server", "orders", "--by-certificate", "--role", "app"}, more...)...)...)
	}
	eventually(t, "the server is prepared", func() bool { _, err := host("prepare", "--apply"); return err == nil })
	m.Run(program, "app", "create", "api", "-g", "team", "--identity")
	m.Run(program, "postgres", "map", "orders", "--to", "api", "--role", "app")
	rows := func() string { return m.Run("cat", data+"/pg_ident.conf") }
	eventually(t, "the row is there", func() bool { return strings.Contains(rows(), `"  "app"`) })
	if got := strings.TrimSpace(m.Run("stat", "-c", "%a %U %G", data+"/pg_ident.conf")); got != "640 postgres ssl-cert" {
		t.Errorf("pg_ident.conf has mode and owner %s", got)
	}
	if out, err := host("check"); err != nil {
		t.Errorf("check: %v\n%s", err, out)
	}
	m.Run("systemctl", "stop", "innate-gateway-postgres")
	if strings.Contains(rows(), `"  "app"`) {
		t.Errorf("the gateway was stopped, and its rows are left:\n%s", rows())
	}
	if got := m.property("innate-gateway-postgres.service", "Result") + " " + m.property("innate-gateway-postgres.service", "NRestarts"); got != "success 0" {
		t.Errorf("the gateway's unit ended with %s, want success and no restart", got)
	}
}
