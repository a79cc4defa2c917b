package seal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"innate/seal"
)

// A drawer keeps keys for whoever shows the slip that it gave for one.
type drawer struct {
	keys   map[string][]byte
	locked error
}

func (d *drawer) Name() string { return "drawer" }

func (d *drawer) Keep(key []byte) ([]byte, error) {
	if d.locked != nil {
		return nil, d.locked
	}
	slip := "slip " + strings.Repeat("i", len(d.keys)+1)
	d.keys[slip] = bytes.Clone(key)
	return []byte(slip), nil
}

func (d *drawer) Key(slip []byte) ([]byte, error) {
	key, ok := d.keys[string(slip)]
	if !ok && d.locked == nil {
		return nil, errors.New("there is no such slip")
	}
	return key, d.locked
}

func TestTheFileOfAKeptKeyIsOfUseWithItsKeeperAlone(t *testing.T) {
	d := &drawer{keys: map[string][]byte{}}
	path := filepath.Join(t.TempDir(), "master.key")
	k, err := seal.CreateMasterIn(path, d)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(content), "kept by: drawer\n") {
		t.Errorf("the file says %q, %v", content, err)
	}
	if by, err := seal.KeptBy(path); err != nil || by != "drawer" {
		t.Errorf("kept by %q, %v", by, err)
	}
	sealed := k.Seal([]byte("hunter2"), []byte("a"))
	again, err := seal.OpenMaster(path, d)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Open(sealed, []byte("a")); err != nil || string(plain) != "hunter2" {
		t.Errorf("got %q, %v", plain, err)
	}

	d.locked = errors.New("the drawer is locked")
	for name, keepers := range map[string][]seal.Keeper{
		"locked": {d}, "unknown": nil, "another": {&drawer{keys: map[string][]byte{}}},
	} {
		if _, err := seal.OpenMaster(path, keepers...); !errors.Is(err, seal.ErrSealed) {
			t.Errorf("%s: %v, want ErrSealed", name, err)
		}
	}
	if _, err := seal.CreateMasterIn(path+"2", d); err == nil || !strings.Contains(err.Error(), "the drawer is locked") {
		t.Errorf("created without its keeper: %v", err)
	}
	if _, err := os.Stat(path + "2"); err == nil {
		t.Error("a file is left of a key that nobody keeps")
	}
}

func TestANewMasterKeyTakesTheOldOnesPlace(t *testing.T) {
	k, path := master(t)
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	row := k.Seal([]byte("hunter2"), []byte("a"))
	before := bytes.Clone(row)
	d := &drawer{keys: map[string][]byte{}}
	if err := seal.Reseal(path, k, d, func() (err error) {
		row, err = k.Reseal(row, []byte("a"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, sealed := range [][]byte{row, before} { // somebody may still have read the old row
		if plain, err := k.Open(sealed, []byte("a")); err != nil || string(plain) != "hunter2" {
			t.Errorf("the same process: %q, %v", plain, err)
		}
	}
	again, err := seal.OpenMaster(path, d)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Open(row, []byte("a")); err != nil || string(plain) != "hunter2" {
		t.Errorf("another process: %q, %v", plain, err)
	}
	if _, err := again.Open(before, []byte("a")); err == nil {
		t.Error("the new key opens what the old one sealed")
	}
	stolen := filepath.Join(t.TempDir(), "stolen")
	if err := os.WriteFile(stolen, old, 0o600); err != nil {
		t.Fatal(err)
	}
	thief, err := seal.OpenMaster(stolen)
	if err != nil {
		t.Fatal(err)
	}
	for name, sealed := range map[string][]byte{"what was sealed again": row, "what was sealed since": k.Seal([]byte("x"), []byte("a"))} {
		if _, err := thief.Open(sealed, []byte("a")); err == nil {
			t.Errorf("the old key opens %s", name)
		}
	}
}

func TestAReplacementThatWasStoppedGoesOn(t *testing.T) {
	k, path := master(t)
	row := k.Seal([]byte("hunter2"), []byte("a"))
	stopped := errors.New("the disk is full")
	if err := seal.Reseal(path, k, nil, func() error { return stopped }); !errors.Is(err, stopped) {
		t.Fatalf("got %v", err)
	}
	since := k.Seal([]byte("since"), []byte("a")) // under the new key
	again, err := seal.OpenMaster(path)
	if err != nil || !seal.Unfinished(path) {
		t.Fatal("unfinished:", seal.Unfinished(path), err)
	}
	for want, sealed := range map[string][]byte{"hunter2": row, "since": since} {
		if plain, err := again.Open(sealed, []byte("a")); err != nil || string(plain) != want {
			t.Errorf("got %q, %v; want %q", plain, err, want)
		}
	}
	if err := seal.Reseal(path, again, nil, func() (err error) {
		row, err = again.Reseal(row, []byte("a"))
		return err
	}); err != nil || seal.Unfinished(path) {
		t.Fatal("unfinished:", seal.Unfinished(path), err)
	}
	last, err := seal.OpenMaster(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, sealed := range map[string][]byte{"hunter2": row, "since": since} {
		if plain, err := last.Open(sealed, []byte("a")); err != nil || string(plain) != want {
			t.Errorf("finished: got %q, %v; want %q", plain, err, want)
		}
	}
}

func FuzzMasterKeyFile(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, "good")
	if _, err := seal.CreateMaster(path); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("v1"), []byte("v2"), 1))
	f.Add([]byte("innate master key v2, AES-256-GCM, kept by: drawer\nc2xpcA==\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := seal.OpenMaster(path, &drawer{})
		if err != nil {
			return
		}
		if plain, err := k.Open(k.Seal([]byte("x"), nil), nil); err != nil || string(plain) != "x" {
			t.Errorf("a key that does not open what it sealed: %q, %v", plain, err)
		}
	})
}
