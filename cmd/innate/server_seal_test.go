package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/agent/tpm/tpmtest"
)

func TestAServerWhoseMasterKeyIsInATPMStartsWhereTheTPMIs(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	socket := tpmtest.Start(t)
	s.env = append(s.env, "INNATE_SOCKET="+filepath.Join(s.tmp, "admin", "admin.sock"))
	dir := filepath.Join(s.tmp, "control")
	s.refused([]string{"file, tpm"}, "server", "init", "--dir", dir, "--domain", domain, "--seal", "drawer")
	s.must("server", "init", "--dir", dir, "--domain", domain, "--seal", "tpm", "--tpm-device", socket)
	key, err := os.ReadFile(filepath.Join(dir, "master.key"))
	if err != nil || !strings.Contains(string(key), "kept by: tpm") {
		t.Errorf("the file of the key is %q, %v", key, err)
	}
	serve := func(device string) *process {
		return s.start("server", "--dir", dir, "--listen", "127.0.0.1:0", "--operator", fmt.Sprint(os.Getuid()), "--tpm-device", device)
	}
	sealed := serve(filepath.Join(s.tmp, "no-tpm"))
	eventually(t, "the administrator is told that the server is sealed, and why", func() bool {
		r := s.run("platform")
		return r.code() != 0 && strings.Contains(r.errout.String(), "sealed") && strings.Contains(r.errout.String(), "there is no TPM at")
	})
	sealed.kill()
	serve(socket).waitFor("administrators at")
	eventually(t, "the server answers its administrators", func() bool { return s.run("platform").code() == 0 })
}
