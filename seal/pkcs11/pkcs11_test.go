//go:build pkcs11

package pkcs11_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"innate/seal"
	"innate/seal/pkcs11"
)

// modules are where distributions put SoftHSM.
var modules = []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"}

// token makes a token of SoftHSM's with an AES key in it.
func token(t *testing.T) *pkcs11.Keeper {
	t.Helper()
	k := &pkcs11.Keeper{Token: "innate", Label: "master", PINFile: filepath.Join(t.TempDir(), "pin")}
	for _, path := range modules {
		if _, err := os.Stat(path); err == nil {
			k.Module = path
		}
	}
	if k.Module == "" {
		t.Skip("a token is emulated by SoftHSM, which is not installed: apt-get install softhsm2")
	}
	dir := t.TempDir()
	write := func(path, content string) string {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("SOFTHSM2_CONF", write(filepath.Join(dir, "conf"), "directories.tokendir = "+dir+"\n"))
	write(k.PINFile, "1234\n")
	aes := write(filepath.Join(dir, "aes"), strings.Repeat("k", 32))
	for _, args := range [][]string{
		{"--init-token", "--free", "--label", k.Token, "--so-pin", "5678", "--pin", "1234"},
		{"--import", aes, "--aes", "--token", k.Token, "--label", k.Label, "--id", "01", "--pin", "1234"},
	} {
		if out, err := exec.Command("softhsm2-util", args...).CombinedOutput(); err != nil {
			t.Fatalf("softhsm2-util %s: %v\n%s", args[0], err, out)
		}
	}
	return k
}

func TestATokenKeepsAMasterKey(t *testing.T) {
	k := token(t)
	path := filepath.Join(t.TempDir(), "master.key")
	master, err := seal.CreateMasterIn(path, k)
	if err != nil {
		t.Fatal(err)
	}
	sealed := master.Seal([]byte("hunter2"), nil)
	again, err := seal.OpenMaster(path, k)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Open(sealed, nil); err != nil || string(plain) != "hunter2" {
		t.Errorf("got %q, %v", plain, err)
	}
}

func TestWhatATokenKeptIsNotGivenOutChanged(t *testing.T) {
	k := token(t)
	key := []byte("thirty-two bytes of a master key")
	kept, err := k.Keep(key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		flipped := bytes.Clone(kept)
		flipped[i] ^= 1
		if got, err := k.Key(flipped); err == nil {
			t.Errorf("byte %d changed: %q", i, got)
		}
	}
	if _, err := k.Key(kept[:20]); err == nil {
		t.Error("a piece of it opened")
	}
}

func TestATokenThatDoesNotAnswerLeavesTheServerSealed(t *testing.T) {
	k := token(t)
	path := filepath.Join(t.TempDir(), "master.key")
	if _, err := seal.CreateMasterIn(path, k); err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(wrong, []byte("0000"), 0o600); err != nil {
		t.Fatal(err)
	}
	for says, other := range map[string]*pkcs11.Keeper{
		"loading the module": {Module: "/nowhere.so", Token: k.Token, Label: k.Label, PINFile: k.PINFile},
		"finding a token":    {Module: k.Module, Token: "other", Label: k.Label, PINFile: k.PINFile},
		"finding an AES key": {Module: k.Module, Token: k.Token, Label: "other", PINFile: k.PINFile},
		"is the PIN right":   {Module: k.Module, Token: k.Token, Label: k.Label, PINFile: wrong},
		"reading the PIN":    {Module: k.Module, Token: k.Token, Label: k.Label, PINFile: wrong + "x"},
	} {
		if _, err := seal.OpenMaster(path, other); !errors.Is(err, seal.ErrSealed) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "0000") {
			t.Errorf("%v; want ErrSealed that says %q", err, says)
		}
	}
	if _, err := seal.OpenMaster(path, k); err != nil {
		t.Error("it stays sealed:", err)
	}
}
