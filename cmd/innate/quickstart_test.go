package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"innate"
	"innate/agent/caller"
	"innate/agent/launch"
)

// stations is how many the tour has.
const stations = 13

// provedByCgroup is what quickstart says where the kernel proves callers in full.
const provedByCgroup = "proof        cgroup+uid"

// weakerHere is why root cannot have that on this machine; nil where it can.
func weakerHere(t *testing.T) error {
	t.Helper()
	own, err := launch.OwnCgroup()
	if err != nil {
		return err
	}
	diag, err := caller.NewDiag()
	if err != nil {
		return err
	}
	defer diag.Close()
	if _, err := diag.Probe(own); err != nil {
		return err
	}
	groups, err := launch.OpenCgroups("innate-test-" + innate.NewGUID())
	if err != nil {
		return err
	}
	return groups.Close()
}

func TestQuickstartDoesWhatEveryStationSays(t *testing.T) {
	t.Parallel()
	if os.Getuid() == 0 {
		t.Run("as root", func(t *testing.T) {
			t.Parallel()
			out := walkOnce(t, newShell(t))
			if err := weakerHere(t); err != nil {
				t.Skipf("only the weaker proof was seen, since this machine has no better: %v", err)
			}
			for _, want := range []string{provedByCgroup, "403 Forbidden: this endpoint belongs to another process", "innate_assurance netns"} {
				if !strings.Contains(out, want) {
					t.Errorf("it does not say %q:\n%s", want, out)
				}
			}
			if strings.Contains(out, "Weaker than with root") {
				t.Errorf("root was given a weaker proof:\n%s", out)
			}
		})
	}
	t.Run("as an ordinary user", func(t *testing.T) {
		t.Parallel()
		s := newShell(t)
		if os.Getuid() == 0 {
			s.become(nobody)
		}
		out := walkOnce(t, s)
		for _, want := range []string{"Weaker than with root: callers are proved by the secret alone", "Weaker than with root: the VM's endpoint"} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not name what is weaker, %q:\n%s", want, out)
			}
		}
	})
}

// walkOnce runs the tour to its end and checks what is true of it for everybody.
func walkOnce(t *testing.T, s *shell) string {
	t.Helper()
	p := s.run("quickstart", "--once")
	out := p.out.String()
	if p.code() != 0 {
		t.Fatalf("exit code %d:\n%s", p.code(), p.all())
	}
	rest := out
	for n := 1; n <= stations; n++ {
		_, after, ok := strings.Cut(rest, fmt.Sprintf("\n%2d. ", n))
		if !ok {
			t.Fatalf("no station %d:\n%s", n, out)
		}
		rest = after
	}
	if !strings.Contains(rest, "Every station did what it said.") {
		t.Errorf("it does not say so at the end:\n%s", rest)
	}
	for what, secret := range map[string]string{"a token": "eyJ", "the secret's value": "hunter2"} {
		if strings.Contains(p.all(), secret) {
			t.Errorf("it printed %s (%s…):\n%s", what, secret, p.all())
		}
	}
	if left := s.leftBehind(p.pid()); len(left) > 0 {
		t.Errorf("it left behind:\n%s", strings.Join(left, "\n"))
	}
	return out
}

func TestCtrlCEndsQuickstartAtOnceAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, when := range map[string]struct {
		said string
		code int // an end before the last station is no success
	}{
		"in the middle of the tour":    {"\n 5. ", 1},
		"while it stays up afterwards": {"It stays up until Ctrl-C", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShell(t)
			p := s.start("quickstart")
			p.waitFor(when.said)
			begin := time.Now()
			p.signal(syscall.SIGINT)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("it took %s to end", took)
			}
			if p.code() != when.code || strings.Contains(p.all(), "cut off") {
				t.Errorf("exit code %d, want %d, and nothing to be waited for:\n%s", p.code(), when.code, p.all())
			}
			if left := s.leftBehind(p.pid()); len(left) > 0 {
				t.Errorf("it left behind:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// Not parallel: any agent that starts meanwhile sweeps. Those of other packages'
// tests do; then there is another try.
func TestTheNextQuickstartSweepsAwayOneThatWasKilled(t *testing.T) {
	s := newShell(t)
	var killed *process
	for tries := 5; ; tries-- {
		killed = s.start("quickstart")
		killed.waitFor("\n 6. ") // the app is running in its cgroup
		killed.kill()
		if folders, _ := filepath.Glob(filepath.Join(s.tmp, "innate-quickstart-*")); len(folders) == 0 {
			t.Fatal("killed, it left no folder: there is nothing to see swept")
		}
		if !strings.Contains(killed.all(), provedByCgroup) || len(cgroupsOf(killed.pid())) > 0 {
			break
		}
		if tries == 1 {
			t.Fatal("killed, it left no cgroup: there is none to see swept")
		}
	}
	walkOnce(t, s)
	if left := s.leftBehind(killed.pid()); len(left) > 0 {
		t.Errorf("of the one that was killed there is still:\n%s", strings.Join(left, "\n"))
	}
}
