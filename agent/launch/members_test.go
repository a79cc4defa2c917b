package launch_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"innate/agent/launch"
)

func TestASignalToACgroupReachesWhatTheFirstProcessLeft(t *testing.T) {
	root(t)
	g, err := subtree(t).Make("api/g1")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := launch.Start(launch.Spec{
		Args: []string{"sh", "-c", "(trap 'echo asked; exit' TERM; echo up; while :; do sleep 0.05; done) & exit 0"},
		Env:  []string{"PATH=/usr/bin:/bin", "SECRET=s1"}, UID: 60001, Cgroup: g, Stub: stub, Stdout: w,
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if code, err := p.Wait(); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	if _, err := p.Environ(); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("the environment of what has ended: %v", err)
	}
	said := bufio.NewReader(r)
	if line, err := said.ReadString('\n'); line != "up\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if pids, err := g.Members(); len(pids) == 0 || err != nil {
		t.Errorf("members %v, %v", pids, err)
	}
	if err := g.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(said); string(rest) != "asked\n" || err != nil {
		t.Errorf("it says %q, %v; want that it was asked to end", rest, err)
	}
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if pids, err := g.Members(); len(pids) != 0 || err != nil {
		t.Errorf("members of a cgroup that is gone: %v, %v", pids, err)
	}
}

func TestTheEnvironmentOfAProgramCanBeReadWhileItRuns(t *testing.T) {
	p, err := launch.Start(launch.Spec{Args: []string{"sleep", "60"}, Env: []string{"PATH=/usr/bin:/bin", "SECRET=s1", "EMPTY="}, UID: self(), Stub: stub})
	if err != nil {
		t.Fatal(err)
	}
	env, err := p.Environ()
	if got := strings.Join(env, " "); got != "PATH=/usr/bin:/bin SECRET=s1 EMPTY=" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Wait()
}
