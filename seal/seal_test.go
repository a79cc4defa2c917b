package seal_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/seal"
)

func master(t *testing.T) (*seal.Key, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "master.key")
	k, err := seal.CreateMaster(path)
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

func TestWhatIsSealedOpensAfterTheMasterKeyIsReadAgain(t *testing.T) {
	k, path := master(t)
	data, wrapped, err := k.NewDataKey([]byte("vault/kv1"))
	if err != nil {
		t.Fatal(err)
	}
	sealed := data.Seal([]byte("hunter2"), []byte("secret/db"))

	again, err := seal.OpenMaster(path)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = again.DataKey(wrapped, []byte("vault/kv1")); err != nil {
		t.Fatal(err)
	}
	plain, err := data.Open(sealed, []byte("secret/db"))
	if err != nil || string(plain) != "hunter2" {
		t.Errorf("got %q, %v; want hunter2", plain, err)
	}
}

func TestSealedBytesOpenOnlyWholeAndInTheirPlace(t *testing.T) {
	k, _ := master(t)
	other, _ := master(t)
	sealed := k.Seal([]byte("hunter2"), []byte("a"))

	if _, err := k.Open(sealed, []byte("b")); err == nil {
		t.Error("opened with another's associated data")
	}
	if _, err := other.Open(sealed, []byte("a")); err == nil {
		t.Error("opened under another key")
	}
	if _, err := k.DataKey(sealed, []byte("a")); err == nil {
		t.Error("seven bytes were taken for a data key")
	}
	for i := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[i] ^= 1
		if _, err := k.Open(flipped, []byte("a")); err == nil {
			t.Errorf("opened with byte %d changed", i)
		}
		if _, err := k.Open(sealed[:i], []byte("a")); err == nil {
			t.Errorf("opened with only %d bytes", i)
		}
	}
	if bytes.Equal(sealed, k.Seal([]byte("hunter2"), []byte("a"))) {
		t.Error("sealing twice gave the same bytes: the nonce is not random")
	}
}

func TestAMasterKeyIsNeverOverwritten(t *testing.T) {
	_, path := master(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateMaster(path); err == nil {
		t.Error("created over an existing file")
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file changed (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestADoubtfulMasterKeyFileIsRefused(t *testing.T) {
	_, good := master(t)
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
		says    string
	}{
		"readable by the group": {string(content), 0o640, "0640"},
		"readable by all":       {string(content), 0o604, "0604"},
		"empty":                 {"", 0o600, "not a master key"}, // a crash between creating and writing
		"cut short":             {string(content[:len(content)-8]), 0o600, "not base64"},
		"of another length":     {string(content[:len(content)-9]) + "\n", 0o600, "its key has"},
		"too long":              {string(content) + "x", 0o600, "not a master key"},
		"no header":             {strings.Repeat("x", len(content)), 0o600, "not a master key"},
		"not base64":            {string(content[:len(content)-6]) + "!!!!!\n", 0o600, "not base64"},
	} {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := seal.OpenMaster(path)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, c.says)
		}
		if secret := string(content[len(content)-40 : len(content)-1]); err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
	if _, err := seal.OpenMaster(t.TempDir()); err == nil {
		t.Error("a folder was opened as a key")
	}
	if _, err := seal.OpenMaster(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("an absent file was opened")
	}
}
