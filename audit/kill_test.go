package audit_test

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
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"innate/audit"
)

// victimOf, in the environment, makes the test program one that writes to the
// log it names until it is killed.
const victimOf = "INNATE_TEST_VICTIM_OF"

func TestMain(m *testing.M) {
	if path := os.Getenv(victimOf); path != "" {
		fmt.Fprintln(os.Stderr, recordUntilKilled(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// recordUntilKilled says the action of each event once it is recorded.
func recordUntilKilled(path string) error {
	l, err := audit.Open(path)
	if err != nil {
		return err
	}
	var g errgroup.Group
	for w := range 8 {
		g.Go(func() error {
			for n := range 100_000 {
				action := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, n)
				if err := l.Record(context.Background(), audit.Event{Action: action}); err != nil {
					return err
				}
				if _, err := fmt.Println(action); err != nil {
					return err // the test that would kill us is gone
				}
			}
			return errors.New("nobody killed me")
		})
	}
	return g.Wait()
}

func TestKillLosesNothingRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	var recorded []string
	for range 15 {
		recorded = append(recorded, killAmongRecords(t, path, 1+rand.IntN(300))...)
		open(t, path).Close() // mends what was torn
		actions, err := read(path)
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, a := range actions {
			there[a] = true
		}
		for _, a := range recorded {
			if !there[a] {
				t.Fatalf("%s was acknowledged and is gone", a)
			}
		}
	}
}

// killAmongRecords starts a victim, kills it after so many events and returns
// all that it acknowledged.
func killAmongRecords(t *testing.T, path string, after int) (recorded []string) {
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
	for {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) { // what it said last may be cut short
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		recorded = append(recorded, strings.TrimSuffix(line, "\n"))
		if len(recorded) == after {
			if err := victim.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	var exit *exec.ExitError
	if err := victim.Wait(); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("the victim ended by itself: %v", err)
	}
	return recorded
}
