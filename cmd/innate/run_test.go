package main_test

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestAnOrdinaryUserIsToldWhatIsNotProved(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	if os.Getuid() == 0 {
		s.become(nobody)
	}
	s.dev("apps: {api: {}}")
	p := s.run("run", "--app", "api", "--", "/bin/echo", "hello")
	if p.code() != 0 || p.out.String() != "hello\n" {
		t.Errorf("got %d\n%s", p.code(), p.all())
	}
	for _, want := range []string{"the callers of api are proved by secret-only and no better", "those of the same user can read it", "apps run under it too"} {
		if !strings.Contains(p.errout.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, p.errout.String())
		}
	}
	s.refused([]string{"only an agent that is root can make one"}, "run", "--app", "api", "--isolate-net", "--", "/bin/true")
}

func TestReplicasEndTogetherAndTellTheWorst(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.dev("apps: {api: {}}")
	both := s.start("run", "--app", "api", "--replicas", "2", "--restart", "always", "--", "/bin/sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
	eventually(t, "both are up", func() bool { return strings.Count(both.out.String(), "up\n") == 2 })
	both.signal(syscall.SIGTERM)
	if both.code() != 5 {
		t.Errorf("ended with %d, want 5\n%s", both.code(), both.all())
	}
	if got := s.must("app", "ps"); strings.Contains(got, "api") {
		t.Errorf("some run on:\n%s", got)
	}
	s.refused([]string{"/nonexistent"}, "run", "--app", "api", "--replicas", "3", "--restart", "always", "--", "/nonexistent")
}

func TestWhatRunsIsTheBusinessOfThoseWhoAreListed(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	s := newShell(t)
	s.dev("apps: {api: {}}")
	s.must("run", "--app", "api", "--detach", "--", "/bin/sleep", "60")
	other := s.as(nobody)
	if got := other.must("app", "ps"); strings.Contains(got, "api") {
		t.Errorf("somebody sees what runs:\n%s", got)
	}
	other.refused([]string{"uid 65534 may not run as api"}, "app", "logs", "api")
	other.refused([]string{"uid 65534 may not run as api"}, "app", "stop", "api")
	other.refused([]string{"uid 65534 may not run as api"}, "app", "rotate", "api")
	other.refused([]string{"uid 65534 may not look into the running api"}, "app", "env", "api")
	other.refused([]string{"uid 65534 may not look into the running api"}, "exec", "--app", "api", "--", "/bin/true")
	if got := s.must("app", "ps"); !strings.Contains(got, "api") {
		t.Errorf("a refused request ended it:\n%s", got)
	}
}
