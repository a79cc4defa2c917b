// Package tpmtest gives a test a TPM of its own: swtpm, where it is installed.
package tpmtest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// patience bounds the wait for the emulator to answer.
const patience = 10 * time.Second

// Start starts an emulated TPM, fresh from the factory, and returns its socket.
// It ends with the test, which is skipped where swtpm is not installed.
func Start(t testing.TB) (socket string) {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("a TPM is emulated by swtpm, which is not installed: 'make setup' installs it")
	}
	dir, err := os.MkdirTemp("", "tpm-") // t.TempDir's path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "tpm.sock")
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(patience); ; {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("swtpm did not answer within %s", patience)
		}
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return socket
		}
	}
}

// Certify puts a certificate of the endorsement key where a vendor puts it.
func Certify(t testing.TB, socket string, certificate []byte) {
	t.Helper()
	const index, chunk = tpm2.TPMHandle(0x01c00002), 512
	c, err := linuxudstpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	public := tpm2.TPMSNVPublic{
		NVIndex: index, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(certificate)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, AuthRead: true, OwnerRead: true, NT: tpm2.TPMNTOrdinary},
	}
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}).Execute(c); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(certificate); at += chunk {
		now, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c) // its name changes with the first write
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: now.NVName},
			Data:       tpm2.TPM2BMaxNVBuffer{Buffer: certificate[at:min(at+chunk, len(certificate))]}, Offset: uint16(at),
		}.Execute(c)
		if err != nil {
			t.Fatal(err)
		}
	}
}
