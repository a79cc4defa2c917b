package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"innate/store"
	"innate/store/file"
	"innate/store/storetest"
)

func TestTheContractOfAnEngine(t *testing.T) {
	storetest.Run(t, func(t *testing.T) func(t *testing.T) store.Engine {
		path := filepath.Join(t.TempDir(), "store")
		begun := false
		return func(t *testing.T) store.Engine {
			open := file.Open
			if !begun {
				open, begun = file.Create, true
			}
			engine, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			return engine
		}
	})
}

// create makes a store with one row.
func create(t *testing.T, path string) *store.DB {
	t.Helper()
	engine, err := file.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	db := openDB(t, engine)
	put(t, db, "a", "1")
	return db
}

func openDB(t *testing.T, engine store.Engine) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), engine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func put(t *testing.T, db *store.DB, key, value string) {
	t.Helper()
	if err := tryPut(t, db, key, value); err != nil {
		t.Fatal(err)
	}
}

func tryPut(t *testing.T, db *store.DB, key, value string) error {
	_, err := db.Update(t.Context(), func(tx store.Tx) error { tx.Put(key, []byte(value)); return nil })
	return err
}

func TestOpeningAndCreatingAreTwoActs(t *testing.T) {
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	create(t, there).Close()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct {
		name string
		act  func(path string) (*file.Engine, error)
		path string
		want string
	}{
		{"create what exists", file.Create, there, "it exists already"},
		{"create what is something else", file.Create, write("text", "hello"), "it exists already"},
		{"create where there is no folder", file.Create, filepath.Join(dir, "no", "store"), "no such file or directory"},
		{"open what is not there", file.Open, filepath.Join(dir, "mistyped"), "create it first, with innate server init"},
		{"open an empty file", file.Open, write("empty", ""), "its creation did not finish"},
		{"open something else", file.Open, write("other", strings.Repeat("not a store ", 2000)), "it is damaged or no store of innate's"},
		{"open a folder", file.Open, dir, "it is not a regular file"},
		{"open a bbolt file of another program", file.Open, foreign(t, filepath.Join(dir, "foreign"), ""), "its creation did not finish"},
		{"open a later format", file.Open, foreign(t, filepath.Join(dir, "later"), "innate store 2"), `its format is "innate store 2"`},
	}
	for _, tt := range tests {
		engine, err := tt.act(tt.path)
		if err == nil {
			engine.Close()
			t.Errorf("%s: it worked", tt.name)
		} else if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: got %q, want %q and the path", tt.name, err, tt.want)
		}
	}
	for _, name := range []string{"mistyped", "no"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was made (%v)", name, err)
		}
	}
	if info, err := os.Stat(there); err != nil || info.Mode() != 0o600 {
		t.Errorf("the store's mode: %v, %v, want 0600", info.Mode(), err)
	}
}

// foreign makes a bbolt file that is not, or not quite, a store.
func foreign(t *testing.T, path, format string) string {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if format == "" {
		return path
	}
	if err := db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket([]byte("meta"))
		if err != nil {
			return err
		}
		return meta.Put([]byte("format"), []byte(format))
	}); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAStoreBelongsToOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	db := create(t, path)
	engine, err := file.Open(path)
	if err == nil {
		engine.Close()
		t.Fatal("a store that is open was opened again")
	}
	if want := "another process has the store open"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
	db.Close()
	if engine, err = file.Open(path); err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	engine.Close()
}

func TestHistoryIsKeptForAWhile(t *testing.T) {
	const commits = 11_500 // more than is kept and left to trim
	path := filepath.Join(t.TempDir(), "store")
	db := create(t, path)
	var g errgroup.Group
	const writers = 250
	for w := range writers {
		g.Go(func() error {
			for range commits / writers {
				if err := tryPut(t, db, fmt.Sprint("w/", w), "x"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	check := func(db *store.DB) {
		for _, err := range db.Watch(t.Context(), 1) {
			if !errors.Is(err, store.ErrCompacted) {
				t.Errorf("watching from the beginning: got %v, want ErrCompacted", err)
			}
			break
		}
		at := store.Revision(commits - 9_000)
		for c, err := range db.Watch(t.Context(), at) {
			if err != nil {
				t.Fatal(err)
			}
			if at++; c.Revision != at {
				t.Fatalf("revision %d after %d", c.Revision, at-1)
			}
			if at == commits {
				break
			}
		}
	}
	check(db)
	db.Close()
	engine, err := file.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	check(openDB(t, engine))
}

func TestAnUpdateOlderThanTheHistoryInMemoryRunsAgain(t *testing.T) {
	db := create(t, filepath.Join(t.TempDir(), "store"))
	runs := 0
	if _, err := db.Update(t.Context(), func(tx store.Tx) error {
		tx.Get("a") // nobody changes it, but who could tell
		tx.Put("b", nil)
		if runs++; runs > 1 {
			return nil
		}
		var g errgroup.Group
		for w := range 50 {
			g.Go(func() error {
				for range 30 {
					if err := tryPut(t, db, fmt.Sprint("w/", w), ""); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return g.Wait()
	}); err != nil {
		t.Fatal(err)
	}
	if runs != 2 {
		t.Errorf("ran %d times, want 2", runs)
	}
}

func TestAFullDiskHealsByItself(t *testing.T) {
	if !inChild(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "store")
	db := create(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	lift := limitFiles(t, uint64(info.Size()))
	big := strings.Repeat("x", 1<<20)
	err = tryPut(t, db, "big", big)
	lift()
	if err == nil {
		t.Fatal("a write beyond what the file may have worked")
	}
	if want := "writing the store " + path; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
	put(t, db, "big", big)
	put(t, db, "small", "1")
	db.Close()
	engine, err := file.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := openDB(t, engine).View(t.Context(), func(r store.Reader) error {
		if got, want := r.Revision(), store.Revision(3); got != want {
			t.Errorf("revision %d, want %d", got, want)
		}
		if v, _ := r.Get("big"); string(v) != big {
			t.Errorf("big has %d bytes, want %d", len(v), len(big))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// inChild runs the test that calls it in a process of its own, whose limits are
// nobody else's, and reports whether this is that process.
func inChild(t *testing.T) bool {
	t.Helper()
	const child = "INNATE_TEST_CHILD"
	if os.Getenv(child) != "" {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("in its own process: %v\n%s", err, out)
	}
	return false
}

// limitFiles lets no file of this process grow beyond size until lift is called.
func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Fatal(err)
		}
		signal.Reset(syscall.SIGXFSZ)
	}
}
