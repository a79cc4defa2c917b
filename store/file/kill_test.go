package file_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"innate/store"
	"innate/store/file"
)

// victimOf, in the environment, makes the test program one that writes to the
// store it names until it is killed.
const victimOf = "INNATE_TEST_VICTIM_OF"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimOf); path != "" {
		fmt.Fprintln(os.Stderr, writeUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const victims = 8 // writers in the victim

// writeUntilKilled counts up in pairs of rows and says each number once it is acknowledged.
func writeUntilKilled(path string) error {
	engine, err := file.Open(path)
	if err != nil {
		return err
	}
	db, err := store.Open(context.Background(), engine)
	if err != nil {
		return err
	}
	var g errgroup.Group
	for w := range victims {
		g.Go(func() error {
			left, right := pair(w)
			for range 100_000 {
				var n int
				if _, err := db.Update(context.Background(), func(tx store.Tx) error {
					n = number(tx, left) + 1
					tx.Put(left, fmt.Append(nil, n))
					tx.Put(right, fmt.Append(nil, n))
					return nil
				}); err != nil {
					return err
				}
				if _, err := fmt.Println(w, n); err != nil {
					return err // the test that would kill us is gone
				}
			}
			return errors.New("nobody killed me")
		})
	}
	return g.Wait()
}

func pair(w int) (left, right string) { return fmt.Sprintf("left/%d", w), fmt.Sprintf("right/%d", w) }

func number(r store.Reader, key string) (n int) {
	b, _ := r.Get(key)
	fmt.Sscan(string(b), &n)
	return n
}

func TestKillLosesNothingAcknowledgedAndShowsNoHalfTransaction(t *testing.T) {
	const stores, kills = 2, 25
	for s := range stores {
		t.Run(fmt.Sprint("store ", s), func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "store")
			create(t, path).Close()
			var acknowledged [victims]int
			for kill := range kills {
				killAmongWrites(t, path, 1+rand.IntN(400), &acknowledged)
				if verify(t, path, acknowledged); t.Failed() {
					t.Fatalf("after kill %d", kill+1)
				}
			}
		})
	}
}

// killAmongWrites starts a victim and kills it after so many of its writes.
func killAmongWrites(t *testing.T, path string, after int, acknowledged *[victims]int) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := exec.CommandContext(t.Context(), exe)
	victim.Env = append(os.Environ(), victimOf+"="+path)
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(out)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) { // what it said last may be cut short
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var w, said int
		if _, err := fmt.Sscan(line, &w, &said); err != nil {
			t.Fatalf("the victim said %q: %v", line, err)
		}
		acknowledged[w] = said
		if n == after {
			if err := victim.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := victim.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the victim ended by itself: %v", err)
	}
}

func verify(t *testing.T, path string, acknowledged [victims]int) {
	t.Helper()
	engine, err := file.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), engine)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(t.Context(), func(r store.Reader) error {
		for w, said := range acknowledged {
			left, right := pair(w)
			l, rr := number(r, left), number(r, right)
			if l != rr {
				t.Errorf("half a transaction: %s=%d, %s=%d", left, l, right, rr)
			}
			if l < said {
				t.Errorf("%s=%d, but %d was acknowledged", left, l, said)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
